//! Why an operation failed, and what is left to look at.

use crate::Ref;
use kiln_llb::errdefs::BuildError;
use kiln_snapshot::{Filter, PruneOpts, SnapshotId, Snapshots};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The error of an operation. Results that it holds are kept while a clone exists.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What went wrong.
    pub error: BuildError,
    /// The filesystems of a step whose process failed.
    pub left: Option<Arc<Left>>,
}

/// The filesystems of a step that failed, in the order of its mounts. `None` where a mount has none (tmpfs, secrets).
#[derive(Debug)]
pub struct Left {
    /// As the step found them.
    pub inputs: Vec<Option<Ref>>,
    /// As the step left them.
    pub mounts: Vec<Option<Ref>>,
    /// Dropped after the results.
    pub(crate) written: Written,
}

/// Snapshots that only the error holds: nobody can find them later, so they go with it.
pub(crate) struct Written {
    pub(crate) snapshots: Snapshots,
    pub(crate) ids: Vec<SnapshotId>,
}

impl Drop for Written {
    fn drop(&mut self) {
        let ids = std::mem::take(&mut self.ids);
        let (Ok(runtime), false) = (tokio::runtime::Handle::try_current(), ids.is_empty()) else { return };
        let snapshots = self.snapshots.clone();
        runtime.spawn(async move {
            let Ok(filter) = Filter::parse_all(ids.iter().map(|id| format!("id=={id}"))) else { return };
            let opts = PruneOpts { filter, all: true, ..PruneOpts::default() };
            if let Err(error) = snapshots.prune(&opts, &CancellationToken::new(), |_| {}).await {
                tracing::debug!(%error, "remove what a failed step has written");
            }
        });
    }
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.ids.fmt(f)
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self { error, left: None }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}
