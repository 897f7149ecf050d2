//! Results of operations.

use kiln_snapshot::{Snapshot, SnapshotId};
use kiln_solver::ResultId;

/// One output of an operation: a snapshot, or the empty filesystem. Holding it keeps the snapshot from being pruned.
#[derive(Clone, Debug, Default)]
pub struct Ref(pub Option<Snapshot>);

/// Name of the empty filesystem in cache records; no snapshot id looks like it.
const SCRATCH: &str = "scratch";

impl Ref {
    /// The snapshot, if there is one.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.0.as_ref()
    }

    /// The name under which cache records keep it.
    pub fn result_id(&self) -> ResultId {
        ResultId::new(self.0.as_ref().map_or(SCRATCH, |s| s.id().as_str()))
    }
}

impl From<Snapshot> for Ref {
    fn from(snapshot: Snapshot) -> Self {
        Self(Some(snapshot))
    }
}

/// What a cache record names.
pub(crate) enum Stored {
    Scratch,
    Snapshot(SnapshotId),
}

/// `None` when the text is no id at all.
pub(crate) fn stored(id: &ResultId) -> Option<Stored> {
    match id.as_str() {
        SCRATCH => Some(Stored::Scratch),
        text => text.parse().ok().map(Stored::Snapshot),
    }
}
