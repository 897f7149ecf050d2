//! Repeating what may succeed the next time.

use std::future::Future;
use std::time::Duration;

use crate::{Observer, RegistryError, Result};

/// Longest wait that a registry's `Retry-After` can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// How often and after what time to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Wait before the first repetition; doubles each time.
    pub first: Duration,
    /// Longest wait.
    pub max: Duration,
    /// Calls in all, at least one.
    pub attempts: u32,
}

impl Default for RetryPolicy {
    /// 1, 2, 4 and 8 seconds.
    fn default() -> Self {
        Self { first: Duration::from_secs(1), max: Duration::from_secs(8), attempts: 5 }
    }
}

impl RetryPolicy {
    /// The wait after `failures` failures in a row, `None` when it is time to give up or no use to go on.
    pub(crate) fn delay(&self, failures: u32, error: &RegistryError) -> Option<Duration> {
        if failures >= self.attempts || !error.is_transient() {
            return None;
        }
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.max);
        let asked = error.retry_after().unwrap_or_default().min(RETRY_AFTER_MAX);
        Some(doubled.max(asked))
    }

    /// Waits after `failures` failures in a row, or returns the error.
    pub(crate) async fn wait(
        &self,
        failures: u32,
        error: RegistryError,
        observer: &dyn Observer,
    ) -> Result<()> {
        let Some(delay) = self.delay(failures, &error) else { return Err(error) };
        tracing::warn!(%error, ?delay, "registry call failed, retrying");
        observer.retrying(&error, delay);
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// Calls until it works, fails for good or the attempts are used up.
    pub(crate) async fn run<T, F>(&self, observer: &dyn Observer, mut call: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut failures = 0;
        loop {
            match call().await {
                Ok(value) => return Ok(value),
                Err(error) => {
                    failures += 1;
                    self.wait(failures, error, observer).await?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StatusError;

    fn status(status: u16, retry_after: Option<u64>) -> RegistryError {
        RegistryError::Status(Box::new(StatusError {
            status,
            retry_after: retry_after.map(Duration::from_secs),
            ..StatusError::default()
        }))
    }

    #[test]
    fn waits_double_up_to_a_limit() {
        let p = RetryPolicy { attempts: 7, ..RetryPolicy::default() };
        let waits: Vec<_> = (1..9).map(|n| p.delay(n, &status(503, None)).map(|d| d.as_secs())).collect();
        assert_eq!(waits, [Some(1), Some(2), Some(4), Some(8), Some(8), Some(8), None, None]);
    }

    #[test]
    fn only_what_may_pass() {
        let p = RetryPolicy::default();
        for (code, again) in
            [(500, true), (502, true), (429, true), (408, true), (404, false), (400, false), (501, false)]
        {
            assert_eq!(p.delay(1, &status(code, None)).is_some(), again, "{code}");
        }
        assert_eq!(p.delay(1, &status(429, Some(20))), Some(Duration::from_secs(20)));
        assert_eq!(p.delay(1, &status(429, Some(86400))), Some(RETRY_AFTER_MAX));
    }
}
