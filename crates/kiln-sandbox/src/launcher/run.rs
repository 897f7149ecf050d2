//! Following one run over its own socket, from the fork to the end.

use super::connection::{Connection, watched};
use crate::cgroup::StepCgroup;
use crate::error::SandboxError;
use crate::executor::{ExitStatus, Finished, Outcome, Process, Signaller, Usage};
use crate::wire::{PACKET, Reply};
use kiln_sys::{Errno, socket};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::watch;

/// The daemon's end of a run's socket. When it is dropped the helper kills the child.
struct Replies(UnixStream);

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
}

/// Waits for the fork (and the terminal), and leaves the rest to a task.
pub(super) async fn follow(
    connection: Arc<Connection>,
    socket: OwnedFd,
    cgroup: StepCgroup,
    wants_terminal: bool,
) -> Result<Process, SandboxError> {
    let replies = Replies(watched(socket).map_err(|e| SandboxError::prepare("watch a socket", e))?);
    let (mut pidfd, mut terminal) = (None, None);
    // Helper and child write to the same socket, in no certain order.
    while pidfd.is_none() || (wants_terminal && terminal.is_none()) {
        let (reply, mut fds) = replies.next().await?;
        match reply {
            Reply::Spawned => pidfd = fds.pop(),
            Reply::Terminal => terminal = fds.pop(),
            Reply::Refused(failure) | Reply::Failed(failure) => return Err(failure.into()),
            Reply::Exited { .. } => return Err(SandboxError::HelperGone),
        }
    }
    let Some(pidfd) = pidfd else { return Err(SandboxError::HelperGone) };
    let (sender, outcome) = watch::channel(None);
    tokio::spawn(finish(connection, replies, cgroup, sender));
    Ok(Process::new(terminal, outcome, Arc::new(ByPidfd(pidfd))))
}

/// Waits for the end also when nobody holds the [`Process`] any more: it has been killed then, and the cgroup
/// can be removed only after the last process is gone.
async fn finish(
    // Held so that the helper outlives its runs.
    _connection: Arc<Connection>,
    replies: Replies,
    cgroup: StepCgroup,
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
            Ok(_) => {}
            Err(e) => break Err(failed.unwrap_or(e)),
        }
    };
    outcome.send_replace(Some(result));
    drop(cgroup);
}

struct ByPidfd(OwnedFd);

impl Signaller for ByPidfd {
    fn signal(&self, signal: i32) -> Result<(), SandboxError> {
        kiln_sys::process::signal(self.0.as_fd(), signal)
            .map_err(|e| SandboxError::prepare("send a signal", e))
    }

    fn pid(&self) -> Option<u32> {
        // A pidfd's entry in fdinfo tells the id in the reader's pid namespace.
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd())).ok()?;
        info.lines().find_map(|l| l.strip_prefix("Pid:")?.trim().parse().ok())
    }
}
