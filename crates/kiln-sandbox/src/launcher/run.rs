//! Following one run over its own socket, from the fork to the end.

use super::Sandbox;
use super::connection::{Connection, watched};
use super::hooks::{Following, Hooked, Stopper};
use crate::cgroup::StepCgroup;
use crate::error::SandboxError;
use crate::executor::{Control, ExitStatus, Finished, Outcome, Process, Usage, not_first};
use crate::spec::{ProgramSpec, Stdio};
use crate::wire::{GO_ON, PACKET, Reply};
use kiln_sys::{Errno, socket};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::watch;

const SIGKILL: i32 = 9;

/// The daemon's end of a run's socket. When it is dropped the helper kills the child.
pub(super) struct Replies(UnixStream);

impl Replies {
    async fn next(&self) -> Result<(Reply, Vec<OwnedFd>), SandboxError> {
        let message = self
            .0
            .async_io(Interest::READABLE, || {
                socket::receive(self.0.as_fd(), PACKET, false).map_err(|e| match e.errno {
                    Errno::AGAIN => io::Error::from(io::ErrorKind::WouldBlock),
                    _ => io::Error::from(e),
                })
            })
            .await
            .map_err(|e| SandboxError::prepare("hear from the sandbox", e))?;
        if message.bytes.is_empty() {
            return Err(SandboxError::HelperGone);
        }
        let reply = serde_json::from_slice(&message.bytes)
            .map_err(|e| SandboxError::prepare("understand the sandbox", e))?;
        Ok((reply, message.fds))
    }

    /// Lets a child go on that waits for the daemon's hooks.
    pub(super) fn go_on(&self) {
        // One that is gone does not need it; its end is heard of elsewhere.
        let _ = socket::send(self.0.as_fd(), GO_ON, &[], false);
    }
}

/// A child that has been forked.
pub(super) struct Started {
    replies: Replies,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
    ready: bool,
    created: bool,
}

/// Waits for the fork (and the terminal) of an order that the helper was sent.
pub(super) async fn started(
    helper: &Connection,
    socket: OwnedFd,
    wants_terminal: bool,
) -> Result<Started, SandboxError> {
    let started = hear_of_start(socket, wants_terminal).await;
    if let Err(SandboxError::HelperGone) = started {
        helper.lost();
    }
    started
}

async fn hear_of_start(socket: OwnedFd, wants_terminal: bool) -> Result<Started, SandboxError> {
    let replies = Replies(watched(socket).map_err(|e| SandboxError::prepare("watch a socket", e))?);
    let (mut pidfd, mut terminal, mut ready, mut created) = (None, None, false, false);
    // Helper and child write to the same socket, in no certain order.
    while pidfd.is_none() || (wants_terminal && terminal.is_none()) {
        let (reply, mut fds) = replies.next().await?;
        match reply {
            Reply::Spawned => pidfd = fds.pop(),
            Reply::Terminal => terminal = fds.pop(),
            Reply::Refused(failure) | Reply::Failed(failure) => return Err(failure.into()),
            // Only after the terminal, so the loop has ended by then unless the fork is not known yet.
            Reply::Ready => ready = true,
            Reply::Created => created = true,
            Reply::Exited { .. } => return Err(SandboxError::HelperGone),
        }
    }
    let pidfd = pidfd.ok_or(SandboxError::HelperGone)?;
    Ok(Started { replies, pidfd, terminal, ready, created })
}

impl Started {
    /// Leaves the rest to a task, which tells `ready` when others may join. `sandbox` is there for the first process
    /// only.
    pub(super) fn follow(
        self,
        connection: Arc<Connection>,
        cgroup: Arc<StepCgroup>,
        ready: watch::Sender<bool>,
        sandbox: Option<Sandbox>,
        hooked: Option<Hooked>,
    ) -> Result<Process, SandboxError> {
        let (sender, outcome) = watch::channel(None);
        ready.send_replace(self.ready);
        let replies = Arc::new(self.replies);
        let stopper = hooked.as_ref().map(Hooked::stopper);
        let control = ByPidfd { pidfd: self.pidfd, sandbox, stopper };
        let mut hooks = match hooked {
            Some(hooked) => {
                let copy =
                    control.pidfd.try_clone().map_err(|e| SandboxError::prepare("copy a descriptor", e))?;
                Some(hooked.follow(replies.clone(), control.pid(), copy))
            }
            None => None,
        };
        if let Some(hooks) = hooks.as_mut().filter(|_| self.created) {
            hooks.created();
        }
        tokio::spawn(finish(connection, replies, cgroup, ready, hooks, sender));
        Process::new(self.terminal, outcome, Arc::new(control))
    }
}

/// Waits for the end also when nobody holds the [`Process`] any more: it has been killed then, and the cgroup
/// can be removed only after the last process is gone.
async fn finish(
    // Also held so that the helper outlives its runs.
    connection: Arc<Connection>,
    replies: Arc<Replies>,
    cgroup: Arc<StepCgroup>,
    ready: watch::Sender<bool>,
    mut hooks: Option<Following>,
    outcome: watch::Sender<Outcome>,
) {
    let mut failed = None;
    let result = loop {
        match replies.next().await {
            Ok((Reply::Failed(failure), _)) => failed = Some(SandboxError::from(failure)),
            Ok((Reply::Exited { code, signal, usage }, _)) => {
                let status = code.map_or(ExitStatus::Signal(signal), ExitStatus::Code);
                let usage = Usage { oom_kills: cgroup.oom_kills(), ..usage.into() };
                break failed.map_or(Ok(Finished { status, usage }), Err);
            }
            Ok((Reply::Ready, _)) => drop(ready.send_replace(true)),
            Ok((Reply::Created, _)) => hooks.iter_mut().for_each(Following::created),
            Ok(_) => {}
            Err(e) => {
                if let SandboxError::HelperGone = e {
                    // Before anybody hears of it: who starts a step after that gets another helper.
                    connection.lost();
                }
                break Err(failed.unwrap_or(e));
            }
        }
    };
    let result = match hooks {
        Some(hooks) => hooks.end(result).await,
        None => result,
    };
    outcome.send_replace(Some(result));
    drop(cgroup);
}

struct ByPidfd {
    pidfd: OwnedFd,
    sandbox: Option<Sandbox>,
    /// Of the run's hooks.
    stopper: Option<Arc<Stopper>>,
}

#[async_trait::async_trait]
impl Control for ByPidfd {
    fn signal(&self, signal: i32) -> Result<(), SandboxError> {
        if let Some(stopper) = self.stopper.as_ref().filter(|_| signal == SIGKILL) {
            stopper.stop();
        }
        kiln_sys::process::signal(self.pidfd.as_fd(), signal)
            .map_err(|e| SandboxError::prepare("send a signal", e))
    }

    fn pid(&self) -> Option<u32> {
        // A pidfd's entry in fdinfo tells the id in the reader's pid namespace.
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd())).ok()?;
        info.lines().find_map(|l| l.strip_prefix("Pid:")?.trim().parse().ok())
    }

    async fn join(&self, spec: ProgramSpec, stdio: Stdio) -> Result<Process, SandboxError> {
        let sandbox = self.sandbox.as_ref().ok_or_else(not_first)?;
        sandbox.join(self.pidfd.as_fd(), spec, stdio).await
    }
}
