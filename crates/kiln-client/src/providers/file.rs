//! An archive as a file that appears when it is complete.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_fs::Root;
use kiln_fs::atomic::TempFile;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// Writes all of `from` to `path`. Until the end of `from` nothing is seen there, and after an error never; what is no
/// regular file (a pipe, a device) is written to directly.
pub(super) async fn write_file(path: &Path, mut from: impl AsyncRead + Unpin) -> io::Result<u64> {
    let (pieces, mut queue) = mpsc::channel::<Vec<u8>>(4);
    let target = path.to_path_buf();
    let (complete, finished) = std::sync::mpsc::channel::<()>();
    let writer = tokio::task::spawn_blocking(move || {
        let mut target = Target::open(&target)?;
        while let Some(piece) = queue.blocking_recv() {
            target.file().write_all(&piece)?;
        }
        // Without a word the sender was dropped in the middle.
        match finished.recv() {
            Ok(()) => target.persist(),
            Err(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    });
    let mut total = 0;
    loop {
        let mut piece = Vec::with_capacity(CHUNK);
        if (&mut from).take(CHUNK as u64).read_buf(&mut piece).await? == 0 {
            break;
        }
        total += piece.len() as u64;
        if pieces.send(piece).await.is_err() {
            break;
        }
    }
    let _ = complete.send(());
    drop(pieces);
    writer.await.map_err(io::Error::other)??;
    Ok(total)
}

enum Target {
    Direct(File),
    Temporary { file: TempFile, name: std::ffi::OsString },
}

impl Target {
    fn open(path: &Path) -> io::Result<Self> {
        // A link to a file stays a link.
        let real = std::fs::canonicalize(path);
        let existing = real.as_ref().ok().and_then(|p| p.metadata().ok());
        if existing.as_ref().is_some_and(|m| !m.is_file()) {
            return Ok(Self::Direct(File::options().write(true).open(path)?));
        }
        let real = real.unwrap_or_else(|_| path.to_path_buf());
        let name =
            real.file_name().filter(|n| !n.as_bytes().is_empty()).ok_or(io::ErrorKind::InvalidInput)?;
        let dir = match real.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let file = TempFile::create_in(&Root::open(dir)?)?;
        if let Some(existing) = existing {
            let mode = std::os::unix::fs::PermissionsExt::mode(&existing.permissions());
            file.file().set_permissions(<Permissions as std::os::unix::fs::PermissionsExt>::from_mode(
                mode & 0o777,
            ))?;
        }
        Ok(Self::Temporary { name: name.to_os_string(), file })
    }

    fn file(&mut self) -> &mut dyn Write {
        match self {
            Self::Direct(file) => file,
            Self::Temporary { file, .. } => file,
        }
    }

    fn persist(self) -> io::Result<()> {
        match self {
            Self::Direct(_) => Ok(()),
            Self::Temporary { file, name } => Ok(file.persist(name)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    struct Broken(u64);

    impl AsyncRead for Broken {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buf: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            if self.0 == 0 {
                return std::task::Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            self.0 -= 1;
            buf.put_slice(b"part");
            std::task::Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_file_appears_complete_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.tar");
        assert_eq!(write_file(&path, &vec![7; 1 << 20][..]).await.unwrap(), 1 << 20);
        assert_eq!(std::fs::read(&path).unwrap().len(), 1 << 20);
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let link = dir.path().join("link");
        symlink("out.tar", &link).unwrap();
        write_file(&link, &b"new"[..]).await.unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_failed_transfer_leaves_nothing_or_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.tar");
        assert!(write_file(&path, Broken(3)).await.is_err());
        // The writer notices a moment later.
        let gone = async {
            while std::fs::read_dir(dir.path()).unwrap().count() > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), gone).await.expect("nothing stays");
        std::fs::write(&path, "old").unwrap();
        assert!(write_file(&path, Broken(3)).await.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
    }

    #[tokio::test]
    async fn devices_are_written_to_and_stay() {
        write_file(Path::new("/dev/null"), &b"x"[..]).await.unwrap();
        assert!(!Path::new("/dev/null").metadata().unwrap().is_file());
        assert!(write_file(Path::new("/nonexistent/x"), &b"x"[..]).await.is_err());
    }
}
