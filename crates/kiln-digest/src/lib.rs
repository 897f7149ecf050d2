//! Digests: the names of everything that is stored, sent or compared.
//!
//! Two kinds exist: `sha256:<hex>` (OCI image spec, "Digests") and `random:<hex>`, which BuildKit gives to cache
//! keys that are valid only within a session (spec llb-and-solver.md section 4). Other algorithms are refused.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

/// How the bytes of a [`Digest`] came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// `random:`: never exported, matched only within the session that made it.
    Random,
    /// `sha256:`
    Sha256,
}

/// A content digest. Ordering is that of the printed form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: [u8; 32],
}

/// Why a text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No `algorithm:` prefix.
    #[error("invalid digest {:?}: expected algorithm:hex", clipped(.0))]
    Form(String),
    /// An algorithm other than sha256.
    #[error("invalid digest {:?}: unsupported digest algorithm, only sha256 is supported", clipped(.0))]
    Algorithm(String),
    /// The hex part is not 64 lower-case digits.
    #[error("invalid digest {:?}: expected 64 lower-case hexadecimal digits", clipped(.0))]
    Hex(String),
}

/// As much of a text as an error message should hold: it may be whatever a server sent.
fn clipped(text: &str) -> String {
    const LIMIT: usize = 150;
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}

impl Digest {
    /// The SHA-256 of `data`.
    pub fn sha256(data: impl AsRef<[u8]>) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(data.as_ref());
        hasher.finish()
    }

    /// A SHA-256 that was computed elsewhere.
    pub fn from_sha256_bytes(bytes: [u8; 32]) -> Self {
        Self { algorithm: Algorithm::Sha256, bytes }
    }

    /// The same bytes under the `random:` algorithm, for keys that must not leave the session.
    pub fn to_random(self) -> Self {
        Self { algorithm: Algorithm::Random, ..self }
    }

    /// Whether this is a `random:` digest.
    pub fn is_random(&self) -> bool {
        self.algorithm == Algorithm::Random
    }

    /// Which algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The raw 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The 64 hexadecimal digits, without the algorithm.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut out = String::with_capacity(64);
        for b in self.bytes {
            out.push(DIGITS[usize::from(b >> 4)] as char);
            out.push(DIGITS[usize::from(b & 15)] as char);
        }
        out
    }

    /// The first twelve hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.hex()[..12].to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.algorithm {
            Algorithm::Random => "random",
            Algorithm::Sha256 => "sha256",
        };
        write!(f, "{name}:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let (name, hex) = s.split_once(':').ok_or_else(|| ParseError::Form(s.to_string()))?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "random" => Algorithm::Random,
            _ => return Err(ParseError::Algorithm(s.to_string())),
        };
        let bytes = decode_hex(hex.as_bytes()).ok_or_else(|| ParseError::Hex(s.to_string()))?;
        Ok(Self { algorithm, bytes })
    }
}

fn decode_hex(hex: &[u8]) -> Option<[u8; 32]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut out = [0; 32];
    if hex.len() != 64 {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(hex.chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes a SHA-256 piece by piece. The provider is hidden here so that it can be swapped.
#[derive(Clone)]
pub struct Hasher(ring::digest::Context);

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

impl Hasher {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }

    /// Hashes `data` after what came before.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The digest of all that was given.
    pub fn finish(self) -> Digest {
        let hash = self.0.finish();
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hash.as_ref());
        Digest::from_sha256_bytes(bytes)
    }
}

/// Passes reads through and hashes what was read.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    len: u64,
}

impl<R: Read> HashingReader<R> {
    /// Wraps `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, hasher: Hasher::new(), len: 0 }
    }

    /// The digest and the number of bytes that were read.
    pub fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.len)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        self.len += n as u64;
        Ok(n)
    }
}

/// Passes writes through and hashes what was written.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
    len: u64,
}

impl<W: io::Write> HashingWriter<W> {
    /// Wraps `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::new(), len: 0 }
    }

    /// The inner writer, the digest and the number of bytes that were written.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, self.hasher.finish(), self.len)
    }
}

impl<W: io::Write> io::Write for HashingWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.len += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Algorithms of checksums that others ask for; what kiln stores is named by [`Digest`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// `sha256:`
    Sha256,
    /// `sha384:`
    Sha384,
    /// `sha512:`
    Sha512,
}

impl Checksum {
    /// The checksum of everything that `reader` gives, as `<algorithm>:<hex>`.
    ///
    /// # Errors
    /// Of the reader.
    pub fn of(self, mut reader: impl Read) -> io::Result<String> {
        let (name, algorithm) = match self {
            Self::Sha256 => ("sha256", &ring::digest::SHA256),
            Self::Sha384 => ("sha384", &ring::digest::SHA384),
            Self::Sha512 => ("sha512", &ring::digest::SHA512),
        };
        let mut context = ring::digest::Context::new(algorithm);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match reader.read(&mut buffer)? {
                0 => break,
                n => context.update(&buffer[..n]),
            }
        }
        let hex: String = context.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect();
        Ok(format!("{name}:{hex}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses() {
        let d = Digest::sha256("");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(d.to_string(), text);
        assert_eq!(text.parse(), Ok(d));
        assert_eq!(d.to_random().to_string(), text.replace("sha256", "random"));
        assert!(d.to_random().is_random());
    }

    #[test]
    fn refuses_what_is_not_a_digest() {
        for bad in ["", "sha256", "sha256:", "sha256:00", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        let long = format!("sha256:{}", "é".repeat(100_000)).parse::<Digest>().unwrap_err();
        assert!(long.to_string().len() < 500);
        let upper = Digest::sha256("").to_string().to_uppercase();
        assert!(upper.replace("SHA256", "sha256").parse::<Digest>().is_err());
        assert!(format!("sha256:../{}", "a".repeat(61)).parse::<Digest>().is_err());
    }

    #[test]
    fn streams_hash_what_passes() {
        let mut r = HashingReader::new(&b"hello"[..]);
        io::copy(&mut r, &mut io::sink()).unwrap();
        assert_eq!(r.finish(), (Digest::sha256("hello"), 5));
    }

    proptest::proptest! {
        #[test]
        fn any_digest_round_trips(bytes: [u8; 32]) {
            let d = Digest::from_sha256_bytes(bytes);
            proptest::prop_assert_eq!(d.to_string().parse(), Ok(d));
            let json = serde_json::to_string(&d).unwrap();
            proptest::prop_assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), d);
        }
    }

    #[test]
    fn checksums_of_other_lengths() {
        let of = |c: Checksum| c.of(&b"abc"[..]).unwrap();
        assert_eq!(of(Checksum::Sha256), Digest::sha256("abc").to_string());
        assert!(of(Checksum::Sha384).starts_with("sha384:cb00753f45a35e8bb5a03d699ac65007272c32ab0eded163"));
        assert!(of(Checksum::Sha512).starts_with("sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea2"));
    }
}
