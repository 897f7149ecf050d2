//! `kiln daemon`.

use clap::{Args, Parser};
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
    /// Socket to listen on, such as unix:///run/kiln/kilnd.sock (may be repeated)
    #[arg(long, value_name = "ADDRESS")]
    pub addr: Vec<String>,
    /// End after so long without work, such as 10m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub idle_exit: Option<Duration>,
    /// Least important messages to log: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Format of the log: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
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
    /// Steps that run at the same time [default: no limit]
    #[arg(long, value_name = "N")]
    pub oci_max_parallelism: Option<usize>,
    /// Remove unused cache without being asked [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub oci_worker_gc: Option<bool>,
}

/// BuildKit's daemon: its flags, its usual places.
#[derive(Debug, Parser)]
#[command(name = "buildkitd", max_term_width = 110)]
pub(crate) struct Buildkitd {
    #[command(flatten)]
    daemon: DaemonArgs,
    #[command(flatten)]
    compat: CompatArgs,
}

/// Flags of BuildKit's daemon that say nothing new to kiln's.
#[derive(Args, Debug)]
struct CompatArgs {
    /// Old spelling of --log-level=debug
    #[arg(long, hide = true)]
    debug: bool,
    /// The one worker that there is
    #[arg(long, value_name = "BOOL", hide = true)]
    oci_worker: Option<String>,
    /// There is no containerd worker
    #[arg(long, value_name = "BOOL", hide = true)]
    containerd_worker: Option<String>,
}

impl Buildkitd {
    /// With BuildKit's usual places for what is not given.
    pub(crate) fn args(self) -> DaemonArgs {
        let mut args = self.daemon;
        if self.compat.debug && args.log_level.is_none() {
            args.log_level = Some("debug".into());
        }
        args.root = args.root.or_else(|| Some("/var/lib/buildkit".into()));
        if args.addr.is_empty() {
            args.addr = vec!["unix:///run/buildkit/buildkitd.sock".into()];
        }
        args
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::human::parse_duration(text).ok_or_else(|| "expected a duration such as 10m".into())
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
