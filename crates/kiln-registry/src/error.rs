//! What can go wrong with a registry. Messages never hold credentials: addresses appear without query and user info.

use std::time::Duration;

use kiln_content::ContentError;
use kiln_digest::Digest;
use kiln_oci::{DocumentError, Platform};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Method, Url};
use serde::Deserialize;

/// Bytes of an error body that are looked at.
pub(crate) const ERROR_BODY_LIMIT: usize = 64 << 10;
/// Characters of a registry's message that are shown.
const MESSAGE_LIMIT: usize = 512;

/// Why a call to a registry failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The name does not exist there.
    #[error("{reference}: not found")]
    NotFound {
        /// What was asked for.
        reference: String,
    },
    /// The registry does not want us.
    #[error(
        "{action} access denied for {reference}, repository does not exist or may require authorization: {message}"
    )]
    Denied {
        /// `pull` or `push`.
        action: &'static str,
        /// What was asked for.
        reference: String,
        /// The registry's words, or what is missing.
        message: String,
    },
    /// No token could be had.
    #[error("failed to authorize {reference}: failed to fetch {kind} token: {source}")]
    Token {
        /// What it was wanted for.
        reference: String,
        /// `anonymous` or `oauth`.
        kind: &'static str,
        /// The cause.
        source: Box<RegistryError>,
    },
    /// The holder of the credentials failed.
    #[error("failed to get credentials for {host}: {message}")]
    Credentials {
        /// Registry.
        host: String,
        /// The cause.
        message: String,
    },
    /// An answer that is not one of those expected.
    #[error("{0}")]
    Status(Box<StatusError>),
    /// No answer, or not all of it.
    #[error("{step} {reference}: {method} {address}: {message}")]
    Network {
        /// What was being done.
        step: &'static str,
        /// What it was done for.
        reference: String,
        /// The method.
        method: String,
        /// The address without query.
        address: String,
        /// The cause and its causes.
        message: String,
        /// Whether it may work the next time.
        transient: bool,
    },
    /// An answer that breaks the protocol.
    #[error("{step} {reference}: {host} {message}")]
    Protocol {
        /// What was being done.
        step: &'static str,
        /// What it was done for.
        reference: String,
        /// Who answered.
        host: String,
        /// What is wrong with the answer.
        message: String,
    },
    /// Bytes other than those asked for.
    #[error("{reference}: content of {expected} has digest {found}")]
    Digest {
        /// What was asked for.
        reference: String,
        /// The digest asked for.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// More or fewer bytes than the descriptor says.
    #[error("{reference}: content of {digest} has {found} bytes, expected {expected}")]
    Size {
        /// What was asked for.
        reference: String,
        /// The digest asked for.
        digest: Digest,
        /// Bytes in the descriptor.
        expected: u64,
        /// Bytes that came, at least.
        found: u64,
    },
    /// A document that would have to be held in memory.
    #[error("{reference}: {what} is too large ({size} > {limit})")]
    TooLarge {
        /// What was asked for.
        reference: String,
        /// `manifest` or a digest.
        what: String,
        /// Bytes, at least.
        size: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Neither manifest nor index.
    #[error("{reference}: {source}")]
    Document {
        /// What was asked for.
        reference: String,
        /// What is wrong.
        source: DocumentError,
    },
    /// An index without an image for the platform.
    #[error("{reference}: no match for platform in manifest: not found (wanted {platform})")]
    NoPlatform {
        /// What was asked for.
        reference: String,
        /// The platform.
        platform: Box<Platform>,
    },
    /// The content store failed.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The data to push could not be read.
    #[error("read {digest} for push to {reference}: {message}")]
    Read {
        /// Where it was to go.
        reference: String,
        /// The blob.
        digest: Digest,
        /// The cause.
        message: String,
    },
    /// Certificates, keys, proxies or addresses in the configuration.
    #[error("registry configuration: {0}")]
    Config(String),
}

/// An unexpected HTTP status, with what the registry said about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusError {
    /// What was being done.
    pub step: &'static str,
    /// What it was done for.
    pub reference: String,
    /// The method.
    pub method: String,
    /// The address without query.
    pub address: String,
    /// The status.
    pub status: u16,
    /// The registry's code and message, or the start of the body; may be empty.
    pub message: String,
    /// Wait that the registry asked for.
    pub retry_after: Option<Duration>,
}

impl std::fmt::Display for StatusError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { step, reference, method, address, status, message, .. } = self;
        let reason =
            reqwest::StatusCode::from_u16(*status).ok().and_then(|s| s.canonical_reason()).unwrap_or("");
        write!(
            f,
            "{step} {reference}: unexpected status from {method} request to {address}: {status} {reason}"
        )?;
        match message.as_str() {
            "" => Ok(()),
            message => write!(f, ": {message}"),
        }
    }
}

impl RegistryError {
    /// Whether the same call may succeed later: 5xx, 429 and 408, dropped connections, timeouts.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Status(e) => matches!(e.status, 408 | 429 | 500 | 502..=599),
            Self::Network { transient, .. } => *transient,
            Self::Token { source, .. } => source.is_transient(),
            _ => false,
        }
    }

    /// Whether the registry said that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. }) || self.status() == Some(404)
    }

    /// The HTTP status, if that is what the error is about.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status(e) => Some(e.status),
            Self::Token { source, .. } => source.status(),
            _ => None,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status(e) => e.retry_after,
            Self::Token { source, .. } => source.retry_after(),
            _ => None,
        }
    }

    /// From a failed exchange.
    pub(crate) fn network(
        step: &'static str,
        reference: &str,
        method: &Method,
        url: &Url,
        e: &reqwest::Error,
    ) -> Self {
        Self::Network {
            step,
            reference: reference.to_string(),
            method: method.to_string(),
            address: address(url),
            message: chain(e),
            transient: is_transient(e),
        }
    }

    /// A connection that went quiet or ended early.
    pub(crate) fn broken(
        step: &'static str,
        reference: &str,
        method: &Method,
        url: &Url,
        message: impl Into<String>,
    ) -> Self {
        Self::Network {
            step,
            reference: reference.to_string(),
            method: method.to_string(),
            address: address(url),
            message: message.into(),
            transient: true,
        }
    }
}

/// An address fit for messages: no user info, no query (upload states and signatures), no fragment.
pub(crate) fn address(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// The causes of an error, each said once. The address that reqwest adds is left out: it may hold secrets.
fn chain(e: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(e);
    while let Some(cause) = next {
        let text = cause.to_string();
        if !parts.iter().any(|p| p.contains(&text)) {
            parts.push(text);
        }
        next = cause.source();
    }
    match parts.is_empty() {
        true if e.is_timeout() => "timed out".to_string(),
        true => "request failed".to_string(),
        false => parts.join(": "),
    }
}

/// Refused connections, unknown names and bad certificates will not mend in seconds; the rest may.
fn is_transient(e: &reqwest::Error) -> bool {
    if e.is_builder() || e.is_redirect() || e.is_status() {
        return false;
    }
    if !e.is_connect() {
        return true;
    }
    let mut next: Option<&dyn std::error::Error> = Some(e);
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            use std::io::ErrorKind::{
                BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof,
            };
            if matches!(
                io.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof
            ) {
                return true;
            }
        }
        // EAI_AGAIN has no error kind of its own.
        if cause.to_string().contains("Temporary failure in name resolution") {
            return true;
        }
        next = cause.source();
    }
    e.is_timeout()
}

/// `Retry-After` in its form of seconds; dates are not worth the parser.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// The registry's own words from an error body (distribution spec, "Error Codes"), else the start of a text body.
pub(crate) fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Vec<Entry>,
        #[serde(default)]
        details: Option<String>,
        #[serde(default)]
        message: Option<String>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = match serde_json::from_slice::<Body>(body) {
        Ok(b) if !b.errors.is_empty() => b
            .errors
            .into_iter()
            .map(|e| match (e.code.to_lowercase().replace('_', " "), e.message) {
                (code, message) if message.is_empty() => code,
                (code, message) if code.is_empty() => message,
                (code, message) => format!("{code}: {message}"),
            })
            .collect::<Vec<_>>()
            .join("; "),
        Ok(b) => b.details.or(b.message).unwrap_or_default(),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let clean: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MESSAGE_LIMIT).collect();
    clean.trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_registries() {
        assert_eq!(
            message(
                br#"{"errors":[{"code":"MANIFEST_INVALID","message":"bad","detail":{}},{"code":"DENIED"}]}"#
            ),
            "manifest invalid: bad; denied"
        );
        assert_eq!(
            message(br#"{"details":"incorrect username or password"}"#),
            "incorrect username or password"
        );
        assert_eq!(message(b"<html>\n\x1b[31mno"), "<html>  [31mno");
        assert_eq!(message(&vec![b'x'; 4096]).len(), MESSAGE_LIMIT);
        assert_eq!(message(b""), "");
    }

    #[test]
    fn addresses_hold_no_secrets() {
        let url = Url::parse("https://u:canary@r.io/v2/a?sig=canary#canary").unwrap();
        assert_eq!(address(&url), "https://r.io/v2/a");
    }
}
