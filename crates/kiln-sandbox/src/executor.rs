//! The common face of the launcher and of runtime binaries.

use crate::error::SandboxError;
use crate::spec::{ProcessSpec, ProgramSpec, Stdio, TerminalSize};
use std::os::fd::{AsFd, OwnedFd};
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

/// Reaches a process; how depends on the executor.
#[async_trait::async_trait]
pub(crate) trait Control: Send + Sync {
    fn signal(&self, signal: i32) -> Result<(), SandboxError>;
    fn pid(&self) -> Option<u32>;
    /// Tells whoever stands between the daemon and the process that the terminal's size has changed.
    fn resized(&self) {}
    /// Starts one more process in the sandbox.
    async fn join(&self, spec: ProgramSpec, stdio: Stdio) -> Result<Process, SandboxError>;
}

/// The answer to a [`Control::join`] of a process that joined itself.
pub(crate) fn not_first() -> SandboxError {
    SandboxError::invalid("process", "only the first process of a sandbox can be joined")
}

/// A running (or finished) process. Dropping it kills the process; the first of a sandbox takes everything in it
/// along.
pub struct Process {
    terminal: Option<OwnedFd>,
    /// For changes of its size, also after the terminal has been taken.
    screen: Option<OwnedFd>,
    outcome: watch::Receiver<Outcome>,
    control: Arc<dyn Control>,
}

impl Process {
    pub(crate) fn new(
        terminal: Option<OwnedFd>,
        outcome: watch::Receiver<Outcome>,
        control: Arc<dyn Control>,
    ) -> Result<Self, SandboxError> {
        let copy = terminal.as_ref().map(OwnedFd::try_clone).transpose();
        let screen = copy.map_err(|e| SandboxError::prepare("copy a terminal", e))?;
        Ok(Process { terminal, screen, outcome, control })
    }

    /// Its process id in the daemon's pid namespace, for logs only (it may be reused).
    pub fn pid(&self) -> Option<u32> {
        self.control.pid()
    }

    /// Takes the master side of the terminal, when the spec asked for one.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Changes the size of the terminal; its foreground processes get SIGWINCH. Nothing without a terminal.
    pub fn resize(&self, size: TerminalSize) -> Result<(), SandboxError> {
        let Some(screen) = &self.screen else { return Ok(()) };
        rustix::termios::tcsetwinsize(screen.as_fd(), size.winsize())
            .map_err(|e| SandboxError::prepare("resize a terminal", e))?;
        self.control.resized();
        Ok(())
    }

    /// Starts one more process in the sandbox of which this is the first. It ends at the latest with this one, and
    /// is never less confined.
    ///
    /// [`SandboxError::Ended`] when this one has ended.
    pub async fn join(&self, spec: ProgramSpec, stdio: Stdio) -> Result<Process, SandboxError> {
        crate::launcher::validate_program(&spec)?;
        if self.outcome.borrow().is_some() {
            return Err(SandboxError::Ended);
        }
        self.control.join(spec, stdio).await
    }

    /// Waits for the end. When this returns for the first process of a sandbox, every process in it is gone. May be
    /// called again.
    ///
    /// Fails when the set-up or execve failed, or when the helper died.
    pub async fn wait(&self) -> Result<ExitStatus, SandboxError> {
        self.finished().await.map(|f| f.status)
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.outcome.borrow().is_some()
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

    /// Sends `signal` to the process. One that already ended is no error.
    ///
    /// The first process of a sandbox, as process 1 of its pid namespace, receives only signals it handles; 9
    /// (SIGKILL) always works and ends everything in the sandbox.
    pub fn kill(&self, signal: i32) -> Result<(), SandboxError> {
        if self.outcome.borrow().is_some() {
            return Ok(());
        }
        self.control.signal(signal)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill(9) {
            tracing::warn!(%error, "cannot kill a dropped process");
        }
    }
}
