//! What can go wrong with a snapshot.

use std::io;
use std::sync::Arc;

use kiln_content::{ContentError, DbError};
use kiln_digest::Digest;

use crate::{FilterError, SnapshotId};

/// Why a snapshot could not be made, mounted, read or removed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The snapshot's layers are not unpacked; call `Snapshots::ensure` first.
    #[error("snapshot {0} is not unpacked yet")]
    Lazy(SnapshotId),
    /// The snapshot was removed.
    #[error("snapshot {0} not found")]
    NotFound(SnapshotId),
    /// A path in a snapshot does not exist.
    #[error("{0:?}: not found")]
    PathNotFound(String),
    /// A file operation in a snapshot failed; the text names step and path.
    #[error("{0}")]
    File(Arc<kiln_fs::Error>),
    /// A system call such as mount failed; the text names call and object.
    #[error("{0}")]
    Sys(Arc<kiln_sys::Error>),
    /// A file operation on the state directory failed.
    #[error("{step} {object}: {source}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// To what.
        object: String,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// The content store refused.
    #[error("{0}")]
    Content(Arc<ContentError>),
    /// The database refused.
    #[error("{0}")]
    Db(Arc<DbError>),
    /// A layer's provider could not bring its blob.
    #[error("fetch layer {digest}: {source}")]
    Fetch {
        /// The blob.
        digest: Digest,
        /// The provider's reason.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A layer's archive could not be unpacked.
    #[error("unpack layer {digest}: {reason}")]
    Unpack {
        /// The blob.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// A layer unpacks to something else than the image config says.
    #[error("unpack layer {digest}: uncompressed content is {found}, the image config says {expected}")]
    DiffId {
        /// The blob.
        digest: Digest,
        /// The diff id that was promised.
        expected: Digest,
        /// The diff id that came out.
        found: Digest,
    },
    /// A layer has no media type that kiln can unpack.
    #[error("layer {digest} has unsupported media type {media_type:?}")]
    MediaType {
        /// The blob.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// Something is nested deeper than is worked on.
    #[error("{what} are nested too deeply (more than {limit})")]
    TooDeep {
        /// What is nested.
        what: &'static str,
        /// How deep it may be.
        limit: usize,
    },
    /// Too many symbolic links on the way to a path.
    #[error("{0:?}: too many links")]
    TooManyLinks(String),
    /// An include or exclude pattern, or a wildcard, does not parse.
    #[error("invalid pattern {pattern:?}: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// A filter does not parse.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The work was cancelled.
    #[error("context canceled")]
    Cancelled,
    /// Overlayfs was asked for by name and does not work here.
    #[error("snapshotter overlayfs does not work in {root}: {reason}")]
    NoOverlay {
        /// The state directory.
        root: String,
        /// The kernel's reason.
        reason: String,
    },
}

impl SnapshotError {
    pub(crate) fn io(step: &'static str, object: impl ToString, source: impl Into<io::Error>) -> Self {
        Self::Io { step, object: object.to_string(), source: Arc::new(source.into()) }
    }

    /// Whether a disk or quota is full.
    pub fn is_no_space(&self) -> bool {
        let kind = match self {
            Self::Content(error) => return error.is_no_space(),
            Self::File(error) => error.errno().map(|errno| io::Error::from(errno).kind()),
            Self::Io { source, .. } => Some(source.kind()),
            _ => None,
        };
        matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// Whether a path or a snapshot is simply not there.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound(_) | Self::PathNotFound(_) => true,
            Self::File(error) => error.is_not_found(),
            _ => false,
        }
    }
}

impl From<kiln_fs::Error> for SnapshotError {
    fn from(error: kiln_fs::Error) -> Self {
        Self::File(Arc::new(error))
    }
}

impl From<kiln_sys::Error> for SnapshotError {
    fn from(error: kiln_sys::Error) -> Self {
        Self::Sys(Arc::new(error))
    }
}

impl From<ContentError> for SnapshotError {
    fn from(error: ContentError) -> Self {
        Self::Content(Arc::new(error))
    }
}

impl From<DbError> for SnapshotError {
    fn from(error: DbError) -> Self {
        Self::Db(Arc::new(error))
    }
}

/// The result of a snapshot operation.
pub(crate) type Result<T, E = SnapshotError> = std::result::Result<T, E>;
