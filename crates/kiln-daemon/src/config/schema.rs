//! The sections of the file. Fields are named as its keys; `None` and empty mean not written.

use super::values::{DiskSpace, GoDuration};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Config {
    /// Old spelling of `log.level = "debug"`.
    pub(crate) debug: bool,
    /// Old spelling of `log.level = "trace"`.
    pub(crate) trace: bool,
    /// State directory.
    pub(crate) root: Option<PathBuf>,
    /// Entitlements that clients may ask for.
    #[serde(rename = "insecure-entitlements")]
    pub(crate) insecure_entitlements: Vec<String>,
    pub(crate) proxy_network: bool,
    pub(crate) provenance_env_dir: Option<String>,
    pub(crate) log: Log,
    pub(crate) grpc: Grpc,
    pub(crate) otel: Otel,
    pub(crate) cdi: Cdi,
    pub(crate) dns: Dns,
    pub(crate) history: History,
    pub(crate) system: System,
    pub(crate) worker: Workers,
    pub(crate) registry: BTreeMap<String, Registry>,
    pub(crate) frontend: Frontends,
    pub(crate) cache: Cache,
    pub(crate) kiln: Kiln,
}

/// `[kiln]`: what BuildKit has no setting for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Kiln {
    /// How long running builds may go on when the daemon is told to stop.
    pub(crate) drain_timeout: Option<GoDuration>,
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
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Grpc {
    /// Listen addresses.
    pub(crate) address: Vec<String>,
    /// Where metrics are served.
    pub(crate) debug_address: Option<String>,
    /// Owner of the socket.
    pub(crate) uid: Option<u32>,
    /// Group of the socket.
    pub(crate) gid: Option<u32>,
    pub(crate) security_descriptor: Option<String>,
    pub(crate) tls: Tls,
}

/// `[grpc.tls]`: PEM files.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Tls {
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    /// Clients must have a certificate of this authority.
    pub(crate) ca: Option<PathBuf>,
}

/// `[otel]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Otel {
    pub(crate) socket_path: Option<String>,
}

/// `[cdi]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Cdi {
    pub(crate) disabled: Option<bool>,
    pub(crate) spec_dirs: Vec<String>,
    pub(crate) auto_allowed: Vec<String>,
}

/// `[dns]`: what steps see in `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Dns {
    pub(crate) nameservers: Vec<String>,
    pub(crate) options: Vec<String>,
    pub(crate) search_domains: Vec<String>,
}

/// `[history]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct History {
    /// Records older than this go.
    pub(crate) max_age: Option<GoDuration>,
    /// Records beyond this number go.
    pub(crate) max_entries: Option<i64>,
}

/// `[system]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct System {
    pub(crate) platforms_cache_max_age: Option<GoDuration>,
    /// Requests at a time to one registry.
    pub(crate) max_registry_concurrency: Option<i64>,
}

/// `[worker]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Workers {
    pub(crate) oci: Worker,
    pub(crate) containerd: Containerd,
}

/// `[worker.oci]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Worker {
    pub(crate) enabled: Option<bool>,
    /// More labels of the worker.
    pub(crate) labels: BTreeMap<String, String>,
    /// Platforms to report instead of the machine's.
    pub(crate) platforms: Vec<String>,
    /// `auto`, `overlayfs` or `native`.
    pub(crate) snapshotter: Option<String>,
    pub(crate) rootless: bool,
    pub(crate) no_process_sandbox: bool,
    /// An OCI runtime to use instead of the embedded launcher.
    pub(crate) binary: Option<String>,
    pub(crate) proxy_snapshotter_path: Option<String>,
    pub(crate) stargz_snapshotter: toml::Table,
    pub(crate) user_remap_unsupported: Option<String>,
    #[serde(rename = "apparmor-profile")]
    pub(crate) apparmor_profile: Option<String>,
    pub(crate) selinux: bool,
    /// Steps at the same time; 0 is no limit.
    #[serde(rename = "max-parallelism")]
    pub(crate) max_parallelism: Option<i64>,
    /// Parent of the steps' cgroups.
    pub(crate) default_cgroup_parent: Option<String>,
    pub(crate) network_mode: Option<String>,
    pub(crate) cni_config_path: Option<String>,
    pub(crate) cni_binary_path: Option<String>,
    pub(crate) cni_pool_size: Option<i64>,
    pub(crate) bridge_name: Option<String>,
    pub(crate) bridge_subnet: Option<String>,
    /// Collect garbage by itself.
    pub(crate) gc: Option<bool>,
    /// Old name of `reservedSpace`, used when none of the three is set.
    pub(crate) gckeepstorage: Option<DiskSpace>,
    /// Kept whatever its age.
    pub(crate) reserved_space: Option<DiskSpace>,
    /// The cap.
    pub(crate) max_used_space: Option<DiskSpace>,
    /// Left free on the disk.
    pub(crate) min_free_space: Option<DiskSpace>,
    /// Replaces the default rules.
    pub(crate) gcpolicy: Vec<GcPolicy>,
}

/// `[worker.containerd]`: there is none, so only this key is looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Containerd {
    pub(crate) enabled: Option<bool>,
    /// Everything else that is written there.
    #[serde(flatten)]
    pub(crate) rest: BTreeMap<String, toml::Value>,
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
    pub(crate) keep_duration: GoDuration,
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

/// `[frontend]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Frontends {
    #[serde(rename = "dockerfile.v0")]
    pub(crate) dockerfile: DockerfileFrontend,
    #[serde(rename = "gateway.v0")]
    pub(crate) gateway: GatewayFrontend,
}

/// `[frontend."dockerfile.v0"]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DockerfileFrontend {
    pub(crate) enabled: Option<bool>,
}

/// `[frontend."gateway.v0"]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct GatewayFrontend {
    pub(crate) enabled: Option<bool>,
    /// Frontend images must come from one of these; empty: from anywhere.
    pub(crate) allowed_repositories: Vec<String>,
}

/// `[cache]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Cache {
    /// Signed GitHub cache.
    pub(crate) gha: Option<toml::Table>,
}
