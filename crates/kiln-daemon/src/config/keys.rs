//! Names of keys: exact first, then without regard to case, as BuildKit matches them; what is left has no effect and is
//! told by name.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

const GC: [&str; 7] =
    ["all", "filters", "keepDuration", "keepBytes", "reservedSpace", "maxUsedSpace", "minFreeSpace"];
const DISK: [&str; 5] = ["gckeepstorage", "reservedSpace", "maxUsedSpace", "minFreeSpace", "keepBytes"];

/// Keys of each section; `*` stands for any name. What is below a section that is not here is not looked at.
const KNOWN: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "debug",
            "trace",
            "root",
            "insecure-entitlements",
            "proxyNetwork",
            "provenanceEnvDir",
            "log",
            "grpc",
            "otel",
            "cdi",
            "dns",
            "history",
            "system",
            "worker",
            "registry",
            "frontend",
            "cache",
            "kiln",
        ],
    ),
    ("kiln", &["drainTimeout"]),
    ("log", &["format", "level"]),
    ("grpc", &["address", "debugAddress", "uid", "gid", "securityDescriptor", "tls"]),
    ("grpc.tls", &["cert", "key", "ca"]),
    ("otel", &["socketPath"]),
    ("cdi", &["disabled", "specDirs", "autoAllowed"]),
    ("dns", &["nameservers", "options", "searchDomains"]),
    ("history", &["maxAge", "maxEntries"]),
    ("system", &["platformsCacheMaxAge", "maxRegistryConcurrency"]),
    ("worker", &["oci", "containerd"]),
    (
        "worker.oci",
        &[
            "enabled",
            "labels",
            "platforms",
            "snapshotter",
            "rootless",
            "noProcessSandbox",
            "binary",
            "proxySnapshotterPath",
            "stargzSnapshotter",
            "userRemapUnsupported",
            "apparmor-profile",
            "selinux",
            "max-parallelism",
            "defaultCgroupParent",
            "networkMode",
            "cniConfigPath",
            "cniBinaryPath",
            "cniPoolSize",
            "bridgeName",
            "bridgeSubnet",
            "gc",
            "gckeepstorage",
            "reservedSpace",
            "maxUsedSpace",
            "minFreeSpace",
            "gcpolicy",
        ],
    ),
    ("worker.oci.labels", &["*"]),
    ("worker.oci.gcpolicy", &GC),
    ("worker.containerd", &["enabled", "*"]),
    ("registry", &["*"]),
    ("registry.*", &["mirrors", "http", "insecure", "ca", "keypair", "tlsconfigdir"]),
    ("registry.*.keypair", &["key", "cert"]),
    ("frontend", &["dockerfile.v0", "gateway.v0"]),
    ("frontend.dockerfile.v0", &["enabled"]),
    ("frontend.gateway.v0", &["enabled", "allowedRepositories"]),
    ("cache", &["gha"]),
];

/// Names that guides write; BuildKit ignores them.
const MEANT: &[(&str, &str, &str)] = &[("worker.oci", "maxParallelism", "max-parallelism")];

/// Gives every key of the table its real name, and tells what has no effect or is surely not meant.
pub(super) fn settle(table: &mut DeTable<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    settle_section(table, "", "", &mut warnings);
    warnings
}

fn settle_section(table: &mut DeTable<'_>, section: &str, shown: &str, warnings: &mut Vec<String>) {
    let Some((_, known)) = KNOWN.iter().find(|(name, _)| *name == section) else { return };
    let (exact, other): (Vec<_>, Vec<_>) =
        std::mem::take(table).into_iter().partition(|(key, _)| known.contains(&key.get_ref().as_ref()));
    let disk = section == "worker.oci" || section == "worker.oci.gcpolicy";
    for (key, value) in exact {
        if disk && DISK.contains(&key.get_ref().as_ref()) {
            warnings.extend(small_amount(value.get_ref(), &join(shown, key.get_ref())));
        }
        table.insert(key, value);
    }
    for (mut key, value) in other {
        let written = key.get_ref().to_string();
        let full = join(shown, &written);
        match real_name(section, known, &written) {
            Some(name) if table.contains_key(name) => {
                warnings.push(format!("config key {full} has no effect: {} is there too", join(shown, name)));
            }
            Some(name) => {
                if !name.eq_ignore_ascii_case(&written) {
                    warnings.push(format!("config key {full}: its real name is {name}; the value is used"));
                }
                if disk && DISK.contains(&name) {
                    warnings.extend(small_amount(value.get_ref(), &full));
                }
                *key.get_mut() = name.into();
                table.insert(key, value);
            }
            None => {
                if !known.contains(&"*") {
                    warnings.push(format!("config key {full} is not known and has no effect"));
                }
                table.insert(key, value);
            }
        }
    }
    for (key, value) in table.iter_mut() {
        let key = key.get_ref().as_ref();
        let below = join(section, if known.contains(&key) { key } else { "*" });
        let shown = join(shown, key);
        match value.get_mut() {
            DeValue::Table(t) => settle_section(t, &below, &shown, warnings),
            DeValue::Array(items) => {
                for item in items.iter_mut() {
                    if let DeValue::Table(t) = item.get_mut() {
                        settle_section(t, &below, &shown, warnings);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Guides write megabytes where bytes are read.
fn small_amount(value: &DeValue<'_>, key: &str) -> Option<String> {
    let n: i64 = value.as_integer()?.as_str().parse().ok()?;
    let surely_meant = (1..1_000_000).contains(&n);
    surely_meant.then(|| {
        format!("config key {key} = {n} is {n} bytes; did you mean \"{n}MB\"? Write a unit to be sure")
    })
}

fn real_name(section: &str, known: &[&'static str], written: &str) -> Option<&'static str> {
    let same = |name: &str| name != "*" && name.eq_ignore_ascii_case(written);
    known.iter().copied().find(|name| same(name)).or_else(|| {
        let meant = MEANT.iter().find(|(s, name, _)| *s == section && same(name));
        meant.map(|(_, _, real)| *real)
    })
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}

/// The full name of the key whose value stands at byte `at` of the text.
pub(super) fn key_at(table: &DeTable<'_>, at: usize) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let below = in_value(value, at)?;
        Some(if below.is_empty() { key.get_ref().to_string() } else { join(key.get_ref(), &below) })
    })
}

/// The rest of the name below a value that stands at `at`; empty: this very value.
fn in_value(value: &Spanned<DeValue<'_>>, at: usize) -> Option<String> {
    let below = match value.get_ref() {
        DeValue::Table(t) => key_at(t, at),
        DeValue::Array(items) => items.iter().find_map(|item| in_value(item, at)),
        _ => None,
    };
    let span = value.span();
    below.or_else(|| (span.start <= at && at < span.end.max(span.start + 1)).then(String::new))
}
