//! Where a registry's API is: mirrors first, then the registry itself.

use std::net::IpAddr;

use reqwest::Url;

use crate::config::{HostConfig, RegistryConfig};
use crate::tls::{Clients, TlsSettings};
use crate::{RegistryError, Result};

const HUB: &str = "docker.io";
const HUB_HOST: &str = "registry-1.docker.io";

/// How to speak to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Only HTTPS.
    Https,
    /// Only HTTP.
    Http,
    /// HTTPS; HTTP if that cannot be connected.
    HttpsThenHttp,
}

/// One server that has the content of a registry.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Host and port.
    pub(crate) host: String,
    pub(crate) scheme: Scheme,
    /// `/v2`, for some mirrors with a path behind.
    base: String,
    /// For a mirror: the registry it stands in for, told in the query as `ns`.
    namespace: Option<String>,
    pub(crate) client: reqwest::Client,
}

impl Endpoint {
    /// The address of `tail` (such as `manifests/latest`) below a repository.
    pub(crate) fn url(&self, http: bool, repository: &str, tail: &str) -> Result<Url> {
        let scheme = if http { "http" } else { "https" };
        let text = format!("{scheme}://{}{}/{repository}/{tail}", self.host, self.base);
        let mut url = Url::parse(&text).map_err(|e| RegistryError::Config(format!("address {text}: {e}")))?;
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        Ok(url)
    }

    /// Whether an address is on this server, so that credentials for it may be sent there.
    pub(crate) fn serves(&self, url: &Url) -> bool {
        let Ok(own) = self.url(url.scheme() == "http", "x", "y") else { return false };
        let allowed = match self.scheme {
            Scheme::Https => url.scheme() == "https",
            Scheme::Http | Scheme::HttpsThenHttp => true,
        };
        allowed && own.host() == url.host() && own.port_or_known_default() == url.port_or_known_default()
    }

    pub(crate) fn is_mirror(&self) -> bool {
        self.namespace.is_some()
    }
}

/// The endpoints of a registry in the order to be tried. Pushes go to the registry itself.
/// `insecure` overrides its section as `registry.insecure=true` does: any certificate, or plain HTTP.
pub(crate) fn endpoints(
    config: &RegistryConfig,
    clients: &Clients,
    domain: &str,
    push: bool,
    insecure: bool,
) -> Result<Vec<Endpoint>> {
    let default = HostConfig::default();
    let section = |host: &str| config.hosts.get(host).unwrap_or(&default);
    let mut out = Vec::new();
    if !push {
        for mirror in &section(domain).mirrors {
            let (host, path) = split_mirror(mirror);
            let namespace =
                (host != domain && !(domain == HUB && host == HUB_HOST)).then(|| domain.to_string());
            let base = format!("/v2{path}");
            out.push(endpoint(clients, host, base, namespace, section(host))?);
        }
    }
    let host = if domain == HUB { HUB_HOST } else { domain };
    let mut own = section(domain).clone();
    if insecure {
        (own.insecure, own.http) = (Some(true), Some(true));
    }
    out.push(endpoint(clients, host, "/v2".to_string(), None, &own)?);
    Ok(out)
}

fn endpoint(
    clients: &Clients,
    host: &str,
    base: String,
    namespace: Option<String>,
    config: &HostConfig,
) -> Result<Endpoint> {
    let http = config.http.unwrap_or_else(|| is_local(host));
    let scheme = match (config.insecure.unwrap_or(false), http) {
        (true, true) => Scheme::HttpsThenHttp,
        (false, true) => Scheme::Http,
        (_, false) => Scheme::Https,
    };
    let client = clients.get(&TlsSettings::of(config))?;
    Ok(Endpoint { host: host.to_string(), scheme, base, namespace, client })
}

/// `host[:port][/path]`, a scheme in front is ignored, as are slashes at the end.
fn split_mirror(mirror: &str) -> (&str, &str) {
    let rest = mirror.split_once("://").map_or(mirror, |(_, rest)| rest);
    let at = rest.find('/').unwrap_or(rest.len());
    (&rest[..at], rest[at..].trim_end_matches('/'))
}

/// Whether a host is this machine, by its name alone.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None if host.matches(':').count() == 1 => host.split(':').next().unwrap_or(host),
        None => host,
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClientOptions;

    fn of(hosts: &[(&str, HostConfig)], domain: &str, push: bool, insecure: bool) -> Vec<Endpoint> {
        let hosts = hosts.iter().map(|(h, c)| (h.to_string(), c.clone())).collect();
        let config = RegistryConfig { hosts, ..Default::default() };
        endpoints(&config, &Clients::new(ClientOptions::default()), domain, push, insecure).unwrap()
    }

    fn urls(endpoints: &[Endpoint]) -> Vec<String> {
        endpoints
            .iter()
            .map(|e| e.url(e.scheme == Scheme::Http, "a/b", "manifests/t").unwrap().to_string())
            .collect()
    }

    #[test]
    fn hub_and_local_hosts() {
        assert_eq!(
            urls(&of(&[], "docker.io", false, false)),
            ["https://registry-1.docker.io/v2/a/b/manifests/t"]
        );
        assert_eq!(
            urls(&of(&[], "localhost:5000", true, false)),
            ["http://localhost:5000/v2/a/b/manifests/t"]
        );
        assert_eq!(urls(&of(&[], "ghcr.io", true, false)), ["https://ghcr.io/v2/a/b/manifests/t"]);
        for (host, local) in [
            ("localhost", true),
            ("127.9.9.9:5000", true),
            ("[::1]:5000", true),
            ("10.0.0.1:5000", false),
            ("localhost.evil.com", false),
            ("127.0.0.1.evil.com:80", false),
        ] {
            assert_eq!(is_local(host), local, "{host}");
        }
    }

    #[test]
    fn mirrors_come_first_and_never_get_pushes() {
        let hub = HostConfig {
            mirrors: vec!["https://m.corp:8443/hub/".into(), "localhost:1".into()],
            ..Default::default()
        };
        let mirror = HostConfig { http: Some(true), ..Default::default() };
        let hosts = [("docker.io", hub), ("m.corp:8443", mirror)];
        assert_eq!(
            urls(&of(&hosts, "docker.io", false, false)),
            [
                "http://m.corp:8443/v2/hub/a/b/manifests/t?ns=docker.io",
                "http://localhost:1/v2/a/b/manifests/t?ns=docker.io",
                "https://registry-1.docker.io/v2/a/b/manifests/t",
            ]
        );
        assert_eq!(of(&hosts, "docker.io", true, false).len(), 1);
    }

    #[test]
    fn insecure_falls_back() {
        assert_eq!(of(&[], "r.corp", true, true)[0].scheme, Scheme::HttpsThenHttp);
        let plain = HostConfig { http: Some(false), ..Default::default() };
        assert_eq!(of(&[("localhost:5000", plain)], "localhost:5000", false, false)[0].scheme, Scheme::Https);
    }

    #[test]
    fn credentials_stay_on_the_server() {
        let e = &of(&[], "r.io", true, false)[0];
        let serves = |s: &str| e.serves(&Url::parse(s).unwrap());
        assert!(serves("https://r.io/v2/x/blobs/uploads/1") && serves("https://R.IO:443/x"));
        assert!(!serves("http://r.io/x") && !serves("https://r.io:444/x") && !serves("https://evil.io/x"));
    }
}
