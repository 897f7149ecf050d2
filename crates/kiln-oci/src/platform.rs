//! Platforms: parsing, normal form and printing, as containerd/platforms does it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::nullable::or_default;

/// An operating system on a processor. Serialised with the field names and order of the OCI types.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, ...
    #[serde(default, deserialize_with = "or_default")]
    pub architecture: String,
    /// `linux`, ...
    #[serde(default, deserialize_with = "or_default")]
    pub os: String,
    /// Version of the operating system (Windows).
    #[serde(
        default,
        rename = "os.version",
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// Features of the operating system that the image needs.
    #[serde(
        default,
        rename = "os.features",
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// Generation of the processor: `v7`, `v8`, ...
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// Why a text is not a platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// `*` is reserved.
    #[error("{0:?}: wildcards not yet supported: invalid argument")]
    Wildcard(String),
    /// The part before the first slash.
    #[error(
        "{part:?} is an invalid OS component of {specifier:?}: OSAndVersion specifier component must match \"{pattern}\": invalid argument",
        pattern = OS_PATTERN
    )]
    Os {
        /// The part.
        part: String,
        /// All of it.
        specifier: String,
    },
    /// A later part.
    #[error(
        "{part:?} is an invalid component of {specifier:?}: platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument"
    )]
    Component {
        /// The part.
        part: String,
        /// All of it.
        specifier: String,
    },
    /// One word that is neither a known system nor a known architecture.
    #[error("{0:?}: unknown operating system or architecture: invalid argument")]
    Unknown(String),
    /// Too many parts.
    #[error("{0:?}: cannot parse platform specifier: invalid argument")]
    Parts(String),
    /// Version or features in parentheses.
    #[error("{specifier:?} has an invalid OS version {option:?}: invalid URL escape {option:?}")]
    Options {
        /// All of it.
        specifier: String,
        /// What cannot be decoded.
        option: String,
    },
}

const OS_PATTERN: &str = r"^([A-Za-z0-9_-]+)(?:\\(([A-Za-z0-9_.%-]*)((?:\\+[A-Za-z0-9_.%-]+)*)\\))?$";

const KNOWN_OS: [&str; 17] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];

const KNOWN_ARCH: [&str; 24] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

impl Platform {
    /// A platform without variant.
    pub fn new(os: &str, architecture: &str) -> Self {
        Self { os: os.to_string(), architecture: architecture.to_string(), ..Self::default() }
    }

    /// The platform of this machine, in normal form.
    pub fn host() -> Self {
        let (architecture, variant) = host_arch();
        Self { variant: variant.to_string(), ..Self::new("linux", architecture) }
    }

    /// Reads `os`, `arch`, `os/arch` or `os/arch/variant`; the system may carry `(version+feature+...)`.
    pub fn parse(specifier: &str) -> Result<Self, PlatformError> {
        let whole = || specifier.to_string();
        if specifier.contains('*') {
            return Err(PlatformError::Wildcard(whole()));
        }
        let parts: Vec<&str> = specifier.splitn(4, '/').collect();
        let mut p = parse_os(parts[0], specifier)?;
        for part in &parts[1..] {
            if !is_component(part) {
                return Err(PlatformError::Component { part: part.to_string(), specifier: whole() });
            }
        }
        match parts[..] {
            [one] => p.complete_single(one).ok_or_else(|| PlatformError::Unknown(whole())),
            [_, arch] => {
                (p.architecture, p.variant) = normalize_arch(arch, "");
                p.drop_default_arm();
                Ok(p)
            }
            [_, arch, variant] => {
                (p.architecture, p.variant) = normalize_arch(arch, variant);
                if p.architecture == "arm64" && p.variant.is_empty() {
                    p.variant = "v8".to_string();
                }
                Ok(p)
            }
            _ => Err(PlatformError::Parts(whole())),
        }
    }

    /// One word: a known system on this machine's architecture, or a known architecture on this system.
    fn complete_single(mut self, word: &str) -> Option<Self> {
        if KNOWN_OS.contains(&self.os.as_str()) {
            let (arch, variant) = host_arch();
            self.architecture = arch.to_string();
            if arch == "arm" && variant != "v7" {
                self.variant = variant.to_string();
            }
            return Some(self);
        }
        (self.architecture, self.variant) = normalize_arch(word, "");
        self.drop_default_arm();
        self.os = "linux".to_string();
        KNOWN_ARCH.contains(&self.architecture.as_str()).then_some(self)
    }

    fn drop_default_arm(&mut self) {
        if self.architecture == "arm" && self.variant == "v7" {
            self.variant.clear();
        }
    }

    /// The canonical form: `aarch64` becomes `arm64`, `arm64/v8` loses its variant, `arm` gains `v7`, features are sorted.
    pub fn normalize(&self) -> Self {
        let (architecture, variant) = normalize_arch(&self.architecture, &self.variant);
        let mut os_features = self.os_features.clone();
        os_features.sort();
        os_features.dedup();
        Self {
            architecture,
            os: normalize_os(&self.os),
            os_version: self.os_version.clone(),
            os_features,
            variant,
        }
    }

    /// Like `Display`, with version and features of the system: `windows(10.0.17763+win32k)/amd64`.
    pub fn format_all(&self) -> String {
        if self.os.is_empty() {
            return "unknown".to_string();
        }
        let mut features: Vec<&String> = self.os_features.iter().filter(|f| !f.is_empty()).collect();
        features.sort();
        features.dedup();
        let mut os = self.os.clone();
        if !self.os_version.is_empty() || !features.is_empty() {
            os.push('(');
            os.push_str(&encode_option(&self.os_version));
            for feature in features {
                os.push('+');
                os.push_str(&encode_option(feature));
            }
            os.push(')');
        }
        join(&[&os, &self.architecture, &self.variant])
    }

    /// Whether this is what index entries that are not images carry: `unknown/unknown`.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }
}

impl fmt::Display for Platform {
    /// `os/arch[/variant]`, or `unknown` without a system.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.os.is_empty() {
            return f.write_str("unknown");
        }
        f.write_str(&join(&[&self.os, &self.architecture, &self.variant]))
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(s: &str) -> Result<Self, PlatformError> {
        Self::parse(s)
    }
}

fn join(parts: &[&str]) -> String {
    parts.iter().filter(|p| !p.is_empty()).copied().collect::<Vec<_>>().join("/")
}

fn parse_os(part: &str, specifier: &str) -> Result<Platform, PlatformError> {
    let malformed = || PlatformError::Os { part: part.to_string(), specifier: specifier.to_string() };
    let (name, options) = match part.split_once('(') {
        None => (part, None),
        Some((name, rest)) => (name, Some(rest.strip_suffix(')').ok_or_else(malformed)?)),
    };
    let name_ok = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if !name_ok {
        return Err(malformed());
    }
    let mut p = Platform { os: normalize_os(name), ..Platform::default() };
    let Some(options) = options else { return Ok(p) };
    let mut values = options.split('+');
    let version = values.next().unwrap_or_default();
    let features: Vec<&str> = values.collect();
    let option_ok = |v: &str| v.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.%-".contains(&b));
    if !option_ok(version) || features.iter().any(|v| v.is_empty() || !option_ok(v)) {
        return Err(malformed());
    }
    let decode = |v: &str| {
        decode_option(v)
            .ok_or_else(|| PlatformError::Options { specifier: specifier.to_string(), option: v.to_string() })
    };
    p.os_version = decode(version)?;
    p.os_features = features.into_iter().map(decode).collect::<Result<_, _>>()?;
    Ok(p)
}

fn is_component(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn encode_option(v: &str) -> String {
    v.replace('%', "%25").replace('+', "%2B").replace('(', "%28").replace(')', "%29").replace('/', "%2F")
}

fn decode_option(v: &str) -> Option<String> {
    let mut out = Vec::with_capacity(v.len());
    let mut bytes = v.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let mut digit = || (bytes.next()? as char).to_digit(16).map(|d| d as u8);
        out.push(digit()? << 4 | digit()?);
    }
    String::from_utf8(out).ok()
}

fn normalize_os(os: &str) -> String {
    match os.to_lowercase().as_str() {
        "" => "linux".to_string(),
        "macos" => "darwin".to_string(),
        other => other.to_string(),
    }
}

fn normalize_arch(arch: &str, variant: &str) -> (String, String) {
    let (arch, variant) = (arch.to_lowercase(), variant.to_lowercase());
    let (arch, variant) = match (arch.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", v) => ("arm64", v),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (arch.to_string(), variant.to_string())
}

/// Go's name of this machine's architecture; a variant only on 32-bit ARM, where the build target fixes it.
fn host_arch() -> (&'static str, &'static str) {
    match std::env::consts::ARCH {
        "x86_64" => ("amd64", ""),
        "x86" => ("386", ""),
        "aarch64" => ("arm64", ""),
        "arm" => ("arm", "v7"),
        "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", ""),
        "powerpc64" => ("ppc64", ""),
        "loongarch64" => ("loong64", ""),
        "mips64" if cfg!(target_endian = "little") => ("mips64le", ""),
        other => (other, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_as_containerd() {
        for (text, printed, normal) in [
            ("linux/amd64", "linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64", "linux/amd64"),
            ("Linux/x86-64/v1", "linux/amd64", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3", "linux/amd64/v3"),
            ("linux/arm64", "linux/arm64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64", "linux/arm64"),
            ("linux/arm64/9", "linux/arm64/v9", "linux/arm64/v9"),
            ("linux/arm", "linux/arm", "linux/arm/v7"),
            ("linux/arm/7", "linux/arm/v7", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6", "linux/arm/v6"),
            ("linux/i386", "linux/386", "linux/386"),
            ("macos/arm64", "darwin/arm64", "darwin/arm64"),
            ("arm", "linux/arm", "linux/arm/v7"),
            ("s390x", "linux/s390x", "linux/s390x"),
            ("local/thing", "local/thing", "local/thing"),
        ] {
            let p = Platform::parse(text).unwrap();
            assert_eq!(p.to_string(), printed, "{text}");
            assert_eq!(p.normalize().to_string(), normal, "{text}");
        }
        assert_eq!(Platform::parse("linux").unwrap().architecture, Platform::host().architecture);
    }

    #[test]
    fn system_options() {
        let p = Platform::parse("windows(10.0.17763+win32k+a%2Bb)/amd64").unwrap();
        assert_eq!((p.os_version.as_str(), p.os_features.len()), ("10.0.17763", 2));
        assert_eq!(p.format_all(), "windows(10.0.17763+a%2Bb+win32k)/amd64");
        assert_eq!(p.to_string(), "windows/amd64");
    }

    #[test]
    fn refuses_the_rest() {
        for bad in [
            "",
            "*/amd64",
            "linux/",
            "linux//v8",
            "linux/a/b/c",
            "wat",
            "linux/a b",
            "li(nux/x",
            "x(+)/y",
            "x(%zz)/y",
        ] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            Platform::parse("wat").unwrap_err().to_string(),
            "\"wat\": unknown operating system or architecture: invalid argument"
        );
        assert_eq!(
            Platform::parse("linux/&").unwrap_err().to_string(),
            "\"&\" is an invalid component of \"linux/&\": platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument"
        );
    }

    proptest::proptest! {
        #[test]
        fn never_panics(s: String) {
            let _ = Platform::parse(&s);
        }

        #[test]
        fn printed_form_parses_to_the_same(s in "[a-z0-9]{1,6}/[a-z0-9]{1,6}(/v[0-9.]{1,3})?") {
            if let Ok(p) = Platform::parse(&s) {
                let again = Platform::parse(&p.format_all()).unwrap();
                proptest::prop_assert_eq!(again.normalize(), p.normalize());
            }
        }
    }
}
