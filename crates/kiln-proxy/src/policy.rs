//! Who decides what a step may ask for.

use std::fmt::Debug;

/// Decides about requests.
#[async_trait::async_trait]
pub trait Policy: Debug + Send + Sync {
    /// Decides about one URL, in its normal spelling and without credentials. Nothing has been sent or looked up for it.
    ///
    /// # Errors
    /// If it may not be fetched.
    async fn decide(&self, url: &str) -> Result<Verdict, Denied>;
}

/// What is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What was asked for.
    Allowed,
    /// This URL. For GET only: other requests are denied then, because they may change something at a server that was
    /// not meant.
    Instead(String),
}

/// Why something may not be fetched, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(pub String);

/// The policy of builds without one.
#[derive(Clone, Copy, Debug)]
pub struct AllowAll;

#[async_trait::async_trait]
impl Policy for AllowAll {
    async fn decide(&self, _url: &str) -> Result<Verdict, Denied> {
        Ok(Verdict::Allowed)
    }
}
