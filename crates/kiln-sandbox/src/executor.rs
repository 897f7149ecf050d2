//! The common face of the launcher and of runtime binaries.

use crate::error::SandboxError;
use crate::spec::{ProcessSpec, Stdio};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Something that can run a process in a sandbox.
#[async_trait::async_trait]
pub trait Executor: Send + Sync {
    /// Starts the process. Dropping the future, or the [`Process`], kills it with everything under it.
    async fn run(&self, spec: ProcessSpec, stdio: Stdio) -> Result<Process, SandboxError>;
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl ExitStatus {
    /// True for exit code 0.
    pub fn success(self) -> bool {
        self == ExitStatus::Code(0)
    }

    /// The code a shell and `runc` report: 128 plus the signal's number for a signal.
    pub fn code(self) -> i32 {
        match self {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(signal) => 128 + signal,
        }
    }
}

/// What a finished process used, itself and the children it waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in user code.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Largest resident set of one process, in bytes.
    pub peak_rss: u64,
    /// Processes the kernel killed because the memory limit was reached; 0 without a limit.
    pub oom_kills: u64,
}

/// A finished process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) usage: Usage,
}

pub(crate) type Outcome = Option<Result<Finished, SandboxError>>;

/// Sends signals to the process; how depends on the executor.
pub(crate) trait Signaller: Send + Sync {
    fn signal(&self, signal: i32) -> Result<(), SandboxError>;
    fn pid(&self) -> Option<u32>;
}

/// A running (or finished) process. Dropping it kills the process and everything it started.
pub struct Process {
    terminal: Option<OwnedFd>,
    outcome: watch::Receiver<Outcome>,
    signaller: Arc<dyn Signaller>,
}

impl Process {
    pub(crate) fn new(
        terminal: Option<OwnedFd>,
        outcome: watch::Receiver<Outcome>,
        signaller: Arc<dyn Signaller>,
    ) -> Self {
        Process { terminal, outcome, signaller }
    }

    /// Its process id in the daemon's pid namespace, for logs only (it may be reused).
    pub fn pid(&self) -> Option<u32> {
        self.signaller.pid()
    }

    /// Takes the master side of the terminal, when the spec asked for one. Resize it with tcsetwinsize.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Waits for the end. Every process of the sandbox is gone when this returns. May be called again.
    ///
    /// Fails when the set-up or execve failed, or when the helper died.
    pub async fn wait(&self) -> Result<ExitStatus, SandboxError> {
        self.finished().await.map(|f| f.status)
    }

    /// What it used; waits for the end like [`wait`](Self::wait).
    pub async fn usage(&self) -> Result<Usage, SandboxError> {
        self.finished().await.map(|f| f.usage)
    }

    async fn finished(&self) -> Result<Finished, SandboxError> {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(value) => value.clone().unwrap_or(Err(SandboxError::HelperGone)),
            Err(_) => Err(SandboxError::HelperGone),
        }
    }

    /// Sends `signal` to the sandbox's first process. A process that already ended is no error.
    ///
    /// As process 1 of its pid namespace it receives only signals it handles; 9 (SIGKILL) always works and
    /// ends everything in the sandbox.
    pub fn kill(&self, signal: i32) -> Result<(), SandboxError> {
        if self.outcome.borrow().is_some() {
            return Ok(());
        }
        self.signaller.signal(signal)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill(9) {
            tracing::warn!(%error, "cannot kill a dropped process");
        }
    }
}
