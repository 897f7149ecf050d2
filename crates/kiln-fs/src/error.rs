//! The error of filesystem operations: what was done, to which path (as seen from the root), and why it failed.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Result of a filesystem operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed filesystem operation. Paths are those below the root, never those of the host.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused the operation.
    #[error("{op} {}: {}", .path.display(), describe(*.errno))]
    Sys {
        /// What was tried: `open`, `mkdir`, `stat`, ...
        op: &'static str,
        /// The path as given by the caller.
        path: PathBuf,
        /// The kernel's reason.
        errno: Errno,
    },
    /// Something else than a regular file is where one is needed. It was not opened.
    #[error("{} is not a regular file", .path.display())]
    NotRegular {
        /// The path as given by the caller.
        path: PathBuf,
    },
    /// A file or link is larger than the caller allows.
    #[error("{} exceeds {limit} bytes", .path.display())]
    TooLarge {
        /// The path as given by the caller.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
}

impl Error {
    pub(crate) fn sys(op: &'static str, path: impl AsRef<Path>, errno: Errno) -> Error {
        Error::Sys { op, path: path.as_ref().to_path_buf(), errno }
    }

    pub(crate) fn io(op: &'static str, path: impl AsRef<Path>, e: &io::Error) -> Error {
        Error::sys(op, path, Errno::from_io_error(e).unwrap_or(Errno::IO))
    }

    /// The kernel's error number, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Sys { errno, .. } => Some(*errno),
            Error::NotRegular { .. } | Error::TooLarge { .. } => None,
        }
    }

    /// Whether the object does not exist, also because a parent is no directory.
    pub fn is_not_found(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOENT | Errno::NOTDIR))
    }
}

impl From<Error> for io::Error {
    fn from(e: Error) -> io::Error {
        let kind = match e.errno() {
            Some(errno) => io::Error::from(errno).kind(),
            None => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, e)
    }
}

/// The text of an error number without the number, in lower case like all our messages.
pub(crate) fn describe(errno: Errno) -> String {
    let text = io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        // "Input/output error" becomes "input/output error"; names in capitals do not occur.
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_step_the_object_and_the_reason() {
        let e = Error::sys("open", "/etc/passwd", Errno::NOENT);
        assert_eq!(e.to_string(), "open /etc/passwd: no such file or directory");
        assert!(e.is_not_found());
        assert_eq!(io::Error::from(e).kind(), io::ErrorKind::NotFound);
        let e = Error::TooLarge { path: "/etc/group".into(), limit: 10 };
        assert_eq!(e.to_string(), "/etc/group exceeds 10 bytes");
    }
}
