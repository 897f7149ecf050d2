//! What a receiver does, and who hears of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use kiln_digest::{Digest, Hasher};
use tokio_util::sync::CancellationToken;

use super::stat::Stat;

/// Where a metadata-only transfer keeps the entries: 4 bytes little-endian length, then the stat message, repeated.
pub(crate) const METADATA_FILE: &str = ".fsutil-metadata";
/// When an existing entry counts as unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// When type, mode, owner, size, time, device and link are the same.
    Metadata,
    /// Never: all contents are asked for.
    Always,
}

/// What happens to what is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// The directory becomes the announced tree: what is not announced is removed.
    Mirror(Compare),
    /// Announced entries are added or replaced; the rest stays.
    Merge,
}

/// How files appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Under their final name from the start. For directories that nobody looks at before the end.
    InPlace,
    /// Complete, by renaming.
    Replace,
}

/// Bounds on what a peer can make us keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of one transfer; each costs eight bytes.
    pub entries: u64,
    /// Bytes for entries that wait for their contents.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 16 << 20, memory: 1 << 30 }
    }
}

/// Computes a digest of what goes by.
pub trait ContentHasher: Send {
    /// Takes the next part of the contents.
    fn write(&mut self, data: &[u8]);

    /// The digest of all that was written.
    fn finish(self: Box<Self>) -> Digest;
}

impl ContentHasher for Hasher {
    fn write(&mut self, data: &[u8]) {
        self.update(data);
    }

    fn finish(self: Box<Self>) -> Digest {
        Hasher::finish(*self)
    }
}

/// Hears of every change, for content hashes that are computed on the way. Called from several threads.
pub trait Observer: Send + Sync {
    /// A hasher that the contents of the entry will be fed to; whatever goes before the contents is already in it.
    fn hasher(&self, stat: &Stat) -> Box<dyn ContentHasher>;

    /// The entry is in its place; `digest` is that of its hasher.
    fn changed(&self, stat: &Stat, digest: Digest);

    /// The entry, and all below it, is gone.
    fn removed(&self, path: &Path);
}

/// Says which contents a metadata-only transfer still fetches.
pub type MetadataOnly = Arc<dyn Fn(&Path) -> bool + Send + Sync>;

/// What to do with a received tree.
#[derive(Clone)]
pub struct ReceiveOptions {
    /// What happens to what is there.
    pub update: Update,
    /// How files appear.
    pub style: Style,
    /// Forces the owner of everything.
    pub owner: Option<(u32, u32)>,
    /// Hears of changes.
    pub observer: Option<Arc<dyn Observer>>,
    /// Entries are only recorded in `.fsutil-metadata`, except those that this wants.
    pub metadata_only: Option<MetadataOnly>,
    /// Counts received bytes, for progress.
    pub progress: Option<Arc<AtomicU64>>,
    /// Bounds.
    pub limits: Limits,
    /// Ends the transfer early; everything has stopped when the call returns.
    pub cancel: CancellationToken,
}

impl ReceiveOptions {
    /// These updates, in this style, nothing else.
    pub fn new(update: Update, style: Style) -> Self {
        Self {
            update,
            style,
            owner: None,
            observer: None,
            metadata_only: None,
            progress: None,
            limits: Limits::default(),
            cancel: CancellationToken::new(),
        }
    }
}

impl std::fmt::Debug for ReceiveOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiveOptions")
            .field("update", &self.update)
            .field("style", &self.style)
            .finish_non_exhaustive()
    }
}

/// What was received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Entries announced.
    pub entries: u64,
    /// Files whose contents were asked for.
    pub requested: u64,
    /// Entries removed.
    pub removed: u64,
    /// Bytes of all packets.
    pub bytes: u64,
}
