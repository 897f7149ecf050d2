//! Everything decided: flags first, then the configuration file, then defaults.

use crate::config::{self, Config, Registry, Worker};
use crate::gc_rules::gc_rules;
use crate::listen::TlsFiles;
use crate::merge::given;
use crate::options::{Options, OptionsError};
use crate::places::{Places, Surroundings};
use crate::{merge, refuse};
use kiln_engine::{
    DeviceGrant, DnsConfig, EngineOptions, Entitlement, FrontendRules, HistoryLimits, HostConfig, KeyPair,
    RegistryConfig, SandboxChoice,
};
use kiln_oci::Platform;
use kiln_snapshot::DriverChoice;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long running builds may go on by default. With what closing takes it fits into the 30 seconds that Kubernetes
/// gives a pod; `docker stop` waits for 10 and then kills, after which nothing finished is lost.
const DRAIN: Duration = Duration::from_secs(25);

/// Where devices are described by default; later directories win.
const DEVICE_DIRS: [&str; 3] = ["/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"];

/// What the daemon does.
pub(crate) struct Settings {
    pub(crate) engine: EngineOptions,
    pub(crate) addr: Vec<String>,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) socket_owner: (Option<u32>, Option<u32>),
    pub(crate) debug_addr: Option<String>,
    pub(crate) idle_exit: Option<Duration>,
    pub(crate) drain: Duration,
    pub(crate) log_level: String,
    pub(crate) log_json: bool,
    pub(crate) warnings: Vec<String>,
}

impl Settings {
    /// Reads the file and joins it with the flags.
    pub(crate) fn new(o: Options) -> Result<Self, OptionsError> {
        let env = |name: &str| std::env::var(name).ok();
        let euid = rustix::process::geteuid();
        let surroundings = Surroundings {
            root: euid.is_root(),
            uid: euid.as_raw(),
            user_namespace: kiln_sys::caps::in_user_namespace(),
            env: &env,
        };
        Self::with(o, surroundings)
    }

    fn with(o: Options, s: Surroundings<'_>) -> Result<Self, OptionsError> {
        let usual = o.places.usual(s);
        let (mut file, mut warnings) = read_file(&o, &usual.config)?;
        merge::apply(&o, &mut file)?;
        warnings.extend(refuse::check(&o, &file, s)?);
        let root = file.root.clone().filter(|r| !r.as_os_str().is_empty()).unwrap_or(usual.root);
        let root = std::path::absolute(&root).unwrap_or(root);
        let engine = engine_options(&file, root, s)?;
        let addr = if file.grpc.address.is_empty() { vec![usual.addr] } else { file.grpc.address.clone() };
        Ok(Self {
            engine,
            addr,
            tls: TlsFiles::new(&file.grpc.tls)?,
            socket_owner: (file.grpc.uid, file.grpc.gid),
            debug_addr: given(&file.grpc.debug_address).map(str::to_string),
            idle_exit: o.idle_exit,
            drain: o.drain_timeout.or(file.kiln.drain_timeout.map(|d| d.positive())).unwrap_or(DRAIN),
            log_level: log_level(given(&file.log.level).unwrap_or("info"))?,
            log_json: log_json(given(&file.log.format).unwrap_or("text"))?,
            warnings,
        })
    }
}

/// A file that is named must be there for kiln; BuildKit does not mind, and its users pass the usual path always.
fn read_file(o: &Options, usual: &Path) -> Result<(Config, Vec<String>), OptionsError> {
    Ok(match (&o.config, o.places) {
        (Some(path), Places::Kiln) => config::load(path)?,
        (Some(path), Places::Buildkitd) => {
            let (file, mut warnings) = config::load_if_there(path)?;
            if !path.exists() && path != usual {
                warnings.push(format!("config {} is not there", path.display()));
            }
            (file, warnings)
        }
        (None, _) => config::load_if_there(usual)?,
    })
}

fn log_json(format: &str) -> Result<bool, OptionsError> {
    match format {
        "text" => Ok(false),
        "json" => Ok(true),
        _ => Err(OptionsError::Value { what: "log format", value: format.into(), known: "text, json" }),
    }
}

/// A level by the names of BuildKit's log, or what `RUST_LOG` takes.
fn log_level(level: &str) -> Result<String, OptionsError> {
    let word = level.chars().all(char::is_alphanumeric);
    let level = match level.to_ascii_lowercase().as_str() {
        "panic" | "fatal" => "error".into(),
        "warning" => "warn".into(),
        lower if word => lower.to_string(),
        _ => level.to_string(),
    };
    // A single word that is no level would be taken as the name of a module, and silence everything.
    if word && level.parse::<tracing::level_filters::LevelFilter>().is_err() {
        let known = "panic, fatal, error, warn, info, debug, trace, off";
        return Err(OptionsError::Value { what: "log level", value: level, known });
    }
    // Libraries tell every frame that they send.
    Ok(if matches!(level.as_str(), "debug" | "trace") { format!("info,kiln={level}") } else { level })
}

fn engine_options(file: &Config, root: PathBuf, s: Surroundings<'_>) -> Result<EngineOptions, OptionsError> {
    let oci = &file.worker.oci;
    let disk = disk_size(&root);
    let env = |name: &str| (s.env)(name);
    Ok(EngineOptions {
        driver: driver(oci)?,
        sandbox: sandbox(oci)?,
        proxy_network: file.proxy_network,
        allowed: entitlements(file)?,
        devices: devices(&file.cdi),
        labels: oci.labels.clone(),
        platforms: platforms(&oci.platforms)?,
        max_parallelism: oci.max_parallelism.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0),
        dns: DnsConfig {
            nameservers: file.dns.nameservers.clone(),
            options: file.dns.options.clone(),
            search_domains: file.dns.search_domains.clone(),
        },
        cgroup_parent: given(&oci.default_cgroup_parent).map(str::to_string),
        registry: registries(file, s)?,
        gc: gc_rules(oci, disk)?,
        log_limits: kiln_engine::LogLimits::from_values(
            env("BUILDKIT_STEP_LOG_MAX_SIZE").as_deref(),
            env("BUILDKIT_STEP_LOG_MAX_SPEED").as_deref(),
        ),
        history: history_limits(&file.history),
        gateway: Arc::new(kiln_gateway::StdioGateway),
        frontends: FrontendRules {
            dockerfile: file.frontend.dockerfile.enabled.unwrap_or(true),
            gateway: file.frontend.gateway.enabled.unwrap_or(true),
            allowed_repositories: file.frontend.gateway.allowed_repositories.clone(),
        },
        root,
    })
}

/// `[history]`: when one limit is set and the other is not, the other is 0 and only the first counts, as in BuildKit.
fn history_limits(h: &config::History) -> HistoryLimits {
    if h.max_age.is_none() && h.max_entries.is_none() {
        return HistoryLimits::default();
    }
    HistoryLimits {
        max_age: h.max_age.map_or(Duration::ZERO, |age| age.positive()),
        max_entries: h.max_entries.map_or(0, |n| usize::try_from(n).unwrap_or(0)),
    }
}

fn driver(oci: &Worker) -> Result<DriverChoice, OptionsError> {
    match given(&oci.snapshotter).unwrap_or("auto") {
        "auto" => Ok(DriverChoice::Auto),
        "overlayfs" => Ok(DriverChoice::Overlay),
        "native" => Ok(DriverChoice::Native),
        other => {
            let known = "auto, overlayfs, native";
            Err(OptionsError::Value { what: "snapshotter", value: other.into(), known })
        }
    }
}

fn sandbox(oci: &Worker) -> Result<SandboxChoice, OptionsError> {
    match given(&oci.binary) {
        Some(binary) if !is_program(binary) => Err(OptionsError::Program(binary.into())),
        Some(binary) => Ok(SandboxChoice::OciRuntime(binary.into())),
        None => Ok(SandboxChoice::Launcher),
    }
}

fn entitlements(file: &Config) -> Result<Vec<Entitlement>, OptionsError> {
    let names = file.insecure_entitlements.iter();
    let parsed = names.map(|name| name.parse::<Entitlement>().map_err(OptionsError::Invalid));
    let mut allowed = parsed.collect::<Result<Vec<_>, _>>()?;
    // Who offers devices lets them be asked for.
    if file.cdi.disabled != Some(true) {
        allowed.push(Entitlement::Device(DeviceGrant::All));
    }
    Ok(allowed)
}

/// `[cdi]`
fn devices(cdi: &config::Cdi) -> kiln_cdi::Registry {
    if cdi.disabled == Some(true) {
        return kiln_cdi::Registry::default();
    }
    let dirs: Vec<PathBuf> = match cdi.spec_dirs.as_slice() {
        [] => DEVICE_DIRS.iter().map(PathBuf::from).collect(),
        given => given.iter().map(PathBuf::from).collect(),
    };
    kiln_cdi::Registry::new(dirs, cdi.auto_allowed.clone())
}

fn platforms(names: &[String]) -> Result<Vec<Platform>, OptionsError> {
    let wrong = |name, e| OptionsError::Invalid(format!("invalid platforms: {name}: {e}"));
    names.iter().map(|name| Platform::parse(name).map_err(|e| wrong(name, e))).collect()
}

/// Whether a path, or a name to be looked for in $PATH, leads to a file.
fn is_program(name: &str) -> bool {
    if name.contains('/') {
        return Path::new(name).is_file();
    }
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&dirs).any(|dir| dir.join(name).is_file())
}

fn registries(file: &Config, s: Surroundings<'_>) -> Result<RegistryConfig, OptionsError> {
    let mut config = RegistryConfig::default();
    config.client.proxies = kiln_engine::Proxies::from_env(|name| (s.env)(name));
    if let Some(n) = file.system.max_registry_concurrency {
        let wrong = || {
            let rule = "maxRegistryConcurrency must be greater than zero";
            OptionsError::Invalid(format!("{rule}; set to {n} in the configuration file"))
        };
        config.concurrency = usize::try_from(n).ok().filter(|n| *n > 0).ok_or_else(wrong)?;
    }
    config.hosts = file.registry.iter().map(|(host, r)| (host.clone(), host_config(r))).collect();
    Ok(config)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::OciOptions;

    fn options(text: &str) -> (tempfile::TempDir, Options) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        (dir, Options { config: Some(path), ..Options::default() })
    }

    fn refused(o: Options) -> String {
        Settings::new(o).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let text = "root = \"/from/file\"\n[worker.oci]\nsnapshotter = \"native\"\nmax-parallelism = 3\n\
                    platforms = [\"linux/arm64\"]\n[kiln]\ndrainTimeout = 7\n";
        let (_dir, o) = options(text);
        let s = Settings::new(o.clone()).unwrap();
        assert_eq!((s.engine.root.as_path(), s.drain), (Path::new("/from/file"), Duration::from_secs(7)));
        assert_eq!(s.engine.platforms[0].architecture, "arm64");
        let o = Options {
            root: Some("/from/flag".into()),
            drain_timeout: Some(Duration::ZERO),
            places: Places::Buildkitd,
            ..o
        };
        let s = Settings::new(o).unwrap();
        assert_eq!((s.engine.root.as_path(), s.drain), (Path::new("/from/flag"), Duration::ZERO));
        assert_eq!((s.engine.max_parallelism, s.engine.driver), (Some(3), DriverChoice::Native));
        let face =
            Options { places: Places::Buildkitd, config: Some("/no/such.toml".into()), ..Options::default() };
        let s = Settings::new(face).unwrap();
        assert!(s.warnings.iter().any(|w| w == "config /no/such.toml is not there"), "{:?}", s.warnings);
        assert!(s.engine.root.ends_with("buildkit") && s.drain == DRAIN);
    }

    #[test]
    fn values_that_cannot_be_are_named() {
        let (_dir, o) = options("");
        let oci = |oci| Options { oci, ..o.clone() };
        assert!(Settings::new(o.clone()).is_ok());
        let zfs = OciOptions { snapshotter: Some("zfs".into()), ..OciOptions::default() };
        assert_eq!(refused(oci(zfs)), "invalid snapshotter \"zfs\": one of auto, overlayfs, native");
        let wrong = refused(Options { allow_insecure_entitlements: vec!["x".into()], ..o.clone() });
        assert_eq!(wrong, "invalid entitlement : x");
        let wrong = refused(Options { log_level: Some("loud".into()), ..o.clone() });
        assert!(wrong.starts_with("invalid log level \"loud\": one of panic, fatal, error, warn"), "{wrong}");
        let wrong = refused(Options { log_format: Some("xml".into()), ..o.clone() });
        assert_eq!(wrong, "invalid log format \"xml\": one of text, json");
        for good in ["warn,kiln_daemon=debug", "Warning", "fatal"] {
            assert!(Settings::new(Options { log_level: Some(good.into()), ..o.clone() }).is_ok(), "{good}");
        }
        assert_eq!(log_level("DEBUG").unwrap(), "info,kiln=debug");
        assert_eq!(log_level("warning").unwrap(), "warn");
        let runc = OciOptions { binary: Some("no-such-runc".into()), ..OciOptions::default() };
        assert_eq!(refused(oci(runc)), "OCI runtime no-such-runc: no such program");
        let sh = OciOptions { binary: Some("sh".into()), ..OciOptions::default() };
        assert!(Settings::new(oci(sh)).is_ok());
        let platform = OciOptions { platforms: vec!["a/b/c/d/e".into()], ..OciOptions::default() };
        assert!(refused(oci(platform)).starts_with("invalid platforms: a/b/c/d/e: "));
        let (_dir, o) = options("[system]\nmaxRegistryConcurrency = 0\n");
        assert!(refused(o.clone()).contains("must be greater than zero; set to 0 in"));
        let wrong = refused(Options { config: Some("/no/such.toml".into()), ..o });
        assert!(wrong.contains("/no/such.toml") && wrong.contains("No such file"), "{wrong}");
    }

    #[test]
    fn tls_needs_both_files() {
        let (_dir, o) = options("[grpc.tls]\ncert = \"/c.pem\"\n");
        assert_eq!(refused(o.clone()), "you must specify key and cert file if one is specified");
        let s = Settings::new(Options { tls_key: Some("/k.pem".into()), ..o }).unwrap();
        assert!(s.tls.is_some());
    }
}
