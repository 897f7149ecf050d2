//! The plain types of the public interface.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

/// The name of a snapshot: 25 random characters, never used twice. Also the result id of the solver.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotId(Arc<str>);

impl SnapshotId {
    pub(crate) fn random() -> Self {
        const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        // 25 base-36 digits carry 129 bits; the number has 128, so nothing is lost.
        let mut rest = rand::random::<u128>();
        let mut text = String::with_capacity(25);
        for _ in 0..25 {
            text.push(ALPHABET[(rest % 36) as usize] as char);
            rest /= 36;
        }
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is not a snapshot id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid snapshot id {0:?}")]
pub struct BadId(String);

impl FromStr for SnapshotId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let good = text.len() == 25 && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        if good { Ok(Self(text.into())) } else { Err(BadId(text.chars().take(64).collect())) }
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a snapshot is for, as shown by `du` and used by prune filters (spec llb-and-solver.md section 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// The result of a build step.
    #[default]
    Regular,
    /// Kept for kiln's own needs.
    Internal,
    /// The image of a frontend.
    Frontend,
    /// A build context.
    LocalSource,
    /// A git checkout or the shared repository behind it.
    GitCheckout,
    /// A cache mount.
    CacheMount,
}

impl RecordKind {
    /// The name on the wire and in filters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::Internal => "internal",
            Self::Frontend => "frontend",
            Self::LocalSource => "source.local",
            Self::GitCheckout => "source.git.checkout",
            Self::CacheMount => "exec.cachemount",
        }
    }

    /// The kind of a name; an unknown one counts as regular.
    pub fn from_name(name: &str) -> Self {
        use RecordKind::*;
        [Internal, Frontend, LocalSource, GitCheckout, CacheMount]
            .into_iter()
            .find(|k| k.as_str() == name)
            .unwrap_or(Regular)
    }
}

/// What a new snapshot is called and what it is for.
#[derive(Clone, Debug, Default)]
pub struct NewRef {
    /// Shown in disk usage, such as `mount / from exec /bin/sh -c make`.
    pub description: String,
    /// See [`RecordKind`].
    pub kind: RecordKind,
    /// `None` means now. Image layers carry the time from the image's history.
    pub created_at: Option<SystemTime>,
}

impl NewRef {
    /// A regular record with this description, created now.
    pub fn regular(description: impl Into<String>) -> Self {
        Self { description: description.into(), ..Self::default() }
    }

    /// A record of `kind` with this description, created now.
    pub fn new(kind: RecordKind, description: impl Into<String>) -> Self {
        Self { description: description.into(), kind, created_at: None }
    }
}

/// One line of disk usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRecord {
    /// The snapshot.
    pub id: SnapshotId,
    /// Whether it can still change (cache mounts).
    pub mutable: bool,
    /// Whether something holds it, or something built on it. Never pruned then.
    pub in_use: bool,
    /// Disk space of its own files and of the blobs made from it, in bytes; without its parents.
    pub size: u64,
    /// When it was made.
    pub created_at: SystemTime,
    /// When it was last asked for or given back; `None` when never since it was made.
    pub last_used_at: Option<SystemTime>,
    /// How often it was asked for.
    pub usage_count: u64,
    /// See [`NewRef::description`].
    pub description: String,
    /// See [`RecordKind`].
    pub kind: RecordKind,
    /// Whether an image outside the build cache needs it.
    pub shared: bool,
    /// What it is made from.
    pub parents: Vec<SnapshotId>,
}
