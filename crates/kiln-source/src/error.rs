//! What can go wrong with a source. No message holds a credential: addresses are redacted before they get here.

use kiln_content::{ContentError, DbError};
use kiln_digest::Digest;
use kiln_registry::RegistryError;
use kiln_snapshot::SnapshotError;

/// Why a source could not be resolved or fetched.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The identifier or an attribute makes no sense.
    #[error("invalid source {identifier}: {message}")]
    Invalid {
        /// The identifier, redacted.
        identifier: String,
        /// What is wrong.
        message: String,
    },
    /// Understood, but not built.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// From the registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// From the snapshots.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// From the content store.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// From the database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A file operation in a snapshot.
    #[error(transparent)]
    File(#[from] kiln_fs::Error),
    /// A file operation elsewhere.
    #[error("{step}: {source}")]
    Io {
        /// What was being done.
        step: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The image is not what was asked for, or not an image.
    #[error("{reference}: {message}")]
    Image {
        /// The reference.
        reference: String,
        /// What is wrong.
        message: String,
    },
    /// A download failed.
    #[error("failed to fetch {url}: {message}")]
    Http {
        /// The address, redacted.
        url: String,
        /// The cause.
        message: String,
    },
    /// Content other than the expected.
    #[error("digest mismatch for {url}: {found} (expected: {expected})")]
    Digest {
        /// The address, redacted.
        url: String,
        /// What came.
        found: Digest,
        /// What was expected.
        expected: Digest,
    },
    /// Git failed.
    #[error("failed to {step} {remote}: {message}")]
    Git {
        /// What was being done.
        step: String,
        /// The repository, redacted.
        remote: String,
        /// The cause; git's own words where it said something.
        message: String,
    },
    /// The client could not give what was needed.
    #[error("{what}: {message}")]
    Client {
        /// What was needed.
        what: String,
        /// The cause.
        message: String,
    },
}

impl SourceError {
    /// Whether the thing itself does not exist, as opposed to not being reachable.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Registry(e) => e.is_not_found(),
            Self::File(e) => e.is_not_found(),
            _ => false,
        }
    }

    pub(crate) fn io(step: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let step = step.into();
        move |source| Self::Io { step, source }
    }
}
