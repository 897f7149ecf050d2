//! Those who read what a build says.

use super::Hub;
use super::said::Next;
use kiln_progress::Update;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Reads a [`Hub`] from the beginning, as fast as it likes.
#[derive(Debug)]
pub struct Follower {
    hub: Hub,
    /// How many batches were read.
    seen: u64,
    /// Of these, those that are not passed on yet.
    read: VecDeque<Update>,
}

/// Batches are joined up to about this many messages, so that no wire message becomes too large.
const MAX_BATCH: usize = 256;
/// Likewise for bytes of output.
const MAX_BATCH_BYTES: usize = 256 << 10;
/// How long news are gathered before they are passed on.
const GATHER: Duration = Duration::from_millis(25);

impl Follower {
    pub(super) fn new(hub: Hub) -> Self {
        Self { hub, seen: 0, read: VecDeque::new() }
    }

    /// The next news; `None` when the build has ended and all is read. What is said within a moment comes together, so
    /// that a reader shows states and not every change between them.
    pub async fn next(&mut self) -> Option<Update> {
        let hub = self.hub.clone();
        let mut gather: Option<Instant> = None;
        loop {
            if !self.read.is_empty() {
                return Some(self.join());
            }
            let mut notified = std::pin::pin!(hub.0.changed.notified());
            // From here on nothing that is said is missed.
            notified.as_mut().enable();
            let (next, closed) = {
                let state = hub.state();
                (state.said.after(self.seen), state.closed)
            };
            let news = match next {
                Next::Stored(stored) => {
                    self.seen = stored.end;
                    // Fails only when the runtime shuts down.
                    self.read = tokio::task::spawn_blocking(move || stored.read()).await.unwrap_or_default();
                    continue;
                }
                Next::Recent(news) => news,
            };
            match (news, closed) {
                (0, true) => return None,
                (0, false) => notified.await,
                (n, false) if n < MAX_BATCH => {
                    let until = *gather.get_or_insert_with(|| Instant::now() + GATHER);
                    if tokio::time::timeout_at(until, notified).await.is_err() {
                        self.take();
                    }
                }
                _ => self.take(),
            }
        }
    }

    /// Reads what is in memory. What was moved out of it this moment is found the next time.
    fn take(&mut self) {
        let state = self.hub.state();
        let Next::Recent(_) = state.said.after(self.seen) else { return };
        let news = state.said.recent(self.seen, MAX_BATCH);
        drop(state);
        self.seen += news.len() as u64;
        self.read.extend(news.iter().map(|u| Update::clone(u)));
    }

    fn join(&mut self) -> Update {
        let mut out = Update::default();
        let (mut count, mut bytes) = (0, 0);
        while count < MAX_BATCH && bytes < MAX_BATCH_BYTES {
            let Some(batch) = self.read.pop_front() else { break };
            count += 1;
            bytes += batch.logs.iter().map(|l| l.data.len()).sum::<usize>();
            out.append(batch);
        }
        out
    }
}
