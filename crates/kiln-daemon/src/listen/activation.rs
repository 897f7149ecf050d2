//! Socket activation (sd_listen_fds(3)): systemd opens the sockets and hands them over from descriptor 3 on.

use super::{ListenError, Socket};
use rustix::net::AddressFamily;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use std::io;
use std::os::fd::OwnedFd;
use tokio::net::{TcpListener, UnixListener};

const FIRST: i32 = 3;

/// What the environment says was handed over.
struct Handed {
    count: i32,
    names: Vec<String>,
}

/// `fd://` is the first socket, `fd://N` that of a descriptor, `fd://NAME` that of `FileDescriptorName=`.
pub(super) fn listen(address: &str, which: &str) -> Result<Socket, ListenError> {
    let missing = |why: String| ListenError::Activation { address: address.into(), why };
    let handed = handed(|name| std::env::var(name).ok(), getpid().as_raw_nonzero().get())
        .ok_or_else(|| missing("no sockets found via socket activation".into()))?;
    let number = handed.find(which).ok_or_else(|| missing(format!("no socket {which:?} was handed over")))?;
    let io = |step| move |source| ListenError::Io { address: address.into(), step, source };
    take(number).and_then(socket).map_err(io("take the socket"))
}

fn handed(env: impl Fn(&str) -> Option<String>, pid: i32) -> Option<Handed> {
    let number = |name: &str| env(name)?.parse::<i32>().ok();
    // Meant for another process if it says so.
    number("LISTEN_PID").filter(|p| *p == pid)?;
    let count = number("LISTEN_FDS").filter(|n| (1..1000).contains(n))?;
    let names = env("LISTEN_FDNAMES").unwrap_or_default();
    Some(Handed { count, names: names.split(':').map(str::to_string).collect() })
}

impl Handed {
    fn find(&self, which: &str) -> Option<i32> {
        if which.is_empty() {
            return Some(FIRST);
        }
        if let Ok(n) = which.parse::<i32>() {
            return (FIRST..FIRST + self.count).contains(&n).then_some(n);
        }
        let index = self.names.iter().position(|name| name == which)?;
        i32::try_from(index).ok().filter(|i| *i < self.count).map(|i| FIRST + i)
    }
}

/// A copy of our own descriptor, closed on exec: what has a number only cannot be owned safely.
fn take(number: i32) -> io::Result<OwnedFd> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(own, number, PidfdGetfdFlags::empty())?)
}

fn socket(fd: OwnedFd) -> io::Result<Socket> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    match rustix::net::sockopt::socket_domain(&fd)? {
        AddressFamily::UNIX => {
            Ok(Socket::Unix(UnixListener::from_std(std::os::unix::net::UnixListener::from(fd))?, None))
        }
        _ => Ok(Socket::Tcp(TcpListener::from_std(std::net::TcpListener::from(fd))?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn the_environment_names_the_descriptors() {
        let env = |pid: &'static str, fds: &'static str, names: &'static str| {
            move |name: &str| match name {
                "LISTEN_PID" => Some(pid.to_string()),
                "LISTEN_FDS" => Some(fds.to_string()),
                _ => Some(names.to_string()),
            }
        };
        let two = handed(env("7", "2", "a:b:c"), 7).unwrap();
        assert_eq!(
            ["", "3", "4", "5", "a", "b", "c", "x", "-1"].map(|w| two.find(w)),
            [Some(3), Some(3), Some(4), None, Some(3), Some(4), None, None, None]
        );
        assert!(handed(env("8", "2", ""), 7).is_none(), "another process");
        assert!(handed(env("7", "0", ""), 7).is_none());
        assert!(handed(env("7", "many", ""), 7).is_none());
        assert!(handed(|_| None, 7).is_none());
    }

    #[tokio::test]
    async fn sockets_are_taken_over_as_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let unix = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(matches!(take(unix.as_raw_fd()).and_then(socket).unwrap(), Socket::Unix(_, None)));
        assert!(matches!(take(tcp.as_raw_fd()).and_then(socket).unwrap(), Socket::Tcp(_)));
        assert!(take(99_999).is_err());
    }
}
