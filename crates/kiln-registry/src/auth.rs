//! Answers to challenges, kept for as long as they are good.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use tokio::sync::Mutex as AsyncMutex;

use crate::challenge::{Bearer, Challenge};
use crate::endpoint::Endpoint;
use crate::scope::Scopes;
use crate::{Access, Login, RegistryError, Result, Token, token};

/// Lifetime of a token that does not name one (distribution, "Token Authentication Specification").
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// How long a login is not asked for again.
const BASIC_LIFETIME: Duration = Duration::from_secs(300);
/// Entries before expired ones are dropped, and before all are.
const PRUNE_AT: usize = 512;
const MAX_ENTRIES: usize = 8192;

/// On whose behalf, for what and where a token is needed.
pub(crate) struct AuthCall<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) access: &'a Access,
    pub(crate) reference: &'a str,
    /// Limit for the token server.
    pub(crate) idle: Duration,
}

/// A value for the `Authorization` header.
#[derive(Clone, Debug)]
pub(crate) struct Authorization {
    pub(crate) header: HeaderValue,
    /// Made for this call; if the registry refuses it, another will fare no better.
    pub(crate) fresh: bool,
    key: Key,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    host: String,
    identity: String,
    /// `None` for basic authentication.
    bearer: Option<(String, String, Scopes)>,
}

#[derive(Clone)]
struct Cached {
    header: HeaderValue,
    until: Instant,
}

/// Longest value of the header, in bytes: many are kept, and servers take no longer ones.
const MAX_HEADER: usize = 64 << 10;
/// Longest time that a token is believed to be good for.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// One per daemon.
#[derive(Default)]
pub(crate) struct Auth {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last challenge of each host, without its scope.
    challenges: HashMap<String, Challenge>,
    /// Whoever fetches holds the inner lock, so that one token is fetched once.
    headers: HashMap<Key, Arc<AsyncMutex<Option<Cached>>>>,
}

impl Auth {
    /// An answer to the challenge that the host is known to make; `None` if none is known or there is nothing to answer.
    pub(crate) async fn ahead(&self, call: &AuthCall<'_>, scopes: &Scopes) -> Result<Option<Authorization>> {
        let Some(challenge) = self.state().challenges.get(&call.endpoint.host).cloned() else {
            return Ok(None);
        };
        match self.answer(call, &challenge, scopes).await {
            // Perhaps this request needs no token; if it does, the challenge tells.
            Err(e) if !e.is_transient() => {
                tracing::debug!(error = %e, "no authorization in advance");
                Ok(None)
            }
            other => other,
        }
    }

    /// Remembers a challenge and answers it; `None` if it wants a login and there is none.
    pub(crate) async fn answer_to(
        &self,
        call: &AuthCall<'_>,
        challenge: Challenge,
        scopes: &Scopes,
    ) -> Result<Option<Authorization>> {
        let wanted = match &challenge {
            Challenge::Bearer(b) => scopes.merged(&Scopes::parse(&b.scope)),
            Challenge::Basic => Scopes::default(),
        };
        let general = match &challenge {
            Challenge::Bearer(b) => Challenge::Bearer(Bearer {
                realm: b.realm.clone(),
                service: b.service.clone(),
                ..Bearer::default()
            }),
            Challenge::Basic => Challenge::Basic,
        };
        {
            let mut state = self.state();
            if state.challenges.len() >= MAX_ENTRIES {
                state.challenges.clear();
            }
            state.challenges.insert(call.endpoint.host.clone(), general);
        }
        self.answer(call, &challenge, &wanted).await
    }

    /// Forgets an answer that was refused.
    pub(crate) fn forget(&self, authorization: &Authorization) {
        self.state().headers.remove(&authorization.key);
    }

    async fn answer(
        &self,
        call: &AuthCall<'_>,
        challenge: &Challenge,
        scopes: &Scopes,
    ) -> Result<Option<Authorization>> {
        let host = call.endpoint.host.clone();
        let identity = call.access.credentials.identity(&host).await;
        let bearer = match challenge {
            Challenge::Bearer(b) => Some((b.realm.clone(), b.service.clone(), scopes.clone())),
            Challenge::Basic => None,
        };
        let key = Key { host, identity, bearer };
        let slot = self.state().slot(&key);
        let mut cached = slot.lock().await;
        if let Some(c) = cached.as_ref().filter(|c| c.until > Instant::now()) {
            return Ok(Some(Authorization { header: c.header.clone(), fresh: false, key }));
        }
        let made = match challenge {
            Challenge::Bearer(b) => Some(bearer_header(call, token::fetch(call, b, scopes).await?)?),
            Challenge::Basic => basic_header(call).await?,
        };
        *cached = made.clone();
        Ok(made.map(|c| Authorization { header: c.header, fresh: true, key }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn slot(&mut self, key: &Key) -> Arc<AsyncMutex<Option<Cached>>> {
        if self.headers.len() >= PRUNE_AT {
            let now = Instant::now();
            self.headers.retain(|_, slot| match slot.try_lock() {
                Ok(cached) => cached.as_ref().is_some_and(|c| c.until > now),
                Err(_) => true,
            });
        }
        if self.headers.len() >= MAX_ENTRIES {
            self.headers.clear();
        }
        self.headers.entry(key.clone()).or_default().clone()
    }
}

fn header(call: &AuthCall<'_>, text: &str) -> Result<HeaderValue> {
    if text.len() > MAX_HEADER {
        let (host, size) = (call.endpoint.host.clone(), text.len());
        let message = format!("token or login of {size} bytes is longer than {MAX_HEADER}");
        return Err(RegistryError::Credentials { host, message });
    }
    let mut value = HeaderValue::from_str(text).map_err(|_| RegistryError::Credentials {
        host: call.endpoint.host.clone(),
        message: "token or login has characters that a header cannot hold".to_string(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn bearer_header(call: &AuthCall<'_>, token: Token) -> Result<Cached> {
    let header = header(call, &format!("Bearer {}", token.token))?;
    let lifetime = token.lifetime.unwrap_or(DEFAULT_LIFETIME).min(MAX_LIFETIME);
    // A clock that disagrees by more than the lifetime says nothing about the age.
    let age =
        token.issued.and_then(|at| SystemTime::now().duration_since(at).ok()).filter(|age| *age < lifetime);
    let left = lifetime.mul_f64(0.9).saturating_sub(age.unwrap_or_default());
    Ok(Cached { header, until: Instant::now() + left })
}

async fn basic_header(call: &AuthCall<'_>) -> Result<Option<Cached>> {
    let host = &call.endpoint.host;
    let login = call
        .access
        .credentials
        .login(host)
        .await
        .map_err(|e| RegistryError::Credentials { host: host.clone(), message: e.0 })?;
    let Some(Login::Password { username, secret }) = login else { return Ok(None) };
    let header = header(call, &format!("Basic {}", STANDARD.encode(format!("{username}:{secret}"))))?;
    Ok(Some(Cached { header, until: Instant::now() + BASIC_LIFETIME }))
}
