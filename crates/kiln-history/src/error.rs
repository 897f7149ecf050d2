use kiln_content::{ContentError, DbError};

/// Why a record could not be read, changed or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// There is no such record.
    #[error("failed to retrieve ref {0}: file does not exist")]
    NotFound(String),
    /// The record is being removed.
    #[error("ref {0} is deleted: file does not exist")]
    Deleted(String),
    /// A filter or a limit that makes no sense.
    #[error("{0}")]
    Query(String),
    /// A log that is not what was written.
    #[error("read log of build {build}: {reason}")]
    Log {
        /// The build.
        build: String,
        /// What is wrong.
        reason: String,
    },
    /// A listener did not read what it asked for.
    #[error("history listener fell behind: {0} events were lost")]
    Behind(u64),
    /// The content store.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}
