//! What to download and how to name it.

use std::collections::BTreeMap;

use kiln_digest::Digest;
use kiln_llb::op::attr;
use url::Url;

use super::FileSpec;
use crate::{Result, SourceError, redact_url};

/// Header fields that a build may set; others are dropped, as BuildKit does.
const ALLOWED: [&str; 2] = ["Accept", "User-Agent"];

/// A download, from `http://` and `https://` identifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpId {
    /// The address as written.
    pub url: String,
    /// Expected digest of the content.
    pub checksum: Option<Digest>,
    /// Name of the file; without it the server's or the address's last part.
    pub filename: Option<String>,
    /// Permission bits; 0 means 0600.
    pub perm: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Secret that is the `Authorization` header.
    pub auth_header_secret: Option<String>,
    /// Header fields to send, sorted by name.
    pub headers: Vec<(String, String)>,
}

impl HttpId {
    /// Reads identifier and attributes of a source operation.
    pub fn parse(identifier: &str, attrs: &BTreeMap<String, String>) -> Result<Self> {
        let invalid = |message: String| SourceError::Invalid { identifier: redact_url(identifier), message };
        let url = Url::parse(identifier).map_err(|e| invalid(e.to_string()))?;
        // The parser takes `http:///x` for `http://x`; what was written has no host.
        let written = identifier.split_once("://").map_or("", |(_, rest)| rest);
        if url.host().is_none() || written.starts_with(['/', '\\', '?', '#']) {
            return Err(invalid("no host".to_string()));
        }
        let mut id = Self {
            url: identifier.to_string(),
            checksum: None,
            filename: None,
            perm: 0,
            uid: 0,
            gid: 0,
            auth_header_secret: None,
            headers: Vec::new(),
        };
        for (key, value) in attrs {
            let number =
                || parse_int(value).ok_or_else(|| invalid(format!("{key}: invalid number {value:?}")));
            match key.as_str() {
                attr::HTTP_CHECKSUM => {
                    let digest: Digest = value.parse().map_err(|e| invalid(format!("{key}: {e}")))?;
                    if digest.is_random() {
                        return Err(invalid(format!("{key}: unsupported digest algorithm")));
                    }
                    id.checksum = Some(digest);
                }
                attr::HTTP_FILENAME => id.filename = Some(value.clone()).filter(|v| !v.is_empty()),
                attr::HTTP_PERM => id.perm = number()?,
                attr::HTTP_UID => id.uid = number()?,
                attr::HTTP_GID => id.gid = number()?,
                attr::HTTP_AUTH_HEADER_SECRET => {
                    id.auth_header_secret = Some(value.clone()).filter(|v| !v.is_empty());
                }
                attr::HTTP_SIG_PUBKEY | attr::HTTP_SIG_SIGNATURE => {
                    // Never ignored: the build would go on with what should have been checked.
                    return Err(SourceError::Unsupported(format!("signature verification ({key})")));
                }
                key => id.add_header(key, value),
            }
        }
        id.headers.sort();
        Ok(id)
    }

    fn add_header(&mut self, key: &str, value: &str) {
        let Some(name) = key.strip_prefix(attr::HTTP_HEADER_PREFIX) else {
            tracing::warn!(key, "unknown attribute of an http source");
            return;
        };
        if let Some(name) = ALLOWED.into_iter().find(|a| a.eq_ignore_ascii_case(name)) {
            self.headers.push((name.to_string(), value.to_string()));
        }
    }

    /// The address without credentials.
    pub fn display(&self) -> String {
        redact_url(&self.url)
    }

    pub(super) fn file(&self, name: String) -> FileSpec {
        FileSpec {
            name,
            perm: self.perm,
            uid: self.uid,
            gid: self.gid,
            description: format!("http url {}", self.display()),
            source: self.display(),
        }
    }

    /// Everything that changes what is fetched or how it is stored.
    pub(super) fn fingerprint(&self) -> Digest {
        let Self { url, filename, perm, uid, gid, auth_header_secret, headers, checksum: _ } = self;
        Digest::sha256(format!("{:?}", (url, filename, perm, uid, gid, auth_header_secret, headers)))
    }
}

/// Numbers as Go's `ParseInt(v, 0, 64)` reads them, as far as they make sense here.
pub(crate) fn parse_int(text: &str) -> Option<u32> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    u32::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with(['+', '-']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(attrs: &[(&str, &str)]) -> Result<HttpId> {
        let attrs = attrs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        HttpId::parse("https://u:canary@h/x", &attrs)
    }

    #[test]
    fn attributes() {
        let d = Digest::sha256("x").to_string();
        let got = id(&[
            ("http.checksum", &d),
            ("http.filename", "f"),
            ("http.perm", "0644"),
            ("http.uid", "1000"),
            ("http.gid", "0x10"),
            ("http.header.user-agent", "ua"),
            ("http.header.accept", "a"),
            ("http.header.cookie", "dropped"),
            ("http.authheadersecret", "s"),
            ("what.is.this", "ignored"),
        ])
        .unwrap();
        assert_eq!((got.perm, got.uid, got.gid), (0o644, 1000, 16));
        assert_eq!(got.headers, [("Accept".into(), "a".into()), ("User-Agent".into(), "ua".into())]);
        assert_eq!(got.checksum.unwrap().to_string(), d);
    }

    #[test]
    fn refusals_hold_no_secrets() {
        for attrs in [
            &[("http.checksum", "md5:x")][..],
            &[("http.perm", "rw")],
            &[("http.uid", "-1")],
            &[("http.uid", "99999999999")],
            &[("http.sig.pubkey", "k")],
        ] {
            let message = id(attrs).unwrap_err().to_string();
            assert!(!message.contains("canary"), "{message}");
        }
        for bad in ["http://", "https://[", "http:///x"] {
            assert!(HttpId::parse(bad, &BTreeMap::new()).is_err(), "{bad}");
        }
    }
}
