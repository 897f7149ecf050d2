//! Automatic garbage collection (spec daemon-and-cli.md, "Default GC policy"), and what must reach the disk in time.

use crate::Engine;
use kiln_snapshot::PruneOpts;
use std::sync::Arc;
use std::time::Duration;

/// One rule: its options, and its filters as they were written.
#[derive(Clone, Debug, Default)]
pub struct GcRule {
    /// What it removes.
    pub opts: PruneOpts,
    /// The filters in text form.
    pub filters: Vec<String>,
}

/// After the start.
const FIRST: Duration = Duration::from_secs(1);
/// At most this often.
const PAUSE: Duration = Duration::from_secs(60);
/// How long committed files may be in memory only.
const SYNC: Duration = Duration::from_secs(30);

/// Starts the tasks; they end with the engine.
pub(crate) fn start(engine: &Engine) {
    let weak = Arc::downgrade(&engine.0);
    let (closing, wanted) = (engine.0.closing.clone(), engine.0.gc_wanted.clone());
    tokio::spawn(closing.clone().run_until_cancelled_owned(async move {
        tokio::time::sleep(FIRST).await;
        while let Some(engine) = weak.upgrade().map(Engine) {
            engine.collect().await;
            // Who waits holds no engine.
            drop(engine);
            wanted.notified().await;
            tokio::time::sleep(PAUSE).await;
        }
    }));
    let weak = Arc::downgrade(&engine.0);
    tokio::spawn(closing.run_until_cancelled_owned(async move {
        loop {
            tokio::time::sleep(SYNC).await;
            let Some(engine) = weak.upgrade().map(Engine) else { return };
            let snapshots = engine.0.snapshots.clone();
            if let Ok(Err(error)) = tokio::task::spawn_blocking(move || snapshots.sync()).await {
                tracing::warn!(%error, "sync snapshots");
            }
        }
    }));
}

impl Engine {
    /// Asks for a collection soon.
    pub(crate) fn want_gc(&self) {
        self.0.gc_wanted.notify_one();
    }

    async fn collect(&self) {
        for rule in &self.0.gc_rules {
            let removed = |record: kiln_snapshot::UsageRecord| tracing::debug!(id = %record.id, size = record.size, "collected");
            if let Err(error) = self.0.snapshots.prune(&rule.opts, &self.0.closing, removed).await {
                tracing::warn!(%error, "garbage collection");
            }
        }
        if !self.0.gc_rules.is_empty() {
            self.collect_blobs().await;
        }
    }
}
