//! Starting the helper, and the socket to it.

use super::LauncherConfig;
use crate::error::SandboxError;
use crate::helper::HELPER_NAME;
use kiln_sys::mount::{self, Attrs};
use kiln_sys::{Errno, socket};
use rustix::fs::{CWD, Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

/// A started helper.
pub(super) struct Connection {
    socket: UnixStream,
    broken: AtomicBool,
    /// Reaped by the runtime, killed when dropped.
    _child: Child,
}

/// One order with its descriptors.
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
}

impl Connection {
    pub(super) fn start(config: &LauncherConfig) -> Result<Connection, SandboxError> {
        start(config).map_err(|e| SandboxError::prepare("start the sandbox helper", e))
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Remembers that the helper is gone. Its socket alone does not tell at once: a child that it had just forked
    /// may hold the other end for a moment longer, and an order would wait there for nobody.
    pub(super) fn lost(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Sends an order; false when the helper is gone, which is then remembered.
    pub(super) async fn send(&self, packet: &Packet) -> Result<bool, SandboxError> {
        let fds: Vec<BorrowedFd<'_>> = packet.fds.iter().map(AsFd::as_fd).collect();
        let attempt = || {
            socket::send(self.socket.as_fd(), &packet.bytes, &fds, false).map_err(|e| match e.errno {
                Errno::AGAIN => io::Error::from(io::ErrorKind::WouldBlock),
                Errno::PIPE | Errno::CONNRESET => io::Error::from(io::ErrorKind::BrokenPipe),
                _ => io::Error::from(e),
            })
        };
        match self.socket.async_io(Interest::WRITABLE, attempt).await {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                self.lost();
                Ok(false)
            }
            Err(e) => Err(SandboxError::prepare("send to the sandbox helper", e)),
        }
    }
}

/// Registers a SEQPACKET socket with the runtime. Its own type has no wrapper there; of the stream's only the
/// readiness is used, which is the same for both.
pub(super) fn watched(socket: OwnedFd) -> io::Result<UnixStream> {
    rustix::io::ioctl_fionbio(&socket, true)?;
    UnixStream::from_std(std::os::unix::net::UnixStream::from(socket))
}

fn start(config: &LauncherConfig) -> io::Result<Connection> {
    let binary = read_only_binary(config)?;
    let (ours, theirs) = socket::pair()?;
    // By descriptor: execve opens it before descriptors are closed.
    let child = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
        .arg0(HELPER_NAME)
        // For a binary that forgot to look at argv[0]: better an unknown option than a second daemon.
        .arg("--sandbox-helper")
        // The daemon's environment may hold credentials, and none of it is needed.
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()?;
    Ok(Connection { socket: watched(ours)?, broken: AtomicBool::new(false), _child: child })
}

/// Opens the helper's binary through a read-only mount of its own.
///
/// A step can reach the binary for a moment through its own `/proc/self/exe` (CVE-2019-5736); through this
/// mount nobody can write to it, whatever the permissions of the file.
fn read_only_binary(config: &LauncherConfig) -> io::Result<OwnedFd> {
    let open = |path: &std::path::Path| {
        Ok::<_, io::Error>(rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
    };
    let file = match &config.helper {
        Some(path) => open(path)?,
        None => {
            let running = rustix::fs::stat("/proc/self/exe")?;
            // Not the magic link: it lies in the mount namespace the daemon was started in.
            let file = std::env::current_exe().and_then(|path| open(&path));
            let same = |f: &OwnedFd| {
                rustix::fs::fstat(f).is_ok_and(|s| (s.st_dev, s.st_ino) == (running.st_dev, running.st_ino))
            };
            match file {
                Ok(file) if same(&file) => file,
                // Replaced or removed while running: a copy of what runs.
                _ => return copy_of_running_binary(),
            }
        }
    };
    let clone = mount::bind_detached(file.as_fd(), false, true)?;
    mount::set_attrs(clone.as_fd(), Attrs { nosuid: true, nodev: true, ..Attrs::default() }, false)?;
    Ok(clone)
}

fn copy_of_running_binary() -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let fd = rustix::fs::memfd_create(HELPER_NAME, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut copy = std::fs::File::from(fd);
    io::copy(&mut std::fs::File::open("/proc/self/exe")?, &mut copy)?;
    rustix::fs::fcntl_add_seals(
        &copy,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(copy.into())
}
