//! Who asks: credentials, and who is told about retries.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::RegistryError;

/// Proof of identity for one registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// User name and password or personal token.
    Password {
        /// Not empty.
        username: String,
        /// Not empty.
        secret: String,
    },
    /// OAuth refresh token ("identity token").
    RefreshToken(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => write!(f, "Password({username:?})"),
            Self::RefreshToken(_) => f.write_str("RefreshToken"),
        }
    }
}

/// What a token server is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The registry, as in [`Credentials::login`].
    pub host: String,
    /// Address of the token server.
    pub realm: String,
    /// Service name from the challenge, may be empty.
    pub service: String,
    /// Normalised scopes, such as `repository:library/alpine:pull`.
    pub scopes: Vec<String>,
}

/// A bearer token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Goes behind `Bearer `.
    pub token: String,
    /// How long it is good for; `None` means 60 s.
    pub lifetime: Option<Duration>,
    /// When it was made, if the server says so.
    pub issued: Option<SystemTime>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

/// Credentials could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CredentialsError(pub String);

/// Where credentials come from. The host of Docker Hub is `registry-1.docker.io` here (spec wire.md section 6).
#[async_trait]
pub trait Credentials: Send + Sync {
    /// Names the holder: tokens are shared among calls that give the same name for a host. Must differ for holders
    /// with different rights.
    async fn identity(&self, host: &str) -> String;

    /// The login for a host, `None` for anonymous access.
    async fn login(&self, host: &str) -> Result<Option<Login>, CredentialsError>;

    /// Fetches a token in place of this process, so that the secret stays with its owner. `None` if the holder does
    /// not do that; then [`Credentials::login`] is asked.
    async fn fetch_token(&self, request: &TokenRequest) -> Result<Option<Token>, CredentialsError>;
}

/// Nobody in particular.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anonymous;

#[async_trait]
impl Credentials for Anonymous {
    async fn identity(&self, _: &str) -> String {
        String::new()
    }

    async fn login(&self, _: &str) -> Result<Option<Login>, CredentialsError> {
        Ok(None)
    }

    async fn fetch_token(&self, _: &TokenRequest) -> Result<Option<Token>, CredentialsError> {
        Ok(None)
    }
}

/// Is told about what would otherwise be a silent wait.
pub trait Observer: Send + Sync {
    /// A call failed and is repeated after `delay`.
    fn retrying(&self, error: &RegistryError, delay: Duration);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn retrying(&self, _: &RegistryError, _: Duration) {}
}

/// On whose behalf a registry is used.
#[derive(Clone)]
pub struct Access {
    /// Credentials of the one who asked for the work.
    pub credentials: Arc<dyn Credentials>,
    /// Who sees retries.
    pub observer: Arc<dyn Observer>,
}

impl Access {
    /// Without credentials, silently.
    pub fn anonymous() -> Self {
        Self::new(Arc::new(Anonymous))
    }

    /// With credentials, silently.
    pub fn new(credentials: Arc<dyn Credentials>) -> Self {
        Self { credentials, observer: Arc::new(NoObserver) }
    }

    /// With somebody who sees retries.
    pub fn observed(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Access")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        let shown = format!(
            "{:?} {:?} {:?}",
            Login::Password { username: "u".into(), secret: "canary".into() },
            Login::RefreshToken("canary".into()),
            Token { token: "canary".into(), lifetime: None, issued: None },
        );
        assert!(!shown.contains("canary"), "{shown}");
    }
}
