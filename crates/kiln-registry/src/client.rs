//! One exchange with a registry: address, authorization, limits on waiting.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use kiln_digest::Digest;
use kiln_oci::Reference;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use reqwest::{Method, Response, Url};

use crate::auth::{Auth, AuthCall};
use crate::challenge::{self, Challenge};
use crate::config::{RegistryConfig, Timeouts};
use crate::endpoint::{self, Endpoint, Scheme};
use crate::error::{ERROR_BODY_LIMIT, StatusError, address, message, retry_after};
use crate::limit::{Limiter, Load, Permit};
use crate::scope::Scopes;
use crate::tls::{Clients, TlsSettings};
use crate::{Access, RegistryError, Result};

/// Connections, tokens and limits shared by everything that talks to registries. Cheap to clone.
#[derive(Clone)]
pub struct Registry(pub(crate) Arc<Shared>);

/// A registry and a blob that comes from it.
type Flight = (String, Digest);

pub(crate) struct Shared {
    pub(crate) config: RegistryConfig,
    clients: Clients,
    auth: Auth,
    limiter: Limiter,
    /// Hosts found to speak only HTTP.
    plain: Mutex<HashSet<String>>,
    /// Downloads under way by registry, so that a blob comes once; one that stands still holds up none of another
    /// registry.
    flights: Mutex<HashMap<Flight, Weak<tokio::sync::Mutex<()>>>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry")
    }
}

impl Registry {
    /// Checks the certificates of all configured hosts; connects to none.
    pub fn new(config: RegistryConfig) -> Result<Self> {
        let clients = Clients::new(config.client.clone());
        for host in config.hosts.values() {
            clients.get(&TlsSettings::of(host))?;
        }
        let limiter = Limiter::new(config.concurrency);
        Ok(Self(Arc::new(Shared {
            config,
            clients,
            auth: Auth::default(),
            limiter,
            plain: Mutex::default(),
            flights: Mutex::default(),
        })))
    }

    /// A repository to read from; mirrors are tried first.
    pub fn pull(&self, reference: &Reference, access: Access) -> Result<Repository> {
        self.repository(reference, access, false, false)
    }

    /// A repository to write to. `insecure` accepts any certificate and plain HTTP for this repository.
    pub fn push(&self, reference: &Reference, access: Access, insecure: bool) -> Result<Repository> {
        self.repository(reference, access, true, insecure)
    }

    fn repository(
        &self,
        reference: &Reference,
        access: Access,
        push: bool,
        insecure: bool,
    ) -> Result<Repository> {
        let shared = &self.0;
        let endpoints =
            endpoint::endpoints(&shared.config, &shared.clients, reference.domain(), push, insecure)?;
        Ok(Repository {
            registry: self.clone(),
            domain: reference.domain().to_string(),
            path: reference.path().to_string(),
            label: reference.to_string(),
            push,
            endpoints: endpoints.into(),
            scopes: Scopes::repository(reference.path(), push),
            access,
        })
    }

    /// A client for other HTTP servers, with the same proxies and system certificates. No overall time limit.
    pub fn http_client(&self) -> Result<reqwest::Client> {
        self.0.clients.get(&TlsSettings::default())
    }

    /// The limits on waiting, for those who use [`Registry::http_client`].
    pub fn timeouts(&self) -> Timeouts {
        self.0.config.client.timeouts
    }

    /// The lock to hold while a blob is downloaded.
    pub(crate) fn flight(&self, domain: &str, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let key = (domain.to_string(), *digest);
        let mut flights = self.0.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = flights.get(&key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        flights.insert(key, Arc::downgrade(&lock));
        lock
    }
}

/// One repository, with somebody's rights. Cheap to clone.
#[derive(Clone)]
pub struct Repository {
    pub(crate) registry: Registry,
    pub(crate) domain: String,
    pub(crate) path: String,
    /// The reference as given, for messages.
    pub(crate) label: String,
    pub(crate) push: bool,
    pub(crate) endpoints: Arc<[Endpoint]>,
    pub(crate) scopes: Scopes,
    pub(crate) access: Access,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Repository({})", self.label)
    }
}

/// Makes a request body anew for each try.
pub(crate) type MakeBody<'a> =
    &'a (dyn Fn() -> Pin<Box<dyn Future<Output = Result<reqwest::Body>> + Send + 'a>> + Send + Sync);

/// What to send.
pub(crate) struct Call<'a> {
    pub(crate) step: &'static str,
    pub(crate) method: Method,
    pub(crate) target: Target<'a>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Option<MakeBody<'a>>,
    /// Rights beyond those on the repository.
    pub(crate) extra: Scopes,
    /// Limit for the head of the answer; `None` leaves it to the caller.
    pub(crate) limit: Option<Duration>,
}

/// Where to send it.
pub(crate) enum Target<'a> {
    /// Below the repository, such as `manifests/latest`.
    Tail(&'a str),
    /// An address that the registry gave.
    Address(Url),
}

impl Repository {
    /// The registry's name, as in references.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository's name within the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.registry.timeouts()
    }

    pub(crate) async fn permit(&self, load: Load) -> Permit {
        self.registry.0.limiter.acquire(&self.domain, load).await
    }

    pub(crate) fn call<'a>(&self, step: &'static str, method: Method, target: Target<'a>) -> Call<'a> {
        Call {
            step,
            method,
            target,
            headers: Vec::new(),
            body: None,
            extra: Scopes::default(),
            limit: Some(self.timeouts().idle),
        }
    }

    /// Sends a call to an endpoint and answers challenges. Any status but 401 is returned as it is.
    pub(crate) async fn send(&self, endpoint: &Endpoint, call: &Call<'_>) -> Result<Response> {
        let auth = &self.registry.0.auth;
        let scopes = self.scopes.merged(&call.extra);
        let cx =
            AuthCall { endpoint, access: &self.access, reference: &self.label, idle: self.timeouts().idle };
        let elsewhere = matches!(&call.target, Target::Address(url) if !endpoint.serves(url));
        let mut sent = if elsewhere { None } else { auth.ahead(&cx, &scopes).await? };
        // Without a token, with a kept one, with a new one.
        for _ in 0..3 {
            let response = self.exchange(endpoint, call, sent.as_ref().map(|a| a.header.clone())).await?;
            if response.status() != 401 || elsewhere {
                return Ok(response);
            }
            let Some(challenge) = challenge::choose(response.headers()) else {
                return Err(self.denied(response, "no supported authentication scheme").await);
            };
            if let Some(refused) = sent {
                if refused.fresh {
                    return Err(self.denied(response, &refusal(&challenge)).await);
                }
                auth.forget(&refused);
            }
            sent = auth.answer_to(&cx, challenge, &scopes).await?;
            if sent.is_none() {
                return Err(self.denied(response, "no basic auth credentials").await);
            }
        }
        Err(RegistryError::Denied {
            action: self.action(),
            reference: self.label.clone(),
            message: "authorization failed".to_string(),
        })
    }

    async fn exchange(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        auth: Option<HeaderValue>,
    ) -> Result<Response> {
        let known_plain = || {
            let plain = self.registry.0.plain.lock().unwrap_or_else(PoisonError::into_inner);
            plain.contains(&endpoint.host)
        };
        let http = match endpoint.scheme {
            Scheme::Https => false,
            Scheme::Http => true,
            Scheme::HttpsThenHttp => known_plain(),
        };
        let may_fall_back = endpoint.scheme == Scheme::HttpsThenHttp && !http;
        match self.exchange_once(endpoint, call, http, auth.clone()).await {
            Err((error, true)) if may_fall_back => {
                tracing::debug!(host = endpoint.host, %error, "https failed, trying http");
                let response = self.exchange_once(endpoint, call, true, auth).await.map_err(|(e, _)| e)?;
                let mut plain = self.registry.0.plain.lock().unwrap_or_else(PoisonError::into_inner);
                plain.insert(endpoint.host.clone());
                Ok(response)
            }
            other => other.map_err(|(e, _)| e),
        }
    }

    /// The error says whether no connection came about.
    async fn exchange_once(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        http: bool,
        auth: Option<HeaderValue>,
    ) -> Result<Response, (RegistryError, bool)> {
        let url = match &call.target {
            Target::Tail(tail) => endpoint.url(http, &self.path, tail).map_err(|e| (e, false))?,
            Target::Address(url) => url.clone(),
        };
        let mut builder = endpoint.client.request(call.method.clone(), url.clone());
        for (name, value) in &call.headers {
            builder = builder.header(name, value);
        }
        if let Some(auth) = auth {
            builder = builder.header(AUTHORIZATION, auth);
        }
        if let Some(make) = call.body {
            builder = builder.body(make().await.map_err(|e| (e, false))?);
        }
        let limit = call.limit.unwrap_or(Duration::from_secs(u64::from(u32::MAX)));
        match tokio::time::timeout(limit, builder.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(e)) => {
                Err((RegistryError::network(call.step, &self.label, &call.method, &url, &e), e.is_connect()))
            }
            Err(_) => {
                let error = RegistryError::broken(call.step, &self.label, &call.method, &url, "timed out");
                Err((error, false))
            }
        }
    }

    /// Sends a call and turns an answer that is not in `good` into an error.
    pub(crate) async fn expect(
        &self,
        endpoint: &Endpoint,
        call: &Call<'_>,
        good: &[u16],
    ) -> Result<Response> {
        let response = self.send(endpoint, call).await?;
        match good.contains(&response.status().as_u16()) {
            true => Ok(response),
            false => Err(self.unexpected(call.step, &call.method, response).await),
        }
    }

    /// The error for an answer of the wrong kind.
    pub(crate) async fn unexpected(
        &self,
        step: &'static str,
        method: &Method,
        response: Response,
    ) -> RegistryError {
        let status = response.status().as_u16();
        let (address, retry_after) = (address(response.url()), retry_after(response.headers()));
        if status == 403 {
            return self.denied(response, "forbidden").await;
        }
        let message = self.message(response).await;
        if status == 404 && !self.push {
            return RegistryError::NotFound { reference: self.label.clone() };
        }
        RegistryError::Status(Box::new(StatusError {
            step,
            reference: self.label.clone(),
            method: method.to_string(),
            address,
            status,
            message,
            retry_after,
        }))
    }

    async fn denied(&self, response: Response, default: &str) -> RegistryError {
        let message = self.message(response).await;
        let message = if message.is_empty() { default.to_string() } else { message };
        RegistryError::Denied { action: self.action(), reference: self.label.clone(), message }
    }

    async fn message(&self, response: Response) -> String {
        let body = tokio::time::timeout(self.timeouts().idle, bounded(response, ERROR_BODY_LIMIT)).await;
        message(&body.ok().and_then(Result::ok).unwrap_or_default())
    }

    fn action(&self) -> &'static str {
        if self.push { "push" } else { "pull" }
    }

    /// Whether to go on to the next endpoint after a failure.
    pub(crate) fn try_next(&self, endpoint: &Endpoint, error: &RegistryError) -> bool {
        let ours = matches!(
            error,
            RegistryError::Content(_) | RegistryError::Read { .. } | RegistryError::Config(_)
        );
        if ours || !endpoint.is_mirror() {
            return false;
        }
        tracing::info!(mirror = endpoint.host, %error, "mirror failed, trying next");
        true
    }
}

fn refusal(challenge: &Challenge) -> String {
    match challenge {
        Challenge::Bearer(b) if !b.error.is_empty() => {
            format!("server message: {}: authorization failed", b.error)
        }
        _ => "authorization failed".to_string(),
    }
}

/// The first `limit` bytes of a body.
pub(crate) async fn bounded(mut response: Response, limit: usize) -> reqwest::Result<Vec<u8>> {
    let mut out = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = limit - out.len();
        out.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if out.len() == limit {
            break;
        }
    }
    Ok(out)
}
