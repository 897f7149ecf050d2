//! The daemon as the command line sees it.

use futures::future::{BoxFuture, FutureExt};
use kiln_cli::DaemonArgs;
use kiln_daemon::{DaemonError, InProcess, Options};
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

/// `kiln daemon`
pub(crate) fn run(args: DaemonArgs) -> ExitCode {
    let options = Options {
        config: args.config,
        root: args.root,
        addr: args.addr,
        idle_exit: args.idle_exit,
        log_level: args.log_level,
        log_format: args.log_format,
        oci_worker_binary: args.oci_worker_binary,
        snapshotter: args.oci_worker_snapshotter,
        max_parallelism: args.oci_max_parallelism,
        allow_insecure_entitlements: args.allow_insecure_entitlement,
        gc: args.oci_worker_gc,
        labels: args.oci_worker_labels.into_iter().collect(),
    };
    match kiln_daemon::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

/// `--daemonless`
pub(crate) fn in_process(settings: kiln_cli::InProcess) -> BoxFuture<'static, Result<DuplexStream, String>> {
    let options = Options {
        root: settings.root,
        allow_insecure_entitlements: settings.entitlements,
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
    eprintln!("error: {error}");
    match error {
        DaemonError::Locked(_) => ExitCode::from(kiln_cli::STATE_IN_USE),
        _ => ExitCode::FAILURE,
    }
}
