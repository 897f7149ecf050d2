//! What a request is for.

use crate::mask;
use base64::Engine as _;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use url::Url;

/// Where a request came in.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// At the proxy itself.
    Proxy,
    /// In a tunnel to this server.
    Tunnel {
        /// Whether it is TLS.
        secure: bool,
        /// The server that `CONNECT` named.
        server: Authority,
    },
}

/// What is to be fetched.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// In its normal spelling, without credentials or fragment: what the policy is asked about and what is sent are the
    /// same text, so that a rule cannot be evaded by another spelling.
    pub(crate) url: Url,
    /// Those of the URL.
    pub(crate) credentials: Option<HeaderValue>,
    /// For people, masked.
    pub(crate) shown: String,
}

/// A request that cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It has no address that can be fetched.
    Address,
    /// It is for another server than the tunnel: what the policy saw would not be what is asked for.
    Misdirected,
}

impl Target {
    /// The target of a request.
    pub(crate) fn of(request: &Parts, origin: &Origin) -> Result<Self, Wrong> {
        let text = match origin {
            Origin::Proxy if request.uri.scheme().is_some() => request.uri.to_string(),
            Origin::Proxy => format!("http://{}{}", host(request).ok_or(Wrong::Address)?, path(request)?),
            Origin::Tunnel { secure, server } => {
                let base = format!("{}://{server}", if *secure { "https" } else { "http" });
                let named = request.uri.authority().map(Authority::as_str).or_else(|| host(request));
                if named.is_some_and(|named| !same_server(&base, named)) {
                    return Err(Wrong::Misdirected);
                }
                base + path(request)?
            }
        };
        Self::parse(&text)
    }

    /// The target of an address.
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let mut url = Url::parse(text).map_err(|_| Wrong::Address)?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(Wrong::Address);
        }
        let shown = mask::shown(&url);
        let credentials = credentials(&url);
        url.set_fragment(None);
        // Of a URL with a host they can be removed.
        let removed = url.set_username("").and_then(|()| url.set_password(None));
        removed.map_err(|()| Wrong::Address)?;
        Ok(Self { url, credentials, shown })
    }

    /// Where an answer with this `Location` leads, for people.
    pub(crate) fn redirect(&self, location: &HeaderValue) -> Option<String> {
        let location = String::from_utf8_lossy(location.as_bytes());
        self.url.join(&location).ok().map(|url| mask::shown(&url))
    }
}

fn host(request: &Parts) -> Option<&str> {
    request.headers.get(header::HOST)?.to_str().ok()
}

/// The path of a request, which a server's `*` is not.
fn path(request: &Parts) -> Result<&str, Wrong> {
    let path = request.uri.path_and_query().map_or("/", |p| p.as_str());
    if path.starts_with('/') { Ok(path) } else { Err(Wrong::Address) }
}

fn same_server(base: &str, named: &str) -> bool {
    let scheme = base.split_once("://").map_or("", |(scheme, _)| scheme);
    let server = |url: Url| Some((url.host_str()?.to_string(), url.port_or_known_default()));
    let parsed = |text: &str| Url::parse(text).ok().and_then(server);
    parsed(base).is_some_and(|base| parsed(&format!("{scheme}://{named}")) == Some(base))
}

/// `user:password@` as a header (RFC 7617).
fn credentials(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    let both = [decoded(url.username()), decoded(url.password().unwrap_or_default())].join(&b':');
    let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(both));
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn of(uri: &str, host: Option<&str>, origin: &Origin) -> Result<String, Wrong> {
        let mut request = Request::get(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        Target::of(&request.body(()).unwrap().into_parts().0, origin).map(|t| t.url.to_string())
    }

    #[test]
    fn an_address_has_one_spelling() {
        let at = |uri, host| of(uri, host, &Origin::Proxy);
        for (uri, want) in [
            ("http://H.example:80/a/../b?c", "http://h.example/b?c"),
            ("http://u:p@h/a", "http://h/a"),
            ("https://h:443/%2e%2e/x", "https://h/x"),
            ("http://2130706433/", "http://127.0.0.1/"),
            ("http://h", "http://h/"),
        ] {
            assert_eq!(at(uri, Some("other")).as_deref(), Ok(want));
        }
        assert_eq!(at("/x?y", Some("h:81")).as_deref(), Ok("http://h:81/x?y"));
        assert_eq!(at("/x", None), Err(Wrong::Address));
        assert_eq!(at("ftp://h/x", None), Err(Wrong::Address));
        assert_eq!(at("*", Some("h")), Err(Wrong::Address));
        assert_eq!(at("/x", Some("h/y@z")).as_deref(), Ok("http://h/y@z/x"));
    }

    #[test]
    fn a_tunnel_leads_to_one_server() {
        let origin = Origin::Tunnel { secure: true, server: "h:443".parse().unwrap() };
        let at = |uri, host| of(uri, host, &origin);
        for host in [None, Some("h"), Some("H"), Some("h:443")] {
            assert_eq!(at("/x", host).as_deref(), Ok("https://h/x"));
        }
        assert_eq!(at("https://h/x", None).as_deref(), Ok("https://h/x"));
        for host in ["front.example", "h:80", "h.", "u@x"] {
            assert_eq!(at("/x", Some(host)), Err(Wrong::Misdirected), "{host}");
        }
        assert_eq!(at("https://other/x", Some("h")), Err(Wrong::Misdirected));
    }

    #[test]
    fn credentials_go_into_a_header_and_nowhere_else() {
        let target = Target::parse("https://us%40er:p%3A@h/f#x").unwrap();
        assert_eq!(target.url.as_str(), "https://h/f");
        assert_eq!(target.shown, "https://xxxxx:xxxxx@h/f");
        assert_eq!(target.credentials.unwrap(), "Basic dXNAZXI6cDo=");
        let location = HeaderValue::from_static("//u:p@other/y?token=t");
        let target = Target::parse("https://h/f").unwrap();
        assert_eq!(target.redirect(&location).unwrap(), "https://xxxxx:xxxxx@other/y?token=xxxxx");
    }
}
