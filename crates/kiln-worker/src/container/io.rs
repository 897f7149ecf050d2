//! The streams of a process in a container.

use kiln_sandbox::Stdio;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use tokio::net::unix::pipe;

/// Which streams a process has; those it has not are empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Somebody writes to its standard input.
    pub stdin: bool,
    /// Somebody reads its standard output.
    pub stdout: bool,
    /// Somebody reads its standard error.
    pub stderr: bool,
    /// All three are one terminal: its output is that of `stdout`.
    pub terminal: bool,
}

/// The other ends.
#[derive(Debug)]
pub struct ProcessIo {
    /// Its input; dropping it is the end of the input (not for a terminal).
    pub stdin: Option<pipe::Sender>,
    /// Its output. That of a terminal ends with the error EIO.
    pub stdout: Option<pipe::Receiver>,
    /// Its errors.
    pub stderr: Option<pipe::Receiver>,
    terminal: bool,
}

/// Pipes where wanted; for a terminal nothing yet.
pub(super) fn pipes(wanted: Wanted) -> io::Result<(Stdio, ProcessIo)> {
    let piped = |one: bool| one && !wanted.terminal;
    let null =
        || -> io::Result<OwnedFd> { Ok(File::options().read(true).write(true).open("/dev/null")?.into()) };
    let output = |one: bool| -> io::Result<(OwnedFd, Option<pipe::Receiver>)> {
        if !piped(one) {
            return Ok((null()?, None));
        }
        let (sender, receiver) = pipe::pipe()?;
        Ok((sender.into_blocking_fd()?, Some(receiver)))
    };
    let (stdin, input) = if piped(wanted.stdin) {
        let (sender, receiver) = pipe::pipe()?;
        (receiver.into_blocking_fd()?, Some(sender))
    } else {
        (null()?, None)
    };
    let (stdout, out) = output(wanted.stdout)?;
    let (stderr, err) = output(wanted.stderr)?;
    let io = ProcessIo { stdin: input, stdout: out, stderr: err, terminal: wanted.terminal };
    Ok((Stdio { stdin, stdout, stderr }, io))
}

impl ProcessIo {
    /// Takes the outer side of the terminal as both ends.
    pub(super) fn with_terminal(mut self, master: Option<OwnedFd>) -> io::Result<Self> {
        if let Some(master) = master.filter(|_| self.terminal) {
            rustix::io::ioctl_fionbio(&master, true)?;
            // It is no pipe; of these types only reading, writing and waiting are used, which are the same.
            self.stdin = Some(pipe::Sender::from_owned_fd_unchecked(master.try_clone()?)?);
            self.stdout = Some(pipe::Receiver::from_owned_fd_unchecked(master)?);
        }
        Ok(self)
    }
}
