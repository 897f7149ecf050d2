//! Disk usage, prune, and what this worker is.

use crate::{Engine, GcRule};
use futures::Stream;
use kiln_llb::errdefs::BuildError;
use kiln_oci::Platform;
use kiln_snapshot::{Filter, PruneOpts, UsageRecord};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// What clients are told of the worker.
#[derive(Clone, Debug)]
pub struct WorkerInfo {
    /// Random, the same for the life of the state directory.
    pub id: String,
    /// Facts by name.
    pub labels: BTreeMap<String, String>,
    /// What it builds for, the native one first.
    pub platforms: Vec<Platform>,
    /// Garbage collection.
    pub gc_policy: Vec<GcRule>,
}

impl Engine {
    /// What is on disk.
    ///
    /// # Errors
    /// If the database or the disk fails.
    pub async fn disk_usage(&self, filter: &Filter) -> Result<Vec<UsageRecord>, BuildError> {
        self.0.snapshots.list(filter).await.map_err(|e| BuildError::msg(e.to_string()))
    }

    /// Removes records; the stream tells each. Dropping the stream stops soon.
    pub fn prune(
        &self,
        opts: PruneOpts,
    ) -> impl Stream<Item = Result<UsageRecord, BuildError>> + Send + use<> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let engine = self.clone();
        tokio::spawn(async move {
            let cancel = engine.0.closing.child_token();
            let (tell, stop) = (sender.clone(), cancel.clone());
            let removed = move |record| {
                if tell.send(Ok(record)).is_err() {
                    stop.cancel();
                }
            };
            let pruned = engine.0.snapshots.prune(&opts, &cancel, removed).await;
            if let Err(error) = pruned {
                let _ = sender.send(Err(BuildError::msg(error.to_string())));
            }
            if opts.all && opts.filter.matches_all() {
                engine.forget_images(opts.keep_duration).await;
            }
            engine.collect_blobs().await;
        });
        UnboundedReceiverStream::new(receiver)
    }

    /// Lets go of images that were pulled or named before the last `keep`: nothing but their names holds their blobs.
    async fn forget_images(&self, keep: Duration) {
        let (pulled, named) = (self.0.sources.images().clone(), self.0.records.clone());
        let forget = move || {
            pulled.forget(keep).map_err(|e| e.to_string())?;
            named.forget(keep).map_err(|e| e.to_string())
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(forget).await {
            tracing::warn!(error, "forget images");
        }
    }

    /// Removes blobs that nothing refers to.
    pub(crate) async fn collect_blobs(&self) {
        let content = self.0.content.clone();
        match tokio::task::spawn_blocking(move || content.gc()).await {
            Ok(Err(error)) => tracing::warn!(%error, "collect blobs"),
            Ok(Ok(stats)) => tracing::debug!(blobs = stats.blobs, bytes = stats.bytes, "collected blobs"),
            Err(_) => {}
        }
    }

    /// What clients are told of the worker.
    pub fn worker_info(&self) -> WorkerInfo {
        WorkerInfo {
            id: self.0.worker_id.clone(),
            labels: self.0.labels.clone(),
            platforms: self.0.platforms.clone(),
            gc_policy: self.0.gc_rules.clone(),
        }
    }

    /// Devices that steps may use, by name. Reads their descriptions from disk.
    pub fn devices(&self) -> Vec<kiln_cdi::Device> {
        self.0.devices.scan().iter().cloned().collect()
    }
}
