//! What can go wrong with a blob.

use std::io;

use kiln_digest::Digest;

use crate::DbError;

/// Why a blob could not be read, written or collected.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The store has no such blob.
    #[error("blob {0} not found")]
    NotFound(Digest),
    /// The bytes on disk are not those that the name promises. The blob was removed from the store.
    #[error("blob {digest} is damaged on disk (its content hashes to {found}); it was removed")]
    Damaged {
        /// The blob.
        digest: Digest,
        /// What the bytes hash to.
        found: Digest,
    },
    /// The bytes written are not those expected.
    #[error("blob {expected}: received content has digest {found}")]
    DigestMismatch {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// More or fewer bytes were written than expected.
    #[error("blob {blob}: received {found} bytes, expected {expected}")]
    SizeMismatch {
        /// Digest or ingest key.
        blob: String,
        /// Bytes expected.
        expected: u64,
        /// Bytes received.
        found: u64,
    },
    /// The blob is larger than the caller is willing to hold in memory.
    #[error("blob {digest} is too large ({size} > {limit})")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The caller's limit in bytes.
        limit: u64,
    },
    /// Somebody else is writing under the same key.
    #[error("blob {0} is being written already")]
    Busy(String),
    /// The disk (or the quota) is full; the partial file was removed.
    #[error("write blob {blob}: no space left on device")]
    NoSpace {
        /// Digest or ingest key.
        blob: String,
    },
    /// The file system refused.
    #[error("{step} blob {blob}: {source}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// Digest or ingest key.
        blob: String,
        /// The cause.
        source: io::Error,
    },
    /// The store's directories could not be set up.
    #[error("open content store {path}: {source}")]
    Open {
        /// The directory.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The database refused.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl ContentError {
    pub(crate) fn io(step: &'static str, blob: impl ToString, source: io::Error) -> Self {
        if is_no_space(&source) {
            return Self::NoSpace { blob: blob.to_string() };
        }
        Self::Io { step, blob: blob.to_string(), source }
    }

    /// Whether the disk or a quota is full.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }

    /// Whether the blob is simply not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}

impl From<ContentError> for io::Error {
    fn from(error: ContentError) -> Self {
        let kind = match &error {
            ContentError::NotFound(_) => io::ErrorKind::NotFound,
            ContentError::NoSpace { .. } => io::ErrorKind::StorageFull,
            ContentError::Damaged { .. } | ContentError::DigestMismatch { .. } => io::ErrorKind::InvalidData,
            ContentError::Io { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
