//! What is special about layers: deletions, and directories that only lower layers describe.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, mknodat, unlinkat};
use rustix::io::Errno;

use super::{LayerOptions, Whiteouts};
use crate::meta::{FileKind, FileTime};
use crate::root::at::{self, Listing};

const PREFIX: &[u8] = b".wh.";
const META_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Levels of directories below an opaque one; each costs a handle and some stack.
const MAX_DEPTH: usize = 1000;

pub(super) struct Layer<'a> {
    options: LayerOptions<'a>,
    /// With [`Whiteouts::Delete`]: names this layer made, by the inode of their directory. Deletions spare them.
    made: HashSet<(u64, OsString)>,
}

impl<'a> Layer<'a> {
    pub(super) fn new(options: LayerOptions<'a>) -> Layer<'a> {
        Layer { options, made: HashSet::new() }
    }

    /// Handles a `.wh.` name; `false` if it is an ordinary one. `Err(None)`: it deletes nothing that can be.
    pub(super) fn whiteout(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<bool, Option<Errno>> {
        let Some(hidden) = name.as_bytes().strip_prefix(PREFIX) else { return Ok(false) };
        if name.as_bytes() == OPAQUE {
            match self.options.whiteouts {
                Whiteouts::Overlay { .. } => self.set_opaque(dir, OsStr::new("."))?,
                Whiteouts::Delete => self.prune(dir, 0)?,
            }
            return Ok(true);
        }
        if name.as_bytes().starts_with(META_PREFIX) {
            // AUFS' own bookkeeping in old images.
            return Ok(true);
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(None);
        }
        let hidden = OsStr::from_bytes(hidden);
        match self.options.whiteouts {
            Whiteouts::Overlay { .. } => self.hide(dir, hidden)?,
            Whiteouts::Delete => self.delete(dir, hidden)?,
        }
        Ok(true)
    }

    /// A deletion only concerns lower layers (OCI layer.md): what this layer itself put there stays, without what is
    /// below it.
    fn hide(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
        match at::stat(dir, name) {
            Ok(m) if m.is_dir() => self.set_opaque(dir, name),
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => mknodat(dir, name, FileKind::CharDevice.to_file_type(), Mode::empty(), 0),
            Err(e) => Err(e),
        }
    }

    pub(super) fn set_opaque(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
        let key = match self.options.whiteouts {
            Whiteouts::Overlay { user_xattr: false } => "trusted.overlay.opaque",
            Whiteouts::Overlay { user_xattr: true } => "user.overlay.opaque",
            Whiteouts::Delete => return Ok(()),
        };
        at::set_xattr(dir, name, OsStr::new(key), b"y")
    }

    fn delete(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
        if !self.made.contains(&(at::fstat(dir)?.ino, name.to_os_string())) {
            return at::remove_all(dir, name);
        }
        match at::open_dir(dir, name) {
            Ok(fd) => self.prune(fd.as_fd(), 0),
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Removes what lower layers put below a directory.
    fn prune(&self, dir: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
        if depth > MAX_DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        let ino = at::fstat(dir)?.ino;
        for (name, _) in Listing::read(dir)?.iter() {
            let ours = self.made.contains(&(ino, name.to_os_string()));
            match at::open_dir(dir, name) {
                Ok(below) => {
                    self.prune(below.as_fd(), depth + 1)?;
                    if !ours {
                        // Still holds something of this layer: then it stays.
                        match unlinkat(dir, name, AtFlags::REMOVEDIR) {
                            Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                            Err(e) => return Err(e),
                        }
                    }
                }
                Err(Errno::NOTDIR | Errno::LOOP) if ours => {}
                Err(Errno::NOTDIR | Errno::LOOP) => unlinkat(dir, name, AtFlags::empty())?,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Remembers that this layer made a name.
    pub(super) fn note(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
        if self.options.whiteouts == Whiteouts::Delete {
            self.made.insert((at::fstat(dir)?.ino, name.to_os_string()));
        }
        Ok(())
    }

    /// Gives a directory that the archive does not list what the lower layers say about it; its times are returned.
    pub(super) fn inherit(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
    ) -> Result<Option<(FileTime, FileTime)>, Errno> {
        for parent in self.options.parents {
            let Ok((below, base)) = parent.target(path).map(|(fd, name, _)| (fd, name)) else { continue };
            let meta = match at::stat(below.as_fd(), &base) {
                Ok(meta) if meta.is_dir() => meta,
                Ok(_) => return Ok(None),
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(e),
            };
            at::chown(dir, name, meta.uid, meta.gid)?;
            at::chmod(dir, name, meta.mode)?;
            for (key, value) in at::xattrs(below.as_fd(), &base)? {
                let overlay = key.as_bytes().starts_with(b"trusted.overlay.")
                    || key.as_bytes().starts_with(b"user.overlay.");
                if !overlay {
                    at::set_xattr(dir, name, &key, &value)?;
                }
            }
            return Ok(Some((meta.atime, meta.mtime)));
        }
        Ok(None)
    }
}
