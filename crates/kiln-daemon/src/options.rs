//! What the daemon is told on its command line. `None`, false and empty mean not given.

use crate::config::ConfigError;
use crate::places::Places;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Flags of `kiln daemon` and of `buildkitd`. They win over the configuration file.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whose usual places count for what is not given.
    pub places: Places,
    /// Configuration file.
    pub config: Option<PathBuf>,
    /// State directory.
    pub root: Option<PathBuf>,
    /// Addresses to listen on.
    pub addr: Vec<String>,
    /// End after this time without work.
    pub idle_exit: Option<Duration>,
    /// How long running builds may go on when the daemon is told to stop.
    pub drain_timeout: Option<Duration>,
    /// A level, or what `RUST_LOG` takes.
    pub log_level: Option<String>,
    /// `text` or `json`.
    pub log_format: Option<String>,
    /// Old spellings of the log level.
    pub debug: bool,
    /// Old spelling of the log level.
    pub trace: bool,
    /// Owner group of unix sockets: a name or a number.
    pub group: Option<String>,
    /// Where metrics are served over HTTP.
    pub debug_addr: Option<String>,
    /// PEM file.
    pub tls_cert: Option<PathBuf>,
    /// PEM file.
    pub tls_key: Option<PathBuf>,
    /// PEM file; clients must have a certificate of this authority.
    pub tls_ca: Option<PathBuf>,
    /// Entitlements that clients may ask for.
    pub allow_insecure_entitlements: Vec<String>,
    /// Proxied network for every build.
    pub proxy_network: Option<bool>,
    /// Defaults for a user namespace.
    pub rootless: Option<bool>,
    /// Socket for traces of steps.
    pub otel_socket_path: Option<String>,
    /// No devices.
    pub cdi_disabled: Option<bool>,
    /// Where devices are described.
    pub cdi_spec_dirs: Vec<String>,
    /// Keep a log of what was hashed.
    pub save_cache_debug: bool,
    /// Flags of the OCI worker.
    pub oci: OciOptions,
    /// `--containerd-worker`.
    pub containerd_worker: Option<String>,
    /// Names of the other flags of the containerd worker that were given.
    pub containerd_flags: Vec<String>,
}

/// Flags of the worker.
#[derive(Clone, Debug, Default)]
pub struct OciOptions {
    /// `true`, `false` or `auto`.
    pub enabled: Option<String>,
    /// More labels.
    pub labels: BTreeMap<String, String>,
    /// Platforms to report instead of the machine's.
    pub platforms: Vec<String>,
    /// `auto`, `overlayfs` or `native`.
    pub snapshotter: Option<String>,
    /// Socket of a foreign snapshotter.
    pub proxy_snapshotter_path: Option<String>,
    /// `auto` or `host`.
    pub network: Option<String>,
    /// Of CNI.
    pub cni_config_path: Option<String>,
    /// Of CNI.
    pub cni_binary_dir: Option<String>,
    /// Of CNI.
    pub cni_pool_size: Option<i64>,
    /// An OCI runtime to use instead of the embedded launcher.
    pub binary: Option<String>,
    /// A profile for steps.
    pub apparmor_profile: Option<String>,
    /// Labels for steps.
    pub selinux: Option<bool>,
    /// Steps at the same time; 0 and less: no limit.
    pub max_parallelism: Option<i64>,
    /// In a user namespace.
    pub rootless: Option<bool>,
    /// Steps see the daemon's processes.
    pub no_process_sandbox: Option<bool>,
    /// Collect garbage by itself.
    pub gc: Option<bool>,
    /// `Reserved[,Free[,Maximum]]` in units of 10^6 bytes.
    pub gc_keepstorage: Option<String>,
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
    /// What cannot be read or does not go together.
    #[error("{0}")]
    Invalid(String),
    /// Something of BuildKit that kiln does not have.
    #[error("{setting}: {why}")]
    NotThere {
        /// Flag or key, and its value.
        setting: String,
        /// What is missing.
        why: &'static str,
    },
    /// A program that cannot be found.
    #[error("OCI runtime {0}: no such program")]
    Program(String),
    /// A filter of a garbage collection rule.
    #[error("gc policy: {0}")]
    Filter(#[from] kiln_snapshot::FilterError),
}
