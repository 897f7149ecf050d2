//! What the daemon is told: flags first, then the configuration file, then defaults.

use crate::config::{self, Config, ConfigError, DiskSpace, GcPolicy, Registry, Worker};
use kiln_engine::{
    DnsConfig, EngineOptions, Entitlement, GcRule, HostConfig, KeyPair, RegistryConfig, SandboxChoice,
};
use kiln_snapshot::{DriverChoice, Filter, PruneOpts};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the configuration is when nothing else is said; a missing file is fine.
pub const DEFAULT_CONFIG: &str = "/etc/kiln/kiln.toml";

/// Flags of `kiln daemon`. `None` and empty mean not given.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Configuration file; [`DEFAULT_CONFIG`] if not given.
    pub config: Option<PathBuf>,
    /// State directory.
    pub root: Option<PathBuf>,
    /// Addresses to listen on.
    pub addr: Vec<String>,
    /// End after this time without work.
    pub idle_exit: Option<Duration>,
    /// `info`, or what `RUST_LOG` takes.
    pub log_level: Option<String>,
    /// `text` or `json`.
    pub log_format: Option<String>,
    /// An OCI runtime to use instead of the embedded launcher.
    pub oci_worker_binary: Option<String>,
    /// `auto`, `overlayfs` or `native`.
    pub snapshotter: Option<String>,
    /// Steps at the same time.
    pub max_parallelism: Option<usize>,
    /// Entitlements that clients may ask for.
    pub allow_insecure_entitlements: Vec<String>,
    /// Collect garbage by itself.
    pub gc: Option<bool>,
    /// More labels of the worker.
    pub labels: BTreeMap<String, String>,
}

/// Why the daemon cannot start as told.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A value that is not one of those known.
    #[error("invalid {what} {value:?}: one of {known}")]
    Value {
        /// Which setting.
        what: &'static str,
        /// What was given.
        value: String,
        /// What may be given.
        known: &'static str,
    },
    /// A program that cannot be found.
    #[error("OCI runtime {0}: no such program")]
    Program(String),
    /// A filter of a garbage collection rule.
    #[error("gc policy: {0}")]
    Filter(#[from] kiln_snapshot::FilterError),
}

/// Everything decided.
pub(crate) struct Settings {
    pub(crate) engine: EngineOptions,
    pub(crate) addr: Vec<String>,
    pub(crate) socket_owner: (Option<u32>, Option<u32>),
    pub(crate) idle_exit: Option<Duration>,
    pub(crate) log_level: String,
    pub(crate) log_json: bool,
    pub(crate) warnings: Vec<String>,
}

impl Settings {
    /// Reads the file and joins it with the flags.
    pub(crate) fn new(o: Options) -> Result<Self, OptionsError> {
        let (file, warnings) = match &o.config {
            Some(path) => config::load(path)?,
            None => config::load_if_there(Path::new(DEFAULT_CONFIG))?,
        };
        let root = o.root.clone().or(file.root.clone()).unwrap_or_else(default_root);
        let engine = engine_options(&o, &file, root)?;
        let addr = [o.addr, file.grpc.address]
            .into_iter()
            .find(|a| !a.is_empty())
            .unwrap_or_else(|| vec![default_addr()]);
        let format = o.log_format.or(file.log.format).unwrap_or_else(|| "text".into());
        let log_json = match format.as_str() {
            "text" => false,
            "json" => true,
            _ => return Err(OptionsError::Value { what: "log format", value: format, known: "text, json" }),
        };
        let log_level = o.log_level.or(file.log.level).unwrap_or_else(|| "info".into());
        // A single word that is no level would be taken as the name of a module, and silence everything.
        if log_level.chars().all(char::is_alphanumeric)
            && log_level.parse::<tracing::level_filters::LevelFilter>().is_err()
        {
            let known = "error, warn, info, debug, trace, off";
            return Err(OptionsError::Value { what: "log level", value: log_level, known });
        }
        Ok(Self {
            engine,
            addr,
            socket_owner: (file.grpc.uid, file.grpc.gid),
            idle_exit: o.idle_exit,
            log_level,
            log_json,
            warnings,
        })
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn default_root() -> PathBuf {
    if is_root() {
        return "/var/lib/kiln".into();
    }
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let home = || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".local/share");
    data.unwrap_or_else(home).join("kiln")
}

fn default_addr() -> String {
    let dir = if is_root() {
        "/run".into()
    } else {
        // Where clients look.
        let usual = |_| format!("/run/user/{}", rustix::process::geteuid().as_raw());
        std::env::var("XDG_RUNTIME_DIR").unwrap_or_else(usual)
    };
    format!("unix://{dir}/kiln/kilnd.sock")
}

fn engine_options(o: &Options, file: &Config, root: PathBuf) -> Result<EngineOptions, OptionsError> {
    let oci = &file.worker.oci;
    let snapshotter = o.snapshotter.clone().or(oci.snapshotter.clone()).unwrap_or_else(|| "auto".into());
    let driver = match snapshotter.as_str() {
        "auto" => DriverChoice::Auto,
        "overlayfs" => DriverChoice::Overlay,
        "native" => DriverChoice::Native,
        _ => {
            return Err(OptionsError::Value {
                what: "snapshotter",
                value: snapshotter,
                known: "auto, overlayfs, native",
            });
        }
    };
    let mut allowed = Vec::new();
    for name in o.allow_insecure_entitlements.iter().chain(&file.insecure_entitlements) {
        let known = "network.host, security.insecure";
        let wrong = |_| OptionsError::Value { what: "entitlement", value: name.clone(), known };
        allowed.push(name.parse::<Entitlement>().map_err(wrong)?);
    }
    let sandbox = match o.oci_worker_binary.clone().or(oci.binary.clone()) {
        Some(binary) if !is_program(&binary) => return Err(OptionsError::Program(binary)),
        Some(binary) => SandboxChoice::OciRuntime(binary),
        None => SandboxChoice::Launcher,
    };
    let mut labels = oci.labels.clone();
    labels.extend(o.labels.clone());
    let disk = disk_size(&root);
    Ok(EngineOptions {
        driver,
        sandbox,
        allowed,
        labels,
        max_parallelism: o.max_parallelism.or(oci.max_parallelism).filter(|n| *n > 0),
        dns: DnsConfig {
            nameservers: file.dns.nameservers.clone(),
            options: file.dns.options.clone(),
            search_domains: file.dns.search_domains.clone(),
        },
        cgroup_parent: oci.default_cgroup_parent.clone(),
        registry: registries(file),
        gc: if o.gc.or(oci.gc).unwrap_or(true) { gc_rules(oci, disk)? } else { Vec::new() },
        log_limits: kiln_engine::LogLimits::from_values(
            std::env::var("BUILDKIT_STEP_LOG_MAX_SIZE").ok().as_deref(),
            std::env::var("BUILDKIT_STEP_LOG_MAX_SPEED").ok().as_deref(),
        ),
        root,
    })
}

/// Whether a path, or a name to be looked for in $PATH, leads to a file.
fn is_program(name: &str) -> bool {
    if name.contains('/') {
        return Path::new(name).is_file();
    }
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&dirs).any(|dir| dir.join(name).is_file())
}

fn registries(file: &Config) -> RegistryConfig {
    let mut config = RegistryConfig::default();
    config.client.proxies = kiln_engine::Proxies::from_env(|name| std::env::var(name).ok());
    if let Some(n) = file.system.max_registry_concurrency.filter(|n| *n > 0) {
        config.concurrency = n;
    }
    config.hosts = file.registry.iter().map(|(host, r)| (host.clone(), host_config(r))).collect();
    config
}

fn host_config(r: &Registry) -> HostConfig {
    HostConfig {
        mirrors: r.mirrors.clone(),
        http: r.http,
        insecure: r.insecure,
        ca: r.ca.clone(),
        keypairs: r.keypair.iter().map(|k| KeyPair { key: k.key.clone(), cert: k.cert.clone() }).collect(),
        tls_config_dirs: r.tlsconfigdir.clone(),
    }
}

/// Size of the disk that holds `path` (or its nearest parent that exists); 0 when unknown.
fn disk_size(path: &Path) -> u64 {
    let there = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    rustix::fs::statvfs(there).map_or(0, |s| s.f_blocks.saturating_mul(s.f_frsize))
}

/// The rules of the file, or the default ones (spec daemon-and-cli.md, "Default GC policy").
fn gc_rules(oci: &Worker, disk: u64) -> Result<Vec<GcRule>, OptionsError> {
    if !oci.gc_policy.is_empty() {
        return oci.gc_policy.iter().map(|p| rule(p, disk)).collect();
    }
    let given = |s: Option<DiskSpace>| s.map_or(0, |s| s.bytes(disk));
    let (reserved, max_used, min_free) =
        match (oci.reserved_space, oci.max_used_space, oci.min_free_space, oci.gc_keep_storage) {
            (None, None, None, Some(keep)) => (keep.bytes(disk), 0, 0),
            (None, None, None, None) => {
                let share = |percent, cap| DiskSpace::Percent(percent).bytes(disk).min(cap);
                (share(10, 10_000_000_000), share(80, 100_000_000_000), DiskSpace::Percent(20).bytes(disk))
            }
            (reserved, max_used, min_free, _) => (given(reserved), given(max_used), given(min_free)),
        };
    let days = |n: u64| Duration::from_secs(n * 24 * 3600);
    let first = ["type==source.local", "type==exec.cachemount", "type==source.git.checkout"]
        .map(String::from)
        .to_vec();
    let rest = |all, keep_duration| PruneOpts {
        all,
        keep_duration,
        reserved,
        max_used,
        min_free,
        ..PruneOpts::default()
    };
    Ok(vec![
        GcRule {
            opts: PruneOpts {
                filter: Filter::parse_all(&first)?,
                keep_duration: days(2),
                max_used: 512_000_000,
                ..PruneOpts::default()
            },
            filters: first,
        },
        GcRule { opts: rest(false, days(60)), filters: Vec::new() },
        GcRule { opts: rest(false, Duration::ZERO), filters: Vec::new() },
        GcRule { opts: rest(true, Duration::ZERO), filters: Vec::new() },
    ])
}

fn rule(p: &GcPolicy, disk: u64) -> Result<GcRule, OptionsError> {
    let given = |s: Option<DiskSpace>| s.map_or(0, |s| s.bytes(disk));
    let opts = PruneOpts {
        filter: Filter::parse_all(&p.filters)?,
        all: p.all,
        keep_duration: p.keep_duration.map(|d| d.0).unwrap_or_default(),
        reserved: given(p.reserved_space.or(p.keep_bytes)),
        max_used: given(p.max_used_space),
        min_free: given(p.min_free_space),
    };
    Ok(GcRule { opts, filters: p.filters.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_rules_are_buildkits() {
        let rules = gc_rules(&Worker::default(), 500_000_000_000).unwrap();
        assert_eq!(rules.len(), 4);
        let (r, m, f) = (rules[3].opts.reserved, rules[3].opts.max_used, rules[3].opts.min_free);
        assert_eq!((r, m, f), (10_000_000_000, 100_000_000_000, 94_000_000_000));
        let small = gc_rules(&Worker::default(), 50_000_000_000).unwrap();
        assert_eq!(
            (small[1].opts.reserved, small[1].opts.max_used, small[1].opts.min_free),
            (5_000_000_000, 38_000_000_000, 10_000_000_000)
        );
    }

    #[test]
    fn flags_win_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(
            &path,
            "root = \"/from/file\"\n[worker.oci]\nsnapshotter = \"native\"\nmax-parallelism = 3\n",
        )
        .unwrap();
        let o = Options { config: Some(path), root: Some("/from/flag".into()), ..Options::default() };
        let s = Settings::new(o.clone()).unwrap();
        assert_eq!(s.engine.root, Path::new("/from/flag"));
        assert_eq!((s.engine.max_parallelism, s.engine.driver), (Some(3), DriverChoice::Native));
        assert!(Settings::new(Options { snapshotter: Some("zfs".into()), ..o.clone() }).is_err());
        let refused = |o: Options| Settings::new(o).err().map(|e| e.to_string()).unwrap_or_default();
        let wrong = refused(Options { allow_insecure_entitlements: vec!["x".into()], ..o.clone() });
        assert_eq!(wrong, "invalid entitlement \"x\": one of network.host, security.insecure");
        let wrong = refused(Options { log_level: Some("loud".into()), ..o.clone() });
        assert!(wrong.starts_with("invalid log level \"loud\": one of error, warn"), "{wrong}");
        assert!(
            Settings::new(Options { log_level: Some("warn,kiln_daemon=debug".into()), ..o.clone() }).is_ok()
        );
        let wrong = refused(Options { oci_worker_binary: Some("no-such-runc".into()), ..o.clone() });
        assert_eq!(wrong, "OCI runtime no-such-runc: no such program");
        assert!(Settings::new(Options { oci_worker_binary: Some("sh".into()), ..o.clone() }).is_ok());
        let wrong = refused(Options { config: Some("/no/such.toml".into()), ..o });
        assert!(wrong.contains("/no/such.toml") && wrong.contains("No such file"), "{wrong}");
    }
}
