//! When a daemon that was started for one build has nothing to do any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Counts what goes on. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Activity {
    running: Arc<AtomicUsize>,
    changed: watch::Sender<Instant>,
}

/// Something that goes on; ends when dropped.
#[derive(Debug)]
pub(crate) struct Busy(Activity);

impl Activity {
    pub(crate) fn new() -> Self {
        Self { running: Arc::default(), changed: watch::Sender::new(Instant::now()) }
    }

    pub(crate) fn begin(&self) -> Busy {
        self.running.fetch_add(1, Ordering::SeqCst);
        Busy(self.clone())
    }

    /// Returns when nothing went on for `limit`.
    pub(crate) async fn idle_for(&self, limit: Duration) {
        let mut changed = self.changed.subscribe();
        loop {
            if self.running.load(Ordering::SeqCst) > 0 {
                let _ = changed.changed().await;
                continue;
            }
            let since = changed.borrow_and_update().elapsed();
            let Some(left) = limit.checked_sub(since).filter(|left| !left.is_zero()) else { return };
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                _ = changed.changed() => {}
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.send_replace(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_only_when_nothing_runs() {
        let activity = Activity::new();
        let busy = activity.begin();
        let limit = Duration::from_millis(20);
        assert!(tokio::time::timeout(Duration::from_millis(60), activity.idle_for(limit)).await.is_err());
        drop(busy);
        tokio::time::timeout(Duration::from_secs(60), activity.idle_for(limit)).await.unwrap();
    }
}
