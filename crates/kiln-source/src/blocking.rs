//! File work on threads of its own.

use crate::{Result, SourceError};

/// Runs `work` where it may block. A panic or shutdown becomes an error.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(SourceError::Io { step: "run".to_string(), source: std::io::Error::other(e) }),
    }
}
