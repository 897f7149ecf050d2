//! The command line of BuildKit's daemon (spec daemon-and-cli.md section 1): kiln's flags and those that say nothing
//! new to it. Which of them can be honoured, the daemon decides.

use crate::commands::daemon::{DaemonArgs, go_bool};
use clap::{Args, CommandFactory, FromArgMatches, Parser};
use std::ffi::OsString;

/// BuildKit's daemon.
#[derive(Debug, Parser)]
#[command(
    name = "buildkitd",
    about = "build daemon",
    max_term_width = 110,
    args_override_self = true,
    disable_version_flag = true
)]
struct Buildkitd {
    #[command(flatten)]
    daemon: DaemonArgs,
    #[command(flatten)]
    compat: BuildkitdArgs,
}

/// Flags that only BuildKit's daemon has.
#[derive(Args, Clone, Debug, Default)]
pub struct BuildkitdArgs {
    /// Print the version
    #[arg(short = 'v', long)]
    pub version: bool,
    /// Old spelling of --log-level=debug
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = go_bool, value_name = "BOOL")]
    pub debug: Option<bool>,
    /// Old spelling of --log-level=trace
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = go_bool)]
    pub trace: Option<bool>,
    /// Defaults for a user namespace
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = go_bool)]
    pub rootless: Option<bool>,
    /// Proxied network for every build
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = go_bool)]
    pub proxy_network: Option<bool>,
    /// Socket for traces of steps
    #[arg(long, hide = true)]
    pub otel_socket_path: Option<String>,
    /// No devices
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = go_bool)]
    pub cdi_disabled: Option<bool>,
    /// Where devices are described
    #[arg(long, hide = true)]
    pub cdi_spec_dir: Vec<String>,
    /// Keep a log of what was hashed
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = go_bool)]
    pub save_cache_debug: Option<bool>,
    /// The one worker that there is
    #[arg(long, hide = true)]
    pub oci_worker: Option<String>,
    /// Socket of a foreign snapshotter
    #[arg(long, hide = true)]
    pub oci_worker_proxy_snapshotter_path: Option<String>,
    /// Of CNI
    #[arg(long, hide = true)]
    pub oci_cni_config_path: Option<String>,
    /// Of CNI
    #[arg(long, hide = true)]
    pub oci_cni_binary_dir: Option<String>,
    /// Of CNI
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub oci_cni_pool_size: Option<i64>,
    /// A profile for steps
    #[arg(long, hide = true)]
    pub oci_worker_apparmor_profile: Option<String>,
    /// Labels for steps
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = go_bool)]
    pub oci_worker_selinux: Option<bool>,
    /// In a user namespace
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = go_bool)]
    pub oci_worker_rootless: Option<bool>,
    /// Steps see the daemon's processes
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = go_bool)]
    pub oci_worker_no_process_sandbox: Option<bool>,
    /// The worker that there is not
    #[arg(long, hide = true)]
    pub containerd_worker: Option<String>,
    /// Its settings.
    #[command(flatten)]
    pub containerd: ContainerdArgs,
}

/// Settings of the containerd worker. There is none, so that they were given is all that counts.
#[derive(Args, Clone, Debug, Default)]
pub struct ContainerdArgs {
    #[arg(long, hide = true)]
    containerd_worker_addr: Option<String>,
    #[arg(long, hide = true)]
    containerd_worker_labels: Vec<String>,
    #[arg(long, hide = true)]
    containerd_worker_platform: Vec<String>,
    #[arg(long, hide = true)]
    containerd_worker_namespace: Option<String>,
    #[arg(long, hide = true)]
    containerd_worker_runtime: Option<String>,
    #[arg(long, hide = true)]
    containerd_worker_net: Option<String>,
    #[arg(long, hide = true)]
    containerd_cni_config_path: Option<String>,
    #[arg(long, hide = true)]
    containerd_cni_binary_dir: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    containerd_cni_pool_size: Option<i64>,
    #[arg(long, hide = true)]
    containerd_worker_snapshotter: Option<String>,
    #[arg(long, hide = true)]
    containerd_worker_apparmor_profile: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = go_bool)]
    containerd_worker_selinux: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = go_bool)]
    containerd_worker_rootless: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = go_bool)]
    containerd_worker_gc: Option<bool>,
    #[arg(long, hide = true)]
    containerd_worker_gc_keepstorage: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    containerd_max_parallelism: Option<i64>,
}

impl ContainerdArgs {
    /// Names of the flags that were given.
    pub fn given(&self) -> Vec<String> {
        let all = [
            (self.containerd_worker_addr.is_some(), "containerd-worker-addr"),
            (!self.containerd_worker_labels.is_empty(), "containerd-worker-labels"),
            (!self.containerd_worker_platform.is_empty(), "containerd-worker-platform"),
            (self.containerd_worker_namespace.is_some(), "containerd-worker-namespace"),
            (self.containerd_worker_runtime.is_some(), "containerd-worker-runtime"),
            (self.containerd_worker_net.is_some(), "containerd-worker-net"),
            (self.containerd_cni_config_path.is_some(), "containerd-cni-config-path"),
            (self.containerd_cni_binary_dir.is_some(), "containerd-cni-binary-dir"),
            (self.containerd_cni_pool_size.is_some(), "containerd-cni-pool-size"),
            (self.containerd_worker_snapshotter.is_some(), "containerd-worker-snapshotter"),
            (self.containerd_worker_apparmor_profile.is_some(), "containerd-worker-apparmor-profile"),
            (self.containerd_worker_selinux.is_some(), "containerd-worker-selinux"),
            (self.containerd_worker_rootless.is_some(), "containerd-worker-rootless"),
            (self.containerd_worker_gc.is_some(), "containerd-worker-gc"),
            (self.containerd_worker_gc_keepstorage.is_some(), "containerd-worker-gc-keepstorage"),
            (self.containerd_max_parallelism.is_some(), "containerd-max-parallelism"),
        ];
        all.iter().filter(|(given, _)| *given).map(|(_, name)| format!("--{name}")).collect()
    }
}

/// Reads the command line, in which flags may begin with one dash or two.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<DaemonArgs, clap::Error> {
    let env = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let matches = command().try_get_matches_from(args.into_iter().map(two_dashes))?;
    let Buildkitd { mut daemon, compat } = Buildkitd::from_arg_matches(&matches)?;
    daemon.log_level = daemon.log_level.or_else(|| env("BUILDKITD_LOG_LEVEL"));
    daemon.debugaddr = daemon.debugaddr.or_else(|| env("BUILDKITD_DEBUGADDR"));
    daemon.buildkitd = Some(compat);
    Ok(daemon)
}

/// The flags that both have, with BuildKit's usual places in their help.
fn command() -> clap::Command {
    Buildkitd::command()
        .mut_arg("config", |a| a.help("Configuration file [default: /etc/buildkit/buildkitd.toml]"))
        .mut_arg("root", |a| {
            a.help("Directory for the cache and all other state [default: /var/lib/buildkit]")
        })
        .mut_arg("addr", |a| {
            let help = "Where to listen: unix://, tcp://host:port, fd:// (may be repeated) \
                        [default: unix:///run/buildkit/buildkitd.sock]";
            a.help(help)
        })
}

fn two_dashes(arg: OsString) -> OsString {
    match arg.to_str().and_then(|a| a.strip_prefix('-')) {
        Some(name) if name.len() > 1 && name.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            format!("--{name}").into()
        }
        _ => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<DaemonArgs, String> {
        let args = std::iter::once("buildkitd").chain(line.split_whitespace());
        parse(args.map(OsString::from)).map_err(|e| e.to_string())
    }

    #[test]
    fn one_dash_or_two_and_the_last_one_counts() {
        let args = parsed("-addr unix:///a --addr=tcp://:1 -root=/a --root /b --debug -oci-worker-gc=false")
            .unwrap();
        assert_eq!(args.addr, ["unix:///a", "tcp://:1"]);
        assert_eq!(args.root.unwrap(), std::path::Path::new("/b"));
        assert_eq!((args.oci_worker_gc, args.buildkitd.unwrap().debug), (Some(false), Some(true)));
        assert!(parsed("-v").unwrap().buildkitd.unwrap().version);
        assert!(parsed("--version").unwrap().buildkitd.unwrap().version);
    }

    /// Every flag of the table is taken.
    #[test]
    fn every_flag_of_buildkitd_is_known() {
        let line = "--config /c --root /r --addr unix:///s --log-level info --log-format json --debug --trace --group 0 \
             --debugaddr :6060 --debug-addr :6061 --tlscert c --tlskey k --tlscacert a --allow-insecure-entitlement device \
             --proxy-network=false --rootless --otel-socket-path /s --cdi-disabled --cdi-spec-dir /d --save-cache-debug=0 \
             --oci-worker auto --oci-worker-labels a=b --oci-worker-platform linux/amd64 --oci-worker-snapshotter auto \
             --oci-worker-proxy-snapshotter-path /p --oci-worker-net host --oci-cni-config-path /c --oci-cni-binary-dir /b \
             --oci-cni-pool-size 1 --oci-worker-binary runc --oci-worker-apparmor-profile p --oci-worker-selinux \
             --oci-max-parallelism -1 --oci-worker-rootless --oci-worker-no-process-sandbox --oci-worker-gc \
             --oci-worker-gc-keepstorage 1,2,3 --containerd-worker=false --containerd-worker-addr /a \
             --containerd-worker-labels a=b --containerd-worker-platform p --containerd-worker-namespace n \
             --containerd-worker-runtime r --containerd-worker-net auto --containerd-cni-config-path c \
             --containerd-cni-binary-dir b --containerd-cni-pool-size 0 --containerd-worker-snapshotter s \
             --containerd-worker-apparmor-profile p --containerd-worker-selinux --containerd-worker-rootless=false \
             --containerd-worker-gc --containerd-worker-gc-keepstorage 1 --containerd-max-parallelism 0";
        let args = parsed(line).unwrap();
        assert_eq!(args.debugaddr.as_deref(), Some(":6061"));
        assert_eq!(args.oci_max_parallelism, Some(-1));
        assert_eq!(args.buildkitd.unwrap().containerd.given().len(), 16);
        assert!(parsed("--no-such-flag").unwrap_err().contains("--no-such-flag"));
        assert!(parsed("--debug=maybe").unwrap_err().contains("expected true or false"));
    }
}
