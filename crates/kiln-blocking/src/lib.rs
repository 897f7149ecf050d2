//! Work on disk and CPU beside async code.
//!
//! A thread is held while there is something to do, never while somebody is waited for: a peer that is slow costs a
//! task and bounded memory, and the threads of the runtime stay for those who have work for them.

mod feed;

pub use feed::Feed;

/// The work panicked, or the runtime ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the thread that worked on it ended early")]
pub struct Lost;

impl From<Lost> for std::io::Error {
    fn from(e: Lost) -> Self {
        Self::other(e)
    }
}

/// Runs `work`, which must end by itself, on a thread for such work.
///
/// # Errors
/// If it panics or the runtime ends.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Lost> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Lost)
}

/// As [`run`], with a state that is worked on and comes back.
///
/// # Errors
/// As [`run`]; the state is lost then.
pub async fn with<S, T>(mut state: S, work: impl FnOnce(&mut S) -> T + Send + 'static) -> Result<(S, T), Lost>
where
    S: Send + 'static,
    T: Send + 'static,
{
    run(move || {
        let out = work(&mut state);
        (state, out)
    })
    .await
}
