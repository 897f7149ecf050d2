//! What an administrator sets: registries, mirrors, certificates, proxies.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::retry::RetryPolicy;

/// Client certificate and key, PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyPair {
    /// Key file.
    pub key: PathBuf,
    /// Certificate file.
    pub cert: PathBuf,
}

/// One `[registry."host"]` section (spec outputs-and-cache.md section 8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// Tried in order before the host when pulling: `host[:port][/path]`; a path goes behind `/v2`.
    pub mirrors: Vec<String>,
    /// Plain HTTP; unset means only for this machine.
    pub http: Option<bool>,
    /// Skip verification of the certificate; with `http` HTTPS is tried first.
    pub insecure: Option<bool>,
    /// Further CA certificates.
    pub ca: Vec<PathBuf>,
    /// Client certificates.
    pub keypairs: Vec<KeyPair>,
    /// Directories with `*.crt` (CAs) and `*.cert` with `*.key` (client certificates); missing ones do not matter.
    pub tls_config_dirs: Vec<PathBuf>,
}

/// Proxies, as the usual environment variables give them. Connections to this machine never use one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://` addresses.
    pub http: Option<String>,
    /// For `https://` addresses.
    pub https: Option<String>,
    /// Comma list of hosts, suffixes and networks that are reached directly.
    pub no_proxy: Option<String>,
}

impl Proxies {
    /// Reads `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY` and their lower-case forms, upper case first as Go does.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Self {
        let var = |name: &str| {
            get(name).or_else(|| get(&name.to_lowercase())).filter(|value| !value.trim().is_empty())
        };
        Self { http: var("HTTP_PROXY"), https: var("HTTPS_PROXY"), no_proxy: var("NO_PROXY") }
    }
}

/// When to give up waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, including TLS.
    pub connect: Duration,
    /// For the head of an answer, and between two pieces of its body.
    pub idle: Duration,
    /// For progress of an upload, including the answer to it: registries may move a large blob before they answer.
    pub upload: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            upload: Duration::from_secs(300),
        }
    }
}

/// What every connection has in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// Proxies.
    pub proxies: Proxies,
    /// `User-Agent`.
    pub user_agent: String,
    /// Limits on waiting.
    pub timeouts: Timeouts,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            proxies: Proxies::default(),
            // Servers that treat BuildKit in their own way look for its name.
            user_agent: concat!("kiln/", env!("CARGO_PKG_VERSION"), " buildkit/v0.30.0").to_string(),
            timeouts: Timeouts::default(),
        }
    }
}

/// Configuration of a [`crate::Registry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Sections by host, as in references: `docker.io`, `localhost:5000`.
    pub hosts: BTreeMap<String, HostConfig>,
    /// Transfers of layers per registry at a time; JSON documents have one more.
    pub concurrency: usize,
    /// Proxies, agent, timeouts.
    pub client: ClientOptions,
    /// Retries.
    pub retry: RetryPolicy,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            concurrency: 4,
            client: ClientOptions::default(),
            retry: RetryPolicy::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_from_environment() {
        let env = |name: &str| match name {
            "HTTP_PROXY" => Some("http://up".to_string()),
            "http_proxy" => Some("http://low".to_string()),
            "https_proxy" => Some("http://s".to_string()),
            "NO_PROXY" => Some(" ".to_string()),
            _ => None,
        };
        let p = Proxies::from_env(env);
        assert_eq!(
            (p.http.as_deref(), p.https.as_deref(), p.no_proxy),
            (Some("http://up"), Some("http://s"), None)
        );
    }
}
