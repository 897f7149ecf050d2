//! What the binary passes in: the daemon stands on the same floor, so this crate cannot call it.

use crate::commands::daemon::DaemonArgs;
use futures::future::BoxFuture;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::io::DuplexStream;

/// The daemon, as functions.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// `kiln daemon`: runs until it is told to stop.
    pub run_daemon: fn(DaemonArgs) -> ExitCode,
    /// `--daemonless`: the daemon in this process. It ends when its streams are closed.
    pub in_process: fn(InProcess) -> BoxFuture<'static, Result<DuplexStream, String>>,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks")
    }
}

/// Settings of the daemon in the process.
#[derive(Clone, Debug, Default)]
pub struct InProcess {
    /// State directory; None = the daemon's default.
    pub root: Option<PathBuf>,
    /// Entitlements that the build asks for; whoever runs the daemon in their own process grants them.
    pub entitlements: Vec<String>,
}
