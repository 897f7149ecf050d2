//! A runtime's process that runs one of ours, from its start to its end.

use super::Runtime;
use super::join::Container;
use crate::bundle::Bundle;
use crate::error::{ExecFailure, ExecFailureKind, SandboxError};
use crate::executor::{Control, ExitStatus, Finished, Outcome, Process, Usage, not_first};
use crate::spec::{Network, ProgramSpec, Stdio};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::Deserialize;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};

const SIGKILL: i32 = 9;
/// Between two tries to reach a process that the runtime has not made yet.
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// How long the runtime may take to kill a container, or not know one that is to be killed.
const PATIENCE: Duration = Duration::from_millis(300);

/// The runtime at work.
pub(super) struct Running {
    pub(super) child: Child,
    /// Kept for its Drop.
    pub(super) bundle: Option<Bundle>,
    pub(super) log: PathBuf,
    pub(super) program: String,
    pub(super) reach: Reach,
    /// What the configuration names; held for the runtime.
    pub(super) _network: Network,
}

/// How a signal gets to the process.
pub(super) enum Reach {
    /// By the runtime, which knows the first process of a container by this name.
    Container(String),
    /// By its id, which the runtime writes into this file.
    PidFile(PathBuf),
}

/// What is asked of a running process.
enum Ask {
    Signal(i32),
    Resized,
}

pub(super) fn spawn(mut command: Command, stdio: Stdio) -> io::Result<Child> {
    command.stdin(stdio.stdin).stdout(stdio.stdout).stderr(stdio.stderr).spawn()
}

impl Running {
    /// Leaves the rest to a task. `container` is there for the first process only.
    pub(super) fn follow(
        self,
        runtime: Runtime,
        screen: Option<OwnedFd>,
        container: Option<Container>,
    ) -> Result<Process, SandboxError> {
        let (sender, outcome) = watch::channel(None);
        let (asks, receiver) = mpsc::unbounded_channel();
        let pid = self.child.id();
        tokio::spawn(follow(self, runtime, receiver, sender));
        Process::new(screen, outcome, Arc::new(ByRuntime { asks, pid, container }))
    }

    /// Delivers a signal, trying again until the process is there or the runtime has ended. After SIGKILL it has.
    async fn signal(&mut self, runtime: &Runtime, signal: i32) {
        let begin = Instant::now();
        let mut delivered = false;
        loop {
            if !delivered {
                let attempt = self.try_signal(runtime, signal);
                delivered = match signal {
                    // The runtime may wait for one that hangs.
                    SIGKILL => tokio::time::timeout(PATIENCE, attempt).await.unwrap_or(false),
                    _ => attempt.await,
                };
            }
            if delivered && signal != SIGKILL {
                return;
            }
            if signal == SIGKILL && begin.elapsed() > PATIENCE {
                self.kill_below();
            }
            if tokio::time::timeout(PAUSE, self.child.wait()).await.is_ok() {
                return;
            }
        }
    }

    /// Kills what the runtime has started: a hook that hangs, or a container that is not one yet to the runtime. It then
    /// gives up by itself, and cleans up.
    fn kill_below(&self) {
        for (pid, parent) in self.child.id().map(descendants).unwrap_or_default() {
            let process = rustix::process::pidfd_open(pid, PidfdFlags::empty());
            if let Ok(process) = process
                && parent_of(pid) == Some(parent)
            {
                // One that has just ended is no error.
                let _ = kiln_sys::process::signal(process.as_fd(), SIGKILL);
            }
        }
    }

    async fn try_signal(&self, runtime: &Runtime, signal: i32) -> bool {
        match &self.reach {
            Reach::Container(id) => runtime.call(&["kill", id, &signal.to_string()]).await.is_some(),
            Reach::PidFile(file) => {
                let Some(parent) = self.child.id() else { return true };
                let Some(process) = child_of(parent, file) else { return false };
                kiln_sys::process::signal(process.as_fd(), signal).is_ok()
            }
        }
    }

    fn resized(&self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        // It has not been waited for yet, so the id is still its own.
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, Signal::WINCH);
        }
    }
}

/// The process named in `file`, if it is a child of `parent`: the number may be another's by now.
fn child_of(parent: u32, file: &Path) -> Option<OwnedFd> {
    let pid = Pid::from_raw(fs::read_to_string(file).ok()?.trim().parse().ok()?)?;
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
    (parent_of(pid)? == parent).then_some(process)
}

fn parent_of(pid: Pid) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).ok()?;
    status.lines().find_map(|l| l.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Everything below a process, with its parent.
fn descendants(top: u32) -> Vec<(Pid, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| Pid::from_raw(e.file_name().to_str()?.parse().ok()?));
    let all: Vec<(Pid, u32)> = pids.filter_map(|pid| Some((pid, parent_of(pid)?))).collect();
    let (mut found, mut tops) = (Vec::new(), vec![top]);
    while let Some(top) = tops.pop() {
        for (pid, parent) in all.iter().filter(|(_, parent)| *parent == top) {
            tops.push(pid.as_raw_pid().unsigned_abs());
            found.push((*pid, *parent));
        }
    }
    found
}

async fn follow(
    mut running: Running,
    runtime: Runtime,
    mut asks: mpsc::UnboundedReceiver<Ask>,
    outcome: watch::Sender<Outcome>,
) {
    let (mut listening, mut killed) = (true, false);
    let status = loop {
        tokio::select! {
            status = running.child.wait() => break status,
            ask = asks.recv(), if listening => match ask {
                Some(Ask::Signal(signal)) => {
                    killed |= signal == SIGKILL;
                    running.signal(&runtime, signal).await;
                }
                Some(Ask::Resized) => running.resized(),
                None => listening = false,
            },
        }
    };
    let result = match status {
        // Killed while it was being set up, which the runtime reports as a failure of its own.
        Ok(status) if killed && !status.success() => {
            Ok(Finished { status: ExitStatus::Signal(SIGKILL), usage: Usage::default() })
        }
        Ok(status) => ended(&running, &runtime.binary, status),
        Err(e) => Err(SandboxError::prepare("wait for the OCI runtime", e)),
    };
    if let Reach::Container(id) = &running.reach {
        // Does nothing after a normal end.
        runtime.call(&["delete", "--force", id]).await;
    }
    drop(running.bundle.take());
    outcome.send_replace(Some(result));
}

fn ended(
    running: &Running,
    binary: &Path,
    status: std::process::ExitStatus,
) -> Result<Finished, SandboxError> {
    use std::os::unix::process::ExitStatusExt;
    // The runtime has one exit code for its own failures and its process's; its log tells them apart.
    if !status.success()
        && let Some(message) = last_error(&running.log)
    {
        return Err(match exec_failure(&message, &running.program) {
            Some(failure) => SandboxError::Exec(failure),
            None => SandboxError::Runtime { binary: binary.display().to_string(), message },
        });
    }
    let status = match (status.code(), status.signal()) {
        // runc reports a signal as a shell does.
        (Some(code), _) if code > 128 && code <= 128 + 64 => ExitStatus::Signal(code - 128),
        (Some(code), _) => ExitStatus::Code(code),
        (None, signal) => ExitStatus::Signal(signal.unwrap_or(9)),
    };
    Ok(Finished { status, usage: Usage::default() })
}

#[derive(Deserialize)]
struct LogLine {
    level: String,
    msg: String,
}

/// The last error in the runtime's log, of whose end at most 1 MiB is read.
fn last_error(log: &Path) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    const LIMIT: u64 = 1 << 20;
    let mut file = fs::File::open(log).ok()?;
    let len = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(LIMIT))).ok()?;
    let mut text = Vec::new();
    file.take(LIMIT).read_to_end(&mut text).ok()?;
    String::from_utf8_lossy(&text)
        .lines()
        .filter_map(|line| serde_json::from_str::<LogLine>(line).ok())
        .rfind(|line| line.level == "error" && !line.msg.is_empty())
        .map(|line| line.msg)
}

/// Recognises runc's and crun's words for a program that cannot be executed.
fn exec_failure(message: &str, program: &str) -> Option<ExecFailure> {
    let failure = |kind| ExecFailure { program: program.to_owned(), kind };
    if message.starts_with(&format!("executable file `{program}` not found in $PATH")) {
        let is_path = program.contains('/');
        return Some(failure(if is_path { ExecFailureKind::NoSuchFile } else { ExecFailureKind::NotInPath }));
    }
    if message == "open executable: Permission denied" {
        return Some(failure(ExecFailureKind::PermissionDenied));
    }
    [ExecFailureKind::NotInPath, ExecFailureKind::NoSuchFile, ExecFailureKind::PermissionDenied]
        .into_iter()
        .map(failure)
        .find(|failure| message.contains(&failure.to_string()))
}

struct ByRuntime {
    asks: mpsc::UnboundedSender<Ask>,
    pid: Option<u32>,
    container: Option<Container>,
}

#[async_trait::async_trait]
impl Control for ByRuntime {
    fn signal(&self, signal: i32) -> Result<(), SandboxError> {
        // Nobody listens when it has just ended.
        let _ = self.asks.send(Ask::Signal(signal));
        Ok(())
    }

    fn pid(&self) -> Option<u32> {
        self.pid
    }

    fn resized(&self) {
        let _ = self.asks.send(Ask::Resized);
    }

    async fn join(&self, spec: ProgramSpec, stdio: Stdio) -> Result<Process, SandboxError> {
        // The task that follows it is gone when it has ended.
        self.container.as_ref().ok_or_else(not_first)?.join(spec, stdio, || self.asks.is_closed()).await
    }
}
