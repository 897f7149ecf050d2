//! `kiln daemon`.

use crate::commands::buildkitd::BuildkitdArgs;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of the daemon. None and empty = the configuration file's, else the default.
#[derive(Args, Clone, Debug, Default)]
pub struct DaemonArgs {
    /// Configuration file; its keys are those of buildkitd.toml [default: /etc/kiln/kiln.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory for the cache and all other state [default: /var/lib/kiln]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Where to listen: unix:///run/kiln/kilnd.sock, tcp://host:port, fd:// (may be repeated)
    #[arg(long, value_name = "ADDRESS")]
    pub addr: Vec<String>,
    /// Group, by name or number, that may connect to the unix sockets
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Certificate of the daemon for tcp:// (PEM)
    #[arg(long, value_name = "FILE")]
    pub tlscert: Option<PathBuf>,
    /// Key of that certificate (PEM)
    #[arg(long, value_name = "FILE")]
    pub tlskey: Option<PathBuf>,
    /// Clients must have a certificate of this authority (PEM)
    #[arg(long, value_name = "FILE")]
    pub tlscacert: Option<PathBuf>,
    /// End after so long without work, such as 10m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub idle_exit: Option<Duration>,
    /// When told to stop, let running builds finish for so long [default: 25s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub drain_timeout: Option<Duration>,
    /// Least important messages to log: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Format of the log: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Serve numbers about the daemon over HTTP here, such as 127.0.0.1:6060
    #[arg(long, alias = "debug-addr", value_name = "ADDRESS")]
    pub debugaddr: Option<String>,
    /// What builds may ask for: network.host or security.insecure (may be repeated)
    #[arg(long, value_name = "NAME")]
    pub allow_insecure_entitlement: Vec<String>,
    /// How layers are stored: auto, overlayfs or native [default: auto]
    #[arg(long, value_name = "NAME")]
    pub oci_worker_snapshotter: Option<String>,
    /// Run steps with this OCI runtime (runc, crun) instead of the built-in launcher
    #[arg(long, value_name = "PROGRAM")]
    pub oci_worker_binary: Option<String>,
    /// Labels that the worker reports (may be repeated)
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    pub oci_worker_labels: Vec<(String, String)>,
    /// Platforms that the worker reports instead of the machine's (may be repeated)
    #[arg(long, value_name = "PLATFORM")]
    pub oci_worker_platform: Vec<String>,
    /// Network of steps: auto or host [default: auto]
    #[arg(long, value_name = "MODE")]
    pub oci_worker_net: Option<String>,
    /// Steps that run at the same time [default: no limit]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub oci_max_parallelism: Option<i64>,
    /// Remove unused cache without being asked [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = go_bool)]
    pub oci_worker_gc: Option<bool>,
    /// Cache that stays: Reserved[,Free[,Maximum]] in MB [default: depends on the disk]
    #[arg(long, value_name = "MB")]
    pub oci_worker_gc_keepstorage: Option<String>,
    /// Set when the daemon was called as buildkitd.
    #[arg(skip)]
    pub buildkitd: Option<BuildkitdArgs>,
}

fn duration(text: &str) -> Result<Duration, String> {
    match text {
        "0" => Ok(Duration::ZERO),
        _ => crate::human::parse_duration(text).ok_or_else(|| "expected a duration such as 10m".into()),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A boolean as Go's programs take it.
pub(crate) fn go_bool(text: &str) -> Result<bool, String> {
    kiln_go::parse_bool(text).ok_or_else(|| "expected true or false".into())
}
