//! Where clients connect.

use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Not of a form that is known.
    #[error("address {0:?}: only unix:///path is supported so far")]
    Scheme(String),
    /// A live daemon listens there.
    #[error("address unix://{0}: another daemon listens there")]
    InUse(PathBuf),
    /// The path is taken by something else.
    #[error("address unix://{0}: the path exists and is not a socket")]
    NotASocket(PathBuf),
    /// Anything else.
    #[error("address unix://{path}: {step}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was done.
        step: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
    path: SocketPath,
}

/// The path of a socket, removed when dropped.
#[derive(Debug)]
pub(crate) struct SocketPath(PathBuf);

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// The socket, and what removes its path.
    pub(crate) fn split(self) -> (UnixListener, SocketPath) {
        (self.socket, self.path)
    }
}

/// Listens on `unix:///path`; a socket that nobody answers on is replaced. Only the owner and `gid` may connect.
pub(crate) fn listen(address: &str, uid: Option<u32>, gid: Option<u32>) -> Result<Listener, ListenError> {
    let path = address.strip_prefix("unix://").ok_or_else(|| ListenError::Scheme(address.to_string()))?;
    let path = PathBuf::from(path);
    let io = |step| {
        let path = path.clone();
        move |source| ListenError::Io { path, step, source }
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(io("make its folder"))?;
    }
    remove_stale(&path)?;
    let socket = UnixListener::bind(&path).map_err(io("bind"))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660)).map_err(io("set its mode"))?;
    if uid.is_some() || gid.is_some() {
        chown(&path, uid, gid).map_err(io("set its owner"))?;
    }
    Ok(Listener { socket, path: SocketPath(path) })
}

fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.into()));
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ListenError::InUse(path.into()));
    }
    let _ = std::fs::remove_file(path);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stale_sockets_are_replaced_and_live_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/s.sock");
        let address = format!("unix://{}", path.display());
        let first = listen(&address, None, None).unwrap();
        assert!(matches!(listen(&address, None, None), Err(ListenError::InUse(_))));
        drop(first);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let again = listen(&address, None, None).unwrap();
        assert_eq!(std::fs::metadata(&again.path.0).unwrap().permissions().mode() & 0o777, 0o660);
        std::fs::write(dir.path().join("f"), "").unwrap();
        let file = format!("unix://{}/f", dir.path().display());
        assert!(matches!(listen(&file, None, None), Err(ListenError::NotASocket(_))));
        assert!(matches!(listen("tcp://127.0.0.1:1", None, None), Err(ListenError::Scheme(_))));
    }
}
