//! Terminals: the runtime gets one of the daemon's, makes the container's own, and copies between the two.

use crate::spec::{Stdio, TerminalSize};
use rustix::pty::OpenptFlags;
use std::io;
use std::os::fd::OwnedFd;

/// The streams for the runtime, and the outer side of the terminal when one is wanted.
pub(super) fn streams(stdio: Stdio, tty: Option<TerminalSize>) -> io::Result<(Stdio, Option<OwnedFd>)> {
    let Some(size) = tty else { return Ok((stdio, None)) };
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    rustix::termios::tcsetwinsize(&slave, size.winsize())?;
    let stdio = Stdio { stdin: slave.try_clone()?, stdout: slave.try_clone()?, stderr: slave };
    Ok((stdio, Some(master)))
}
