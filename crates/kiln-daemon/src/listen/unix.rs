//! Sockets that are files.

use super::{ListenError, Socket};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// The path of a socket, removed when dropped.
#[derive(Debug)]
pub(crate) struct SocketPath(PathBuf);

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Listens on a path; a socket that nobody answers on is replaced.
pub(super) fn listen(path: &str, (uid, gid): (Option<u32>, Option<u32>)) -> Result<Socket, ListenError> {
    let path = PathBuf::from(path);
    let io = |step| {
        let address = format!("unix://{}", path.display());
        move |source| ListenError::Io { address, step, source }
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(io("make its folder"))?;
    }
    remove_stale(&path)?;
    let socket = UnixListener::bind(&path).map_err(io("bind"))?;
    let remove = SocketPath(path.clone());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660)).map_err(io("set its mode"))?;
    if uid.is_some() || gid.is_some() {
        chown(&path, uid, gid).map_err(io("set its owner"))?;
    }
    Ok(Socket::Unix(socket, Some(remove)))
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
