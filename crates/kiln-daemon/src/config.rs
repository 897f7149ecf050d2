//! `buildkitd.toml` (spec daemon-and-cli.md section 1): read once, then flags win over it.
//!
//! BuildKit ignores keys it does not know; kiln reads the same files, so it warns about them by name instead.

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file. Fields are named as its keys.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Config {
    /// State directory.
    pub(crate) root: Option<PathBuf>,
    /// Entitlements that clients may ask for.
    #[serde(rename = "insecure-entitlements")]
    pub(crate) insecure_entitlements: Vec<String>,
    /// `[log]`
    pub(crate) log: Log,
    /// `[grpc]`
    pub(crate) grpc: Grpc,
    /// `[dns]`
    pub(crate) dns: Dns,
    /// `[system]`
    pub(crate) system: System,
    /// `[worker]`
    pub(crate) worker: Workers,
    /// `[registry."host"]`
    pub(crate) registry: BTreeMap<String, Registry>,
}

/// `[log]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Log {
    /// `text` or `json`.
    pub(crate) format: Option<String>,
    /// Such as `info`.
    pub(crate) level: Option<String>,
}

/// `[grpc]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Grpc {
    /// Listen addresses.
    pub(crate) address: Vec<String>,
    /// Owner of the socket.
    pub(crate) uid: Option<u32>,
    /// Group of the socket.
    pub(crate) gid: Option<u32>,
}

/// `[dns]`: what steps see in `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Dns {
    /// Addresses.
    pub(crate) nameservers: Vec<String>,
    /// Options.
    pub(crate) options: Vec<String>,
    /// Search list.
    pub(crate) search_domains: Vec<String>,
}

/// `[system]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct System {
    /// Requests at a time to one registry.
    pub(crate) max_registry_concurrency: Option<usize>,
}

/// `[worker]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Workers {
    /// `[worker.oci]`
    pub(crate) oci: Worker,
}

/// `[worker.oci]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Worker {
    /// More labels of the worker.
    pub(crate) labels: BTreeMap<String, String>,
    /// `auto`, `overlayfs` or `native`.
    pub(crate) snapshotter: Option<String>,
    /// An OCI runtime to use instead of the embedded launcher.
    pub(crate) binary: Option<String>,
    /// Steps at the same time; 0 is no limit. Guides write `maxParallelism`.
    #[serde(rename = "max-parallelism", alias = "maxParallelism")]
    pub(crate) max_parallelism: Option<usize>,
    /// Parent of the steps' cgroups.
    pub(crate) default_cgroup_parent: Option<String>,
    /// Collect garbage by itself.
    pub(crate) gc: Option<bool>,
    /// Old name of `reservedSpace`, used when none of the three is set.
    #[serde(alias = "gckeepstorage", alias = "gcKeepStorage")]
    pub(crate) gc_keep_storage: Option<DiskSpace>,
    /// Kept whatever its age.
    pub(crate) reserved_space: Option<DiskSpace>,
    /// The cap.
    pub(crate) max_used_space: Option<DiskSpace>,
    /// Left free on the disk.
    pub(crate) min_free_space: Option<DiskSpace>,
    /// Replaces the default rules.
    #[serde(rename = "gcpolicy")]
    pub(crate) gc_policy: Vec<GcPolicy>,
}

/// `[[worker.oci.gcpolicy]]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct GcPolicy {
    /// Internal and frontend records too.
    pub(crate) all: bool,
    /// Any of these.
    pub(crate) filters: Vec<String>,
    /// Records used more recently stay.
    pub(crate) keep_duration: Option<Seconds>,
    /// Old name of `reservedSpace`.
    pub(crate) keep_bytes: Option<DiskSpace>,
    /// Kept whatever its age.
    pub(crate) reserved_space: Option<DiskSpace>,
    /// The cap.
    pub(crate) max_used_space: Option<DiskSpace>,
    /// Left free on the disk.
    pub(crate) min_free_space: Option<DiskSpace>,
}

/// `[registry."host"]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Registry {
    /// Asked first, in this order.
    pub(crate) mirrors: Vec<String>,
    /// Plain HTTP.
    pub(crate) http: Option<bool>,
    /// No certificate checks.
    pub(crate) insecure: Option<bool>,
    /// Certificates of authorities.
    pub(crate) ca: Vec<PathBuf>,
    /// Client certificates.
    pub(crate) keypair: Vec<KeyPair>,
    /// Folders of certificates.
    pub(crate) tlsconfigdir: Vec<PathBuf>,
}

/// A client certificate.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct KeyPair {
    /// PEM file.
    pub(crate) key: PathBuf,
    /// PEM file.
    pub(crate) cert: PathBuf,
}

/// An amount of disk: bytes, text with a binary unit, or a share of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskSpace {
    /// Bytes.
    Bytes(u64),
    /// Percent of the disk.
    Percent(u64),
}

impl DiskSpace {
    /// In bytes, for a disk of `total` bytes (0: unknown). The rounding is BuildKit's.
    pub(crate) fn bytes(self, total: u64) -> u64 {
        match self {
            Self::Bytes(n) => n,
            Self::Percent(_) if total == 0 => 2_000_000_000,
            Self::Percent(p) => (total.saturating_mul(p) / 100 / (1 << 30) + 1) * 1_000_000_000,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some(percent) = text.strip_suffix('%') {
            return percent.trim().parse().ok().map(Self::Percent);
        }
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            "p" | "pb" | "pib" => 50,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        Some(Self::Bytes((number * f64::from(2u32).powi(shift)) as u64))
    }
}

impl<'de> Deserialize<'de> for DiskSpace {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match IntOrText::deserialize(d)? {
            IntOrText::Int(n) => u64::try_from(n).map(Self::Bytes).map_err(|_| invalid("disk space", &n)),
            IntOrText::Text(t) => Self::parse(&t).ok_or_else(|| invalid("disk space", &t)),
        }
    }
}

/// A duration: Go's text form, or an integer in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) Duration);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match IntOrText::deserialize(d)? {
            IntOrText::Int(n) => {
                u64::try_from(n).map(|n| Self(Duration::from_secs(n))).map_err(|_| invalid("duration", &n))
            }
            IntOrText::Text(t) => go_duration(&t).map(Self).ok_or_else(|| invalid("duration", &t)),
        }
    }
}

fn invalid<E: serde::de::Error>(what: &str, value: &dyn fmt::Display) -> E {
    E::custom(format!("invalid {what} {value}"))
}

/// Go's `time.ParseDuration`, without sign.
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = tail;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(total).ok()).flatten()
}

enum IntOrText {
    Int(i64),
    Text(String),
}

impl<'de> Deserialize<'de> for IntOrText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = IntOrText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer or a text")
            }
            fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<IntOrText, E> {
                Ok(IntOrText::Int(v))
            }
            fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<IntOrText, E> {
                i64::try_from(v).map(IntOrText::Int).map_err(E::custom)
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<IntOrText, E> {
                Ok(IntOrText::Text(v.to_string()))
            }
        }
        d.deserialize_any(V)
    }
}

/// Why a configuration file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It exists but cannot be read.
    #[error("failed to read config {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no TOML, or a value has the wrong type.
    #[error("failed to parse config {path}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
}

/// Reads `path`. Returns the configuration and warnings.
///
/// # Errors
/// If it cannot be read or parsed.
pub(crate) fn load(path: &Path) -> Result<(Config, Vec<String>), ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let wrong = |message: String| ConfigError::Parse {
                path: path.into(),
                message: message.trim_end().into(),
            };
            parse(&text).map_err(wrong)
        }
        Err(source) => Err(ConfigError::Read { path: path.into(), source }),
    }
}

/// As [`load`], but a file that does not exist is an empty one.
///
/// # Errors
/// If it cannot be read or parsed.
pub(crate) fn load_if_there(path: &Path) -> Result<(Config, Vec<String>), ConfigError> {
    match load(path) {
        Err(ConfigError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(Default::default())
        }
        other => other,
    }
}

fn parse(text: &str) -> Result<(Config, Vec<String>), String> {
    let config: Config = toml::from_str(text).map_err(|e| e.to_string())?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
    let mut warnings = Vec::new();
    unknown_keys(&table, &mut Vec::new(), &mut warnings);
    if let Some(DiskSpace::Bytes(n @ 1..1_000_000)) = config.worker.oci.gc_keep_storage {
        warnings.push(format!(
            "worker.oci.gcKeepStorage = {n} is {n} bytes; did you mean \"{n}MB\"? Write a unit to be sure"
        ));
    }
    if table.get("worker").and_then(|w| w.get("oci")).is_some_and(|o| o.get("maxParallelism").is_some()) {
        warnings.push(
            "worker.oci.maxParallelism: the key's real name is max-parallelism; the value is used".into(),
        );
    }
    Ok((config, warnings))
}

/// Keys of each section; `*` stands for any name.
const KNOWN: &[(&str, &[&str])] = &[
    ("", &["root", "insecure-entitlements", "log", "grpc", "dns", "system", "worker", "registry"]),
    ("log", &["format", "level"]),
    ("grpc", &["address", "uid", "gid"]),
    ("dns", &["nameservers", "options", "searchDomains"]),
    ("system", &["maxRegistryConcurrency"]),
    ("worker", &["oci"]),
    (
        "worker.oci",
        &[
            "enabled",
            "labels",
            "snapshotter",
            "binary",
            "max-parallelism",
            "maxParallelism",
            "defaultCgroupParent",
            "gc",
            "gckeepstorage",
            "gcKeepStorage",
            "reservedSpace",
            "maxUsedSpace",
            "minFreeSpace",
            "gcpolicy",
        ],
    ),
    ("worker.oci.labels", &["*"]),
    (
        "worker.oci.gcpolicy",
        &["all", "filters", "keepDuration", "keepBytes", "reservedSpace", "maxUsedSpace", "minFreeSpace"],
    ),
    ("registry", &["*"]),
    ("registry.*", &["mirrors", "http", "insecure", "ca", "keypair", "tlsconfigdir"]),
    ("registry.*.keypair", &["key", "cert"]),
];

fn unknown_keys(table: &toml::Table, path: &mut Vec<String>, warnings: &mut Vec<String>) {
    let section = path.join(".");
    let Some((_, known)) = KNOWN.iter().find(|(name, _)| *name == section) else { return };
    for (key, value) in table {
        let any = known.contains(&"*");
        if !any && !known.contains(&key.as_str()) {
            let full = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
            warnings.push(format!("config key {full} is not supported and has no effect"));
            continue;
        }
        path.push(if any { "*".into() } else { key.clone() });
        match value {
            toml::Value::Table(t) => unknown_keys(t, path, warnings),
            toml::Value::Array(items) => {
                items.iter().filter_map(|i| i.as_table()).for_each(|t| unknown_keys(t, path, warnings));
            }
            _ => {}
        }
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guides_example_works_and_warns() {
        let (c, w) = parse("[worker.oci]\n  maxParallelism = 4\n  gcKeepStorage = 10000  # MB\n").unwrap();
        assert_eq!(c.worker.oci.max_parallelism, Some(4));
        assert_eq!(c.worker.oci.gc_keep_storage, Some(DiskSpace::Bytes(10000)));
        assert_eq!(w.len(), 2, "{w:?}");
    }

    #[test]
    fn sizes_and_durations() {
        let (c, _) = parse(
            "[[worker.oci.gcpolicy]]\nkeepBytes = \"512MB\"\nkeepDuration = 172800\nmaxUsedSpace = \"10%\"\n",
        )
        .unwrap();
        let p = &c.worker.oci.gc_policy[0];
        assert_eq!(p.keep_bytes, Some(DiskSpace::Bytes(536_870_912)));
        assert_eq!(p.keep_duration, Some(Seconds(Duration::from_secs(48 * 3600))));
        assert_eq!(p.max_used_space.unwrap().bytes(500_000_000_000), 47_000_000_000);
        assert_eq!(go_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(go_duration("1x"), None);
        assert!(parse("[worker.oci]\nreservedSpace = \"lots\"").is_err());
    }

    #[test]
    fn unknown_keys_are_named() {
        let (_, w) =
            parse("x = 1\n[worker.oci]\ncniPoolSize = 3\n[registry.\"a.b\"]\nmirror = [\"c\"]\n").unwrap();
        assert_eq!(w.len(), 3);
        assert!(w.iter().any(|w| w.contains("worker.oci.cniPoolSize")), "{w:?}");
        assert!(w.iter().any(|w| w.contains("registry.*.mirror")), "{w:?}");
    }
}
