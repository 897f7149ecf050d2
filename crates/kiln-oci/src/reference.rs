//! Image references and Docker's rules for short names (github.com/distribution/reference).

use std::fmt;
use std::str::FromStr;

use kiln_digest::Digest;

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// The name of an image in a registry, always with domain and path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a reference; worded as Docker words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// 64 hexadecimal digits would be taken for an image id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Identifier(String),
    /// Upper case in the repository.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// Anything else.
    #[error("invalid reference format")]
    Format,
    /// The path is too long.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// A tag given on its own.
    #[error("invalid tag format")]
    Tag,
    /// Hex digits of the wrong number.
    #[error("invalid checksum digest length")]
    DigestLength,
    /// Not lower-case hex.
    #[error("invalid checksum digest format")]
    DigestFormat,
    /// Not sha256.
    #[error("unsupported digest algorithm")]
    DigestAlgorithm,
}

impl Reference {
    /// Reads a reference as a user writes it: `alpine` is `docker.io/library/alpine`. No tag is added.
    pub fn parse_normalized(s: &str) -> Result<Self, ReferenceError> {
        if s.len() == 64 && s.bytes().all(is_lower_hex) {
            return Err(ReferenceError::Identifier(s.to_string()));
        }
        let (domain, remainder) = split_domain(s);
        let remote = remainder.split(':').next().unwrap_or_default();
        if remote.to_lowercase() != remote {
            return Err(ReferenceError::Uppercase(remote.to_string()));
        }
        Self::from_parts(domain, &remainder)
    }

    /// As [`Self::parse_normalized`], then a tag beside a digest is dropped and a missing tag becomes `latest`.
    pub fn parse_docker(s: &str) -> Result<Self, ReferenceError> {
        let mut r = Self::parse_normalized(s)?;
        if r.digest.is_some() {
            r.tag = None;
        }
        Ok(r.with_default_tag())
    }

    fn from_parts(domain: &str, remainder: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match remainder.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (remainder, None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        let name_ok = is_domain(domain) && is_path(path);
        let well_formed = name_ok && tag.is_none_or(is_tag) && digest.is_none_or(is_digest);
        if !well_formed {
            return Err(ReferenceError::Format);
        }
        if path.len() > NAME_MAX {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self {
            domain: domain.to_string(),
            path: path.to_string(),
            tag: tag.map(str::to_string),
            digest: digest.map(parse_digest).transpose()?,
        })
    }

    /// Host with optional port: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Repository within the registry: `library/alpine`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Domain and path.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The tag, if any.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if any.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What to ask the registry for: the digest if there is one, else the tag, else `latest`.
    pub fn object(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(d), _) => d.to_string(),
            (None, Some(t)) => t.clone(),
            (None, None) => "latest".to_string(),
        }
    }

    /// The same with another tag.
    pub fn with_tag(mut self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Tag);
        }
        self.tag = Some(tag.to_string());
        Ok(self)
    }

    /// The same with a digest; the tag stays.
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// `latest` if there is neither tag nor digest.
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_string());
        }
        self
    }

    /// Only domain and path.
    pub fn name_only(&self) -> Self {
        Self { tag: None, digest: None, ..self.clone() }
    }

    /// The name people use: without `docker.io/` and `library/`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL) {
            Some(short) if !short.contains('/') => short.to_string(),
            _ => self.path.clone(),
        }
    }

    /// The familiar name with tag and digest.
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    fn suffixed(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(&digest.to_string());
        }
        name
    }
}

impl fmt::Display for Reference {
    /// The full form: `docker.io/library/alpine:3@sha256:...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(self.name()))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// As [`Reference::parse_normalized`].
    fn from_str(s: &str) -> Result<Self, ReferenceError> {
        Self::parse_normalized(s)
    }
}

impl serde::Serialize for Reference {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Reference {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What stands before the first slash is a domain if it could not be part of a Docker Hub name.
fn split_domain(s: &str) -> (&str, String) {
    let Some((first, rest)) = s.split_once('/') else {
        return (DEFAULT_DOMAIN, format!("{OFFICIAL}{s}"));
    };
    let is_domain = first == "localhost" || first.contains(['.', ':']) || first.to_lowercase() != first;
    let (domain, remote) = match first {
        LEGACY_DOMAIN => (DEFAULT_DOMAIN, rest),
        _ if is_domain => (first, rest),
        _ => (DEFAULT_DOMAIN, s),
    };
    if domain == DEFAULT_DOMAIN && !remote.contains('/') {
        return (domain, format!("{OFFICIAL}{remote}"));
    }
    (domain, remote.to_string())
}

/// What looks like a digest of any algorithm: words joined by one of `-_+.`, a colon, at least 32 hexadecimal digits.
fn is_digest(s: &str) -> bool {
    let Some((algorithm, hex)) = s.split_once(':') else { return false };
    let word = |p: &str| {
        p.starts_with(|c: char| c.is_ascii_alphabetic()) && p.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(word)
        && hex.len() >= 32
        && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

fn parse_digest(s: &str) -> Result<Digest, ReferenceError> {
    match s.split_once(':') {
        Some(("sha256", hex)) if hex.len() == 64 => s.parse().map_err(|_| ReferenceError::DigestFormat),
        Some(("sha256", _)) => Err(ReferenceError::DigestLength),
        Some((other, _)) if other.bytes().any(|b| b.is_ascii_uppercase()) => {
            Err(ReferenceError::DigestFormat)
        }
        _ => Err(ReferenceError::DigestAlgorithm),
    }
}

fn is_lower_hex(b: u8) -> bool {
    b.is_ascii_digit() || (b'a'..=b'f').contains(&b)
}

/// `[\w][\w.-]{0,127}`
fn is_tag(s: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=TAG_MAX).contains(&s.len())
        && s.bytes().enumerate().all(|(i, b)| word(b) || (i > 0 && (b == b'.' || b == b'-')))
}

/// Components divided by slashes: lower-case words joined by one dot, one or two underscores, or dashes.
fn is_path(s: &str) -> bool {
    s.split('/').all(is_path_component)
}

fn is_path_component(s: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase();
    let bytes = s.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alnum(*first) || !alnum(*last) {
        return false;
    }
    bytes
        .split(|b| alnum(*b))
        .all(|sep| matches!(sep, b"" | b"." | b"_" | b"__") || sep.iter().all(|b| *b == b'-'))
}

/// A host name, IPv4 address or bracketed IPv6 address, with optional port.
fn is_domain(s: &str) -> bool {
    let (host, port) = match s.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else { return false };
            let address_ok =
                !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
            if !address_ok {
                return false;
            }
            match port {
                "" => return true,
                _ => ("ip", port.strip_prefix(':')),
            }
        }
        None => match s.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => return s.split('.').all(is_domain_component),
        },
    };
    let port_ok = port.is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    port_ok && host.split('.').all(is_domain_component)
}

fn is_domain_component(s: &str) -> bool {
    !s.is_empty()
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !s.starts_with('-')
        && !s.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn normalises_as_docker() {
        for (text, full, familiar) in [
            ("alpine", "docker.io/library/alpine", "alpine"),
            ("alpine:3", "docker.io/library/alpine:3", "alpine:3"),
            ("foo/bar", "docker.io/foo/bar", "foo/bar"),
            ("library/alpine", "docker.io/library/alpine", "alpine"),
            ("docker.io/alpine", "docker.io/library/alpine", "alpine"),
            ("index.docker.io/alpine", "docker.io/library/alpine", "alpine"),
            ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
            ("localhost/x", "localhost/x", "localhost/x"),
            ("localhost:5000/x:t", "localhost:5000/x:t", "localhost:5000/x:t"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b"),
            ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
            ("[fd00::1]/x", "[fd00::1]/x", "[fd00::1]/x"),
            ("ghcr.io/A_b", "", ""),
            ("Foo/bar", "Foo/bar", "Foo/bar"),
            ("a__b/c--d.e", "docker.io/a__b/c--d.e", "a__b/c--d.e"),
            ("localhost", "docker.io/library/localhost", "localhost"),
            ("test:5000", "docker.io/library/test:5000", "test:5000"),
        ] {
            match Reference::parse_normalized(text) {
                Ok(r) => {
                    assert_eq!((r.to_string().as_str(), r.familiar().as_str()), (full, familiar), "{text}")
                }
                Err(e) => assert_eq!(full, "", "{text}: {e}"),
            }
        }
    }

    #[test]
    fn digests_and_tags() {
        let r = Reference::parse_normalized(&format!("alpine:3@{D}")).unwrap();
        assert_eq!(r.to_string(), format!("docker.io/library/alpine:3@{D}"));
        assert_eq!(r.object(), D);
        let r = Reference::parse_docker(&format!("alpine:3@{D}")).unwrap();
        assert_eq!(r.to_string(), format!("docker.io/library/alpine@{D}"));
        assert_eq!(Reference::parse_docker("alpine").unwrap().tag(), Some("latest"));
        assert_eq!(r.clone().with_tag("-x"), Err(ReferenceError::Tag));
        assert_eq!(r.name_only().with_tag("x").unwrap().to_string(), "docker.io/library/alpine:x");
    }

    #[test]
    fn errors_as_docker() {
        let message = |s: &str| Reference::parse_normalized(s).unwrap_err().to_string();
        assert_eq!(
            message("Alpine"),
            "invalid reference format: repository name (library/Alpine) must be lowercase"
        );
        assert_eq!(
            message("foo/Bar"),
            "invalid reference format: repository name (foo/Bar) must be lowercase"
        );
        assert_eq!(
            message(&D[7..]),
            format!("invalid repository name ({}), cannot specify 64-byte hexadecimal strings", &D[7..])
        );
        for bad in [
            "",
            "a//b",
            "a/",
            "/a",
            ":x",
            "a:",
            "a@",
            "-a",
            "a_",
            "a..b",
            "a___b",
            "x y",
            "a:-t",
            "a@sha256:00",
            "é/x",
            "localhost:port/x",
            "[::1/x",
            "a.b_c/d",
            "http://x/y",
            "a:b:c",
            "a:b/c",
            "-a.b/c",
        ] {
            assert!(Reference::parse_normalized(bad).is_err(), "{bad}");
        }
        assert_eq!(message(&format!("a@sha512:{}", "0".repeat(128))), "unsupported digest algorithm");
        assert_eq!(message(&format!("a@sha256:{}", "0".repeat(63))), "invalid checksum digest length");
        assert_eq!(message(&format!("a@sha256:{}", "A".repeat(64))), "invalid checksum digest format");
        assert_eq!(message(&format!("a@random:{}", "0".repeat(64))), "unsupported digest algorithm");
        assert_eq!(
            message(&format!("r.io/{}", "a".repeat(256))),
            "repository name must not be more than 255 characters"
        );
        assert!(Reference::parse_normalized(&format!("r.io/{}", "a".repeat(255))).is_ok());
        assert!(Reference::parse_normalized(&format!("a:{}", "t".repeat(129))).is_err());
    }

    proptest::proptest! {
        #[test]
        fn never_panics_and_round_trips(s in "[a-zA-Z0-9._:/@\\[\\]-]{0,40}|\\PC*") {
            if let Ok(r) = Reference::parse_normalized(&s) {
                proptest::prop_assert_eq!(Reference::parse_normalized(&r.to_string()).unwrap(), r.clone());
                proptest::prop_assert_eq!(Reference::parse_normalized(&r.familiar()).unwrap(), r);
            }
        }
    }
}
