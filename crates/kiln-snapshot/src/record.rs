//! A snapshot in memory, and the handle that keeps it.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use kiln_digest::Digest;
use kiln_oci::Descriptor;

use crate::snapshots::Inner;
use crate::{RecordKind, SnapshotId};

/// What a snapshot is made of.
#[derive(Debug)]
pub(crate) enum Shape {
    /// Own files on top of a parent.
    Layer(Option<Arc<Record>>),
    /// The layers of several snapshots, later over earlier. Has at least two.
    Merge(Vec<Arc<Record>>),
    /// What `upper` has beyond `lower`.
    Diff { lower: Option<Arc<Record>>, upper: Option<Arc<Record>> },
    /// A cache mount or another kept directory, on top of a parent.
    Mutable(Option<Arc<Record>>),
}

impl Shape {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Layer(_) => "layer",
            Self::Merge(_) => "merge",
            Self::Diff { .. } => "diff",
            Self::Mutable(_) => "mutable",
        }
    }

    /// How many differences lie inside each other here.
    pub(crate) fn diff_depth(&self) -> usize {
        let below = self.parents().into_iter().map(|(_, parent)| parent.diff_depth).max().unwrap_or(0);
        below + usize::from(matches!(self, Self::Diff { .. }))
    }

    /// Takes the parents out, for a record that goes.
    fn take_parents(&mut self) -> Vec<Arc<Record>> {
        match std::mem::replace(self, Self::Layer(None)) {
            Self::Layer(parent) | Self::Mutable(parent) => parent.into_iter().collect(),
            Self::Merge(parts) => parts,
            Self::Diff { lower, upper } => lower.into_iter().chain(upper).collect(),
        }
    }

    /// Parents with their position in the table.
    pub(crate) fn parents(&self) -> Vec<(usize, &Arc<Record>)> {
        match self {
            Self::Layer(parent) | Self::Mutable(parent) => parent.iter().map(|p| (0, p)).collect(),
            Self::Merge(parts) => parts.iter().enumerate().collect(),
            Self::Diff { lower, upper } => {
                let lower = lower.iter().map(|p| (0, p));
                lower.chain(upper.iter().map(|p| (1, p))).collect()
            }
        }
    }
}

/// A blob that holds this layer, in some compression.
#[derive(Clone, Debug)]
pub(crate) struct StoredBlob {
    /// Key of the compression variant; see `layers::variant`.
    pub(crate) variant: String,
    pub(crate) descriptor: Descriptor,
}

/// The changing part of a record.
#[derive(Debug, Default)]
pub(crate) struct Meta {
    /// Number below `snapshots/`; `None` while lazy, and for merges and diffs without files of their own.
    pub(crate) dir: Option<u64>,
    /// Of a merge or diff: the directories to mount, bottom first.
    pub(crate) stack: Option<Vec<u64>>,
    /// Further directories that go with this record.
    pub(crate) extra_dirs: Vec<(u64, String)>,
    pub(crate) kind: RecordKind,
    pub(crate) description: String,
    pub(crate) last_used: Option<SystemTime>,
    pub(crate) usage_count: u64,
    /// Bytes of own files, once somebody asked.
    pub(crate) size: Option<u64>,
    /// Whether the directory has whiteouts or opaque marks, once somebody asked.
    pub(crate) marks: Option<bool>,
    pub(crate) chain_id: Option<Digest>,
    pub(crate) diff_id: Option<Digest>,
    pub(crate) blobs: Vec<StoredBlob>,
    /// Last use or count is newer than the row.
    pub(crate) usage_changed: bool,
}

/// One snapshot. Records live as long as the catalog or a child has them.
pub(crate) struct Record {
    pub(crate) id: SnapshotId,
    pub(crate) shape: Shape,
    diff_depth: usize,
    pub(crate) created: SystemTime,
    meta: Mutex<Meta>,
    /// How many [`Snapshot`]s and mutable holders there are.
    handles: AtomicUsize,
    /// Held while the record is fetched, unpacked, or turned into a blob, so that it happens once.
    pub(crate) work: tokio::sync::Mutex<()>,
}

impl Record {
    pub(crate) fn new(id: SnapshotId, shape: Shape, created: SystemTime, meta: Meta) -> Self {
        Self {
            id,
            diff_depth: shape.diff_depth(),
            shape,
            // As precise as the table: an image made of it must not change when the daemon is started again.
            created: crate::catalog::from_millis(crate::catalog::to_millis(created)),
            meta: Mutex::new(meta),
            handles: AtomicUsize::new(0),
            work: tokio::sync::Mutex::new(()),
        }
    }

    /// The changing part. Never held across file operations.
    pub(crate) fn meta(&self) -> MutexGuard<'_, Meta> {
        self.meta.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn held(&self) -> bool {
        self.handles.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn hold(&self) {
        self.handles.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends a hold and notes the time of last use.
    pub(crate) fn release(&self) {
        {
            let mut meta = self.meta();
            meta.last_used = Some(SystemTime::now());
            meta.usage_changed = true;
        }
        self.handles.fetch_sub(1, Ordering::SeqCst);
    }

    /// Notes that somebody asked for the record.
    pub(crate) fn used(&self) {
        let mut meta = self.meta();
        meta.last_used = Some(SystemTime::now());
        meta.usage_count += 1;
        meta.usage_changed = true;
    }
}

/// Chains are long: their records are dropped one after the other, not inside each other.
impl Drop for Record {
    fn drop(&mut self) {
        let mut todo = self.shape.take_parents();
        while let Some(parent) = todo.pop() {
            if let Some(mut last) = Arc::into_inner(parent) {
                todo.extend(last.shape.take_parents());
            }
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.shape.name(), self.id)
    }
}

/// An immutable filesystem. While a handle is held, the snapshot and all it is made of stay on disk.
pub struct Snapshot {
    pub(crate) record: Arc<Record>,
    pub(crate) store: Arc<Inner>,
}

impl Snapshot {
    /// Takes a hold. Where the record comes from the catalog, the catalog's lock must be held, so that it is not
    /// pruned in between.
    pub(crate) fn new(record: Arc<Record>, store: Arc<Inner>) -> Self {
        record.hold();
        Self { record, store }
    }

    /// The name, which also works after a restart.
    pub fn id(&self) -> &SnapshotId {
        &self.record.id
    }

    /// See [`NewRef::description`](crate::NewRef::description).
    pub fn description(&self) -> String {
        self.record.meta().description.clone()
    }

    /// What it is for.
    pub fn kind(&self) -> RecordKind {
        self.record.meta().kind
    }

    /// When it was made.
    pub fn created_at(&self) -> SystemTime {
        self.record.created
    }

    /// The OCI chain id, of a snapshot that is a stack of image layers.
    pub fn chain_id(&self) -> Option<Digest> {
        self.record.meta().chain_id
    }

    /// Whether files are missing: some layer is not unpacked, or a merge not put together. `Snapshots::ensure` helps.
    pub fn is_lazy(&self) -> bool {
        self.store.dirs(&self.record).is_err()
    }
}

impl Clone for Snapshot {
    fn clone(&self) -> Self {
        Self::new(self.record.clone(), self.store.clone())
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.record.release();
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record.fmt(f)
    }
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.record.id == other.record.id
    }
}

impl Eq for Snapshot {}
