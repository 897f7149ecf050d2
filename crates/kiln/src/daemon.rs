//! The daemon as the command line sees it.

use futures::future::{BoxFuture, FutureExt};
use kiln_cli::DaemonArgs;
use kiln_daemon::{DaemonError, InProcess, OciOptions, Options, Places};
use std::ffi::OsString;
use std::process::ExitCode;
use tokio::io::DuplexStream;

/// Bytes in flight between client and daemon in one process.
const PIPE: usize = 1 << 20;

/// `--daemonless` makes this process the daemon too, whose mounts must not be seen outside.
pub(crate) fn isolate_if_daemonless(args: &[OsString]) -> Result<(), ExitCode> {
    let daemonless = args.iter().take_while(|a| *a != "--").any(|a| a == "--daemonless");
    if daemonless { kiln_daemon::isolate().map_err(|e| report(&e)) } else { Ok(()) }
}

/// `kiln daemon` and `buildkitd`
pub(crate) fn run(args: DaemonArgs) -> ExitCode {
    let face = args.buildkitd.is_some();
    if args.buildkitd.as_ref().is_some_and(|b| b.version) {
        return print_version();
    }
    match kiln_daemon::run(options(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if face => report_as_buildkitd(&error),
        Err(error) => report(&error),
    }
}

fn options(args: DaemonArgs) -> Options {
    let places = if args.buildkitd.is_some() { Places::Buildkitd } else { Places::Kiln };
    let compat = args.buildkitd.unwrap_or_default();
    let oci = OciOptions {
        enabled: compat.oci_worker,
        labels: args.oci_worker_labels.into_iter().collect(),
        platforms: args.oci_worker_platform,
        snapshotter: args.oci_worker_snapshotter,
        proxy_snapshotter_path: compat.oci_worker_proxy_snapshotter_path,
        network: args.oci_worker_net,
        cni_config_path: compat.oci_cni_config_path,
        cni_binary_dir: compat.oci_cni_binary_dir,
        cni_pool_size: compat.oci_cni_pool_size,
        binary: args.oci_worker_binary,
        apparmor_profile: compat.oci_worker_apparmor_profile,
        selinux: compat.oci_worker_selinux,
        max_parallelism: args.oci_max_parallelism,
        rootless: compat.oci_worker_rootless,
        no_process_sandbox: compat.oci_worker_no_process_sandbox,
        gc: args.oci_worker_gc,
        gc_keepstorage: args.oci_worker_gc_keepstorage,
    };
    Options {
        places,
        config: args.config,
        root: args.root,
        addr: args.addr,
        idle_exit: args.idle_exit,
        drain_timeout: args.drain_timeout,
        log_level: args.log_level,
        log_format: args.log_format,
        debug: compat.debug.unwrap_or(false),
        trace: compat.trace.unwrap_or(false),
        group: args.group,
        debug_addr: args.debugaddr,
        tls_cert: args.tlscert,
        tls_key: args.tlskey,
        tls_ca: args.tlscacert,
        allow_insecure_entitlements: args.allow_insecure_entitlement,
        proxy_network: compat.proxy_network,
        rootless: compat.rootless,
        otel_socket_path: compat.otel_socket_path,
        cdi_disabled: compat.cdi_disabled,
        cdi_spec_dirs: compat.cdi_spec_dir,
        save_cache_debug: compat.save_cache_debug.unwrap_or(false),
        oci,
        containerd_worker: compat.containerd_worker,
        containerd_flags: compat.containerd.given(),
    }
}

#[allow(clippy::print_stdout)] // what was asked for
fn print_version() -> ExitCode {
    println!("{}", kiln_daemon::version_line());
    ExitCode::SUCCESS
}

/// `--daemonless`
pub(crate) fn in_process(settings: kiln_cli::InProcess) -> BoxFuture<'static, Result<DuplexStream, String>> {
    let options = Options {
        root: settings.root,
        // Which devices a build may use is between it and its client.
        allow_insecure_entitlements: settings
            .entitlements
            .into_iter()
            .filter(|e| !e.starts_with("device"))
            .collect(),
        log_level: Some("warn".into()),
        ..Options::default()
    };
    async move {
        let daemon = InProcess::new(options).map_err(|e| e.to_string())?;
        let (client, server) = tokio::io::duplex(PIPE);
        daemon.start(server).await.map_err(|e| e.to_string())?;
        Ok(client)
    }
    .boxed()
}

#[allow(clippy::print_stderr)] // before anything else can report
fn report(error: &DaemonError) -> ExitCode {
    eprintln!("{}", kiln_cli::error::readable(&format!("error: {error}")));
    match error {
        DaemonError::Locked(_) => ExitCode::from(kiln_cli::STATE_IN_USE),
        _ => ExitCode::FAILURE,
    }
}

#[allow(clippy::print_stderr)] // before anything else can report
fn report_as_buildkitd(error: &DaemonError) -> ExitCode {
    eprintln!("{}", kiln_cli::error::readable(&format!("buildkitd: {error}")));
    ExitCode::FAILURE
}
