//! Why an export failed.

use kiln_content::ContentError;
use kiln_registry::RegistryError;
use kiln_session::SessionError;
use kiln_session::fsutil::TransferError;
use kiln_snapshot::SnapshotError;

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The result does not fit what was asked for.
    #[error("{0}")]
    Invalid(String),
    /// An image config cannot be used.
    #[error("invalid image config for export: {0}")]
    Config(String),
    /// A name is no image name.
    #[error("failed to parse {name}: {source}")]
    Name {
        /// As given.
        name: String,
        /// Why.
        source: kiln_oci::ReferenceError,
    },
    /// A push.
    #[error("failed to push {name}: {source}")]
    Push {
        /// The image.
        name: String,
        /// Why.
        source: Box<RegistryError>,
    },
    /// Layers.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Blobs.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The client.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A transfer of files to the client.
    #[error("copy files to the client: {0}")]
    Transfer(#[from] TransferError),
    /// The client refused an archive.
    #[error("send the archive to the client: {0}")]
    Archive(String),
    /// A file.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// The metadata database.
    #[error("image records: {0}")]
    Records(#[from] kiln_content::DbError),
    /// A thread died.
    #[error("internal: {0}")]
    Internal(String),
}

impl ExportError {
    pub(crate) fn json(e: serde_json::Error) -> Self {
        Self::Config(e.to_string())
    }
}
