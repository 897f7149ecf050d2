//! What can go wrong before, while and after a process runs.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Failure to run a process. The program's own exit status is not an error here.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SandboxError {
    /// The spec cannot be run as it is.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field of the spec.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The program could not be executed; see [`ExecFailure`].
    #[error("{0}")]
    Exec(ExecFailure),
    /// A step of the set-up failed inside the new process.
    #[error("sandbox set-up failed at {step}: {message}")]
    Setup {
        /// The step.
        step: Step,
        /// The object and the kernel's answer.
        message: String,
    },
    /// A step in the daemon failed.
    #[error("sandbox: cannot {action}: {message}")]
    Prepare {
        /// What was tried, in the infinitive.
        action: &'static str,
        /// The object and the answer.
        message: String,
    },
    /// The sandbox to join has ended.
    #[error("the container is not running: its first process has ended")]
    Ended,
    /// The helper process ended while it was needed, and every process under it with it.
    #[error("the sandbox helper process ended unexpectedly")]
    HelperGone,
    /// The runtime binary failed; the text is its own.
    #[error("{binary} failed: {message}")]
    Runtime {
        /// The binary as configured.
        binary: String,
        /// Its last words.
        message: String,
    },
}

impl SandboxError {
    pub(crate) fn prepare(action: &'static str, e: impl fmt::Display) -> Self {
        SandboxError::Prepare { action, message: e.to_string() }
    }

    pub(crate) fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        SandboxError::Invalid { field, reason: reason.into() }
    }
}

/// Why a program could not be executed. Its text is what `runc` says in the same place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecFailure {
    /// The program as it was asked for (`args[0]`).
    pub program: String,
    /// The reason.
    pub kind: ExecFailureKind,
}

/// The reasons of an [`ExecFailure`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecFailureKind {
    /// A bare name that is in no directory of `PATH`.
    NotInPath,
    /// A path that does not exist.
    NoSuchFile,
    /// It exists and may not be executed.
    PermissionDenied,
    /// execve(2) itself refused it, with this error number.
    Refused(i32),
}

impl ExecFailure {
    /// The exit code a shell reports for it: 127 not found, 126 not executable.
    ///
    /// BuildKit over `runc` reports 1 for all of them, `docker run` 127 and 126.
    pub fn exit_code(&self) -> i32 {
        match self.kind {
            ExecFailureKind::NotInPath | ExecFailureKind::NoSuchFile => 127,
            ExecFailureKind::PermissionDenied => 126,
            ExecFailureKind::Refused(errno) if errno == rustix::io::Errno::NOENT.raw_os_error() => 127,
            ExecFailureKind::Refused(_) => 126,
        }
    }
}

impl fmt::Display for ExecFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = &self.program;
        match self.kind {
            ExecFailureKind::NotInPath => {
                write!(f, "exec: {program:?}: executable file not found in $PATH")
            }
            ExecFailureKind::NoSuchFile => {
                write!(f, "exec: {program:?}: stat {program}: no such file or directory")
            }
            ExecFailureKind::PermissionDenied => write!(f, "exec: {program:?}: permission denied"),
            ExecFailureKind::Refused(errno) => write!(f, "exec {program}: {}", errno_text(errno)),
        }
    }
}

/// The kernel's errors of execve(2) in the words runc uses; others by number.
fn errno_text(errno: i32) -> String {
    use rustix::io::Errno;
    match Errno::from_raw_os_error(errno) {
        Errno::NOEXEC => "exec format error".into(),
        Errno::NOENT => "no such file or directory".into(),
        Errno::ACCESS => "permission denied".into(),
        Errno::TOOBIG => "argument list too long".into(),
        other => std::io::Error::from(other).to_string(),
    }
}

macro_rules! steps {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// The steps of the set-up inside the new process, in their order.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Step { $(#[doc = $text] $name),* }

        impl fmt::Display for Step {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Step::$name => $text),* })
            }
        }
    };
}

steps! {
    Request = "reading the request",
    Fork = "creating the process",
    Session = "starting a session",
    Stdio = "standard input and output",
    Cgroup = "joining the cgroup",
    Join = "joining the container",
    Network = "entering the network",
    Loopback = "bringing up the loopback interface",
    Root = "attaching the root",
    Proc = "mounting /proc",
    Dev = "mounting /dev",
    Devices = "making the devices",
    Sys = "mounting /sys",
    CgroupMount = "mounting /sys/fs/cgroup",
    Mount = "mounting",
    Hooks = "running hooks",
    Pivot = "changing the root",
    Mask = "masking paths",
    ReadOnlyPaths = "making paths read-only",
    Hostname = "setting the host name",
    Terminal = "opening the terminal",
    WorkingDirectory = "entering the working directory",
    ReadOnlyRoot = "making the root read-only",
    Limits = "setting resource limits",
    Seccomp = "loading the seccomp profile",
    Capabilities = "dropping capabilities",
    User = "switching the user",
    Descriptors = "closing descriptors",
    Signals = "resetting signals",
}
