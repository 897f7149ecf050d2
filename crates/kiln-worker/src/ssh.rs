//! A socket of the client's ssh agent inside a step.

use kiln_session::{Session, SessionError};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// A listening socket whose connections end at the client's agent. Closed and removed when dropped.
pub(crate) struct AgentSocket {
    _dir: SocketDir,
    accept: JoinHandle<()>,
}

struct SocketDir(std::path::PathBuf);

impl Drop for SocketDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0.join("s"));
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Who may use the socket.
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

impl AgentSocket {
    /// Listens below `state`; returns the socket and a handle to mount it by.
    pub(crate) fn open(
        state: &Path,
        session: Session,
        id: String,
        owner: &Owner,
    ) -> io::Result<(Self, OwnedFd)> {
        use std::os::unix::fs::{PermissionsExt, chown};
        let dir = state.join(format!("ssh-{:032x}", rand::random::<u128>()));
        std::fs::create_dir(&dir)?;
        let dir = SocketDir(dir);
        let path = dir.0.join("s");
        let listener = UnixListener::bind(&path)?;
        chown(&path, Some(owner.uid), Some(owner.gid))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(owner.mode))?;
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, rustix::fs::Mode::empty())?;
        let accept = tokio::spawn(serve(listener, session, id));
        Ok((Self { _dir: dir, accept }, fd))
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn serve(listener: UnixListener, session: Session, id: String) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => { connections.spawn(forward(stream, session.clone(), id.clone())); }
                Err(error) => {
                    tracing::warn!(%error, "accept on an ssh agent socket");
                    return;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn forward(mut stream: UnixStream, session: Session, id: String) {
    let copied: Result<(), SessionError> = async {
        let mut pipe = session.forward_ssh(&id)?;
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut pipe).await;
        Ok(())
    }
    .await;
    if let Err(error) = copied {
        tracing::debug!(%error, "forward an ssh agent connection");
    }
}
