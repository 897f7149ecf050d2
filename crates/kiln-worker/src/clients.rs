//! The clients that wait for a piece of work, as one: credentials, secrets, agents, uploads.

use async_trait::async_trait;
use kiln_digest::Digest;
use kiln_registry::{Credentials, CredentialsError, Login, Token, TokenRequest};
use kiln_session::{Lookup, Session, SessionError, SessionManager};
use kiln_source::{ByteReader, ByteStream, Client, ClientError, Duplex, Layout};
use std::sync::Arc;

/// Ids of the sessions that may be asked now.
pub type SessionIds = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// Asks sessions, the oldest first.
#[derive(Clone)]
pub struct Clients {
    sessions: SessionManager,
    ids: SessionIds,
    /// Random for this process: what clients derive from their secrets is of no use to another daemon.
    salt: Arc<[u8; 32]>,
}

impl Clients {
    /// Asks those that `ids` names at that moment.
    pub fn new(sessions: SessionManager, ids: SessionIds) -> Self {
        static SALT: std::sync::OnceLock<Arc<[u8; 32]>> = std::sync::OnceLock::new();
        let salt = SALT.get_or_init(|| Arc::new(rand::random())).clone();
        Self { sessions, ids, salt }
    }

    /// Asks one.
    pub fn one(sessions: SessionManager, id: &str) -> Self {
        let ids: Vec<String> = Some(id.to_string()).filter(|id| !id.is_empty()).into_iter().collect();
        Self::new(sessions, Arc::new(move || ids.clone()))
    }

    /// The first answer; the error is that of the last.
    pub(crate) async fn any<T, F, Fut>(&self, call: F) -> Result<T, SessionError>
    where
        F: Fn(Session) -> Fut,
        Fut: Future<Output = Result<T, SessionError>>,
    {
        self.sessions.any(&(self.ids)(), call).await
    }

    async fn first(&self) -> Option<Session> {
        for id in (self.ids)() {
            if let Ok(session) = self.sessions.get(&id, Lookup::Now).await {
                return Some(session);
            }
        }
        None
    }
}

fn refused(error: &SessionError) -> CredentialsError {
    CredentialsError(error.to_string())
}

#[async_trait]
impl Credentials for Clients {
    async fn identity(&self, host: &str) -> String {
        let Some(session) = self.first().await else { return String::new() };
        match session.token_authority(host, &self.salt[..]).await {
            // Sessions with the same credentials have the same key, and may share tokens.
            Ok(Some(key)) => key.iter().map(|b| format!("{b:02x}")).collect(),
            _ => session.id().to_string(),
        }
    }

    async fn login(&self, host: &str) -> Result<Option<Login>, CredentialsError> {
        let host = host.to_string();
        let ask = |session: Session| {
            let host = host.clone();
            async move { session.credentials(&host).await }
        };
        match self.any(ask).await {
            Ok(c) if c.secret.is_empty() => Ok(None),
            Ok(c) if c.username.is_empty() => Ok(Some(Login::RefreshToken(c.secret))),
            Ok(c) => Ok(Some(Login::Password { username: c.username, secret: c.secret })),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(refused(&error)),
        }
    }

    async fn fetch_token(&self, request: &TokenRequest) -> Result<Option<Token>, CredentialsError> {
        let wanted = kiln_session::TokenRequest {
            host: request.host.clone(),
            realm: request.realm.clone(),
            service: request.service.clone(),
            scopes: request.scopes.clone(),
        };
        let (salt, host) = (self.salt.clone(), request.host.clone());
        let ask = |session: Session| {
            let (wanted, salt, host) = (wanted.clone(), salt.clone(), host.clone());
            async move {
                // Only a client that has credentials of its own for the host fetches tokens.
                match session.token_authority(&host, &salt[..]).await? {
                    Some(_) => session.fetch_token(&wanted).await.map(Some),
                    None => Ok(None),
                }
            }
        };
        match self.any(ask).await {
            Ok(token) => {
                Ok(token.map(|t| Token { token: t.token, lifetime: Some(t.lifetime), issued: t.issued }))
            }
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(refused(&error)),
        }
    }
}

#[async_trait]
impl Client for Clients {
    async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, ClientError> {
        let ask = |session: Session| {
            let id = id.to_string();
            async move { session.get_secret(&id).await }
        };
        match self.any(ask).await {
            Ok(secret) => Ok(Some(secret)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(ClientError(error.to_string())),
        }
    }

    async fn ssh_agent(&self, id: &str) -> Result<Box<dyn Duplex>, ClientError> {
        let ask = |session: Session| {
            let id = id.to_string();
            async move {
                session.check_ssh(&id).await?;
                session.forward_ssh(&id)
            }
        };
        let pipe = self.any(ask).await.map_err(|e| ClientError(e.to_string()))?;
        Ok(Box::new(pipe))
    }

    async fn check_ssh_agent(&self, id: &str) -> Result<(), ClientError> {
        let ask = |session: Session| {
            let id = id.to_string();
            async move { session.check_ssh(&id).await }
        };
        self.any(ask).await.map_err(|e| ClientError(e.to_string()))
    }

    async fn upload(&self, host: &str, path: &str) -> Result<ByteReader, ClientError> {
        let ask = |session: Session| {
            let (host, path) = (host.to_string(), path.to_string());
            async move { session.pull_upload(&host, &path) }
        };
        let pipe = self.any(ask).await.map_err(|e| ClientError(e.to_string()))?;
        Ok(Box::new(pipe))
    }

    async fn layout_blob(&self, layout: &Layout, digest: &Digest) -> Result<ByteStream, ClientError> {
        let ask = |session: Session| async move {
            session.content(format!("oci:{}", layout.store)).open(digest).await
        };
        let blob = match layout.session.as_str() {
            "" => self.any(ask).await,
            id => match self.sessions.get(id, Lookup::Wait).await {
                Ok(session) => ask(session).await,
                Err(e) => Err(e),
            },
        };
        let blob = blob.map_err(|e| ClientError(e.to_string()))?;
        Ok(ByteStream { size: Some(blob.size), data: blob.data })
    }
}
