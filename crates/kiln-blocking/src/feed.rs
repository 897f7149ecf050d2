//! Items that come from somebody slow and are worked on in the order they came.

use std::mem::take;

use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::Lost;

/// Weight from which a thread that has nothing to do is given what is there.
const START: usize = 256 << 10;
/// Weight that waits while a thread is at work; who brings more waits too.
const FULL: usize = 1 << 20;
/// Weight of an item besides its own.
const ITEM: usize = 64;

/// A state that takes items in, such as a file and the pieces of a download. Dropped unfinished, it still works on what
/// it was given.
pub struct Feed<S, I, E>
where
    S: Send + 'static,
    I: Send + 'static,
    E: From<Lost> + Send + 'static,
{
    state: State<S, E>,
    work: fn(&mut S, I) -> Result<(), E>,
    waiting: Vec<I>,
    weight: usize,
}

enum State<S, E> {
    Idle(S),
    Busy(JoinHandle<Result<S, E>>),
    Over,
}

impl<S, I, E> Feed<S, I, E>
where
    S: Send + 'static,
    I: Send + 'static,
    E: From<Lost> + Send + 'static,
{
    /// `work` takes one item; after an error it is not called again.
    pub fn new(state: S, work: fn(&mut S, I) -> Result<(), E>) -> Self {
        Self { state: State::Idle(state), work, waiting: Vec::new(), weight: 0 }
    }

    /// Hands an item over. `weight` is about what it takes in memory, in bytes.
    ///
    /// # Errors
    /// Of the work on an earlier item, once; after that [`Lost`].
    pub async fn give(&mut self, item: I, weight: usize) -> Result<(), E> {
        self.waiting.push(item);
        self.weight = self.weight.saturating_add(weight).saturating_add(ITEM);
        let idle = match &self.state {
            State::Busy(work) => work.is_finished(),
            State::Idle(_) | State::Over => true,
        };
        if self.weight >= FULL || (idle && self.weight >= START) {
            self.settle().await?;
            self.start();
        }
        Ok(())
    }

    /// Waits until everything is worked on and gives the state back.
    ///
    /// # Errors
    /// As [`Feed::give`].
    pub async fn finish(mut self) -> Result<S, E> {
        self.settle().await?;
        if !self.waiting.is_empty() {
            self.start();
            self.settle().await?;
        }
        match std::mem::replace(&mut self.state, State::Over) {
            State::Idle(state) => Ok(state),
            State::Busy(_) | State::Over => Err(Lost.into()),
        }
    }

    /// Waits for the work under way.
    async fn settle(&mut self) -> Result<(), E> {
        if let State::Busy(work) = &mut self.state {
            let done = work.await;
            self.state = State::Over;
            self.state = State::Idle(done.map_err(|_| Lost)??);
        }
        match self.state {
            State::Over => Err(Lost.into()),
            State::Idle(_) | State::Busy(_) => Ok(()),
        }
    }

    fn start(&mut self) {
        let State::Idle(mut state) = std::mem::replace(&mut self.state, State::Over) else { return };
        let (items, work) = (take(&mut self.waiting), self.work);
        self.weight = 0;
        self.state = State::Busy(spawn_blocking(move || {
            for item in items {
                work(&mut state, item)?;
            }
            Ok(state)
        }));
    }
}

impl<S, I, E> Drop for Feed<S, I, E>
where
    S: Send + 'static,
    I: Send + 'static,
    E: From<Lost> + Send + 'static,
{
    fn drop(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Over);
        let Ok(runtime) = Handle::try_current() else { return };
        let (items, work) = (take(&mut self.waiting), self.work);
        let rest = move |mut state| drop(items.into_iter().try_for_each(|item| work(&mut state, item)));
        match state {
            State::Idle(state) => drop(runtime.spawn_blocking(move || rest(state))),
            State::Busy(before) => drop(runtime.spawn(async move {
                if let Ok(Ok(state)) = before.await {
                    drop(spawn_blocking(move || rest(state)));
                }
            })),
            State::Over => {}
        }
    }
}

impl<S, I, E> std::fmt::Debug for Feed<S, I, E>
where
    S: Send + 'static,
    I: Send + 'static,
    E: From<Lost> + Send + 'static,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").field("weight", &self.weight).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[derive(Debug, PartialEq)]
    enum Failed {
        At(usize),
        Lost,
    }

    impl From<Lost> for Failed {
        fn from(_: Lost) -> Self {
            Self::Lost
        }
    }

    fn push(all: &mut Vec<usize>, item: usize) -> Result<(), Failed> {
        match item {
            500 => Err(Failed::At(item)),
            item => {
                all.push(item);
                Ok(())
            }
        }
    }

    #[tokio::test]
    async fn items_are_worked_on_in_order() {
        let mut feed = Feed::new(Vec::new(), push);
        for item in 0..400 {
            feed.give(item, 10 << 10).await.unwrap();
        }
        assert_eq!(feed.finish().await.unwrap(), (0..400).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn the_first_error_ends_it() {
        let mut feed = Feed::new(Vec::new(), push);
        let mut errors = Vec::new();
        for item in 490..600 {
            errors.extend(feed.give(item, FULL).await.err());
        }
        assert_eq!(errors[0], Failed::At(500));
        assert!(errors.len() > 1 && errors[1..].iter().all(|e| *e == Failed::Lost));
        assert_eq!(feed.finish().await, Err(Failed::Lost));
    }

    /// With one thread for blocking work in all.
    #[test]
    fn who_waits_for_more_holds_no_thread() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let counted = Arc::new(AtomicUsize::new(0));
        runtime.block_on(async {
            let mut feeds: Vec<Feed<Arc<AtomicUsize>, usize, Failed>> = Vec::new();
            for _ in 0..100 {
                let mut feed = Feed::new(counted.clone(), |n: &mut Arc<AtomicUsize>, item| {
                    n.fetch_add(item, Ordering::SeqCst);
                    Ok(())
                });
                feed.give(1, FULL).await.unwrap();
                feeds.push(feed);
            }
            let free = tokio::time::timeout(Duration::from_secs(20), crate::run(|| ())).await;
            free.expect("a thread is free").unwrap();
            for feed in feeds {
                feed.finish().await.unwrap();
            }
        });
        assert_eq!(counted.load(Ordering::SeqCst), 100);
    }
}
