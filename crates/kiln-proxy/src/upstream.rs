//! The client for the servers outside.

use crate::ProxyError;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long a connection may take, with the look-up of the name and TLS.
const CONNECT: Duration = Duration::from_secs(30);
/// How long connections are kept for the next request. Servers close them sooner or later, so not for long.
const IDLE: Duration = Duration::from_secs(15);
/// Connections that are kept per server.
const IDLE_PER_HOST: usize = 8;
/// Names that one step has looked up at the same time. A look-up holds a thread of the daemon.
const LOOKUPS: usize = 8;

/// TLS with the system's certificates; `SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured.
pub(crate) fn tls() -> Result<ClientConfig, ProxyError> {
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        tracing::warn!(%error, "some system certificates could not be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(loaded.certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| ProxyError::Client(e.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// A client of one step: connections, which may be authenticated, are not shared with others. It goes straight to the
/// servers, follows no redirects and changes no content.
pub(crate) fn client(tls: ClientConfig) -> Result<reqwest::Client, ProxyError> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .http1_title_case_headers()
        .no_proxy()
        .referer(false)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .dns_resolver(Lookups(Arc::new(Semaphore::new(LOOKUPS))))
        .build()
        .map_err(|e| ProxyError::Client(e.to_string()))
}

struct Lookups(Arc<Semaphore>);

impl Resolve for Lookups {
    fn resolve(&self, name: Name) -> Resolving {
        let places = self.0.clone();
        Box::pin(async move {
            let place = places.acquire_owned().await?;
            // Goes on when nobody waits any more, and keeps its place until its thread is free.
            let found = tokio::spawn(async move {
                let found = tokio::net::lookup_host((name.as_str(), 0)).await;
                drop(place);
                found.map(|addresses| Box::new(addresses.collect::<Vec<_>>().into_iter()) as Addrs)
            });
            Ok(found.await??)
        })
    }
}

/// What went wrong, without the address, which may hold secrets.
pub(crate) fn causes(e: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = std::error::Error::source(e);
    while let Some(cause) = next {
        let text = cause.to_string();
        if !parts.iter().any(|p| p.contains(&text)) {
            parts.push(text);
        }
        next = cause.source();
    }
    if parts.is_empty() { "request failed".to_string() } else { parts.join(": ") }
}
