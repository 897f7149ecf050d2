//! The one error shape: which call, on what, and the kernel's answer.

use rustix::io::Errno;
use std::fmt;

/// Result of a call into the kernel.
pub type Result<T> = std::result::Result<T, Error>;

/// A kernel call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call}{}: {errno}", Subject(.subject))]
pub struct Error {
    /// The call that failed.
    pub call: Call,
    /// What it was applied to; empty where the call says it all.
    pub subject: String,
    /// The kernel's answer.
    pub errno: Errno,
}

struct Subject<'a>(&'a str);

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " {}", self.0) }
    }
}

impl Error {
    /// Builds an error for `call` on `subject`.
    pub fn new(call: Call, subject: impl Into<String>, errno: Errno) -> Self {
        Error { call, subject: subject.into(), errno }
    }

    /// The error of the last libc call of this thread.
    pub(crate) fn last(call: Call, subject: impl Into<String>) -> Self {
        let raw = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        Error::new(call, subject, Errno::from_raw_os_error(raw))
    }
}

impl From<Error> for std::io::Error {
    fn from(e: Error) -> Self {
        std::io::Error::new(std::io::Error::from(e.errno).kind(), e)
    }
}

macro_rules! calls {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// The kernel calls made here, by name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Call { $(#[doc = $text] $name),* }

        impl fmt::Display for Call {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Call::$name => $text),* })
            }
        }
    };
}

calls! {
    Bpf = "bpf",
    Capget = "capget",
    Capset = "capset",
    Clone3 = "clone3",
    CloseRange = "close_range",
    Execve = "execve",
    FsConfig = "fsconfig",
    FsMount = "fsmount",
    FsOpen = "fsopen",
    Getrusage = "getrusage",
    Ioctl = "ioctl",
    Keyctl = "keyctl",
    Mkdir = "mkdirat",
    Mknod = "mknodat",
    Mount = "mount",
    MountSetattr = "mount_setattr",
    MoveMount = "move_mount",
    Open = "openat",
    OpenTree = "open_tree",
    PivotRoot = "pivot_root",
    Prctl = "prctl",
    Read = "read",
    Recvmsg = "recvmsg",
    Seccomp = "seccomp",
    Sendmsg = "sendmsg",
    Sigaction = "rt_sigaction",
    Sigprocmask = "rt_sigprocmask",
    Signal = "pidfd_send_signal",
    Socket = "socket",
    Socketpair = "socketpair",
    Umount = "umount2",
    Unshare = "unshare",
    Wait = "waitid",
    Write = "write",
}
