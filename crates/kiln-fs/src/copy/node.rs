//! Copying one object that is not a directory.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode, OFlags, linkat, mknodat, openat, symlinkat, unlinkat};
use rustix::io::Errno;

use super::CopyError;
use super::tree::{Result, Tree};
use crate::meta::{FileKind, Metadata};
use crate::root::at;

impl Tree<'_> {
    /// Copies anything but a directory.
    pub(super) fn other(
        &mut self,
        src: BorrowedFd<'_>,
        name: &OsStr,
        meta: &Metadata,
        dst: BorrowedFd<'_>,
        new: &OsStr,
    ) -> Result<()> {
        match meta.kind {
            FileKind::File => return self.file(src, name, meta, dst, new),
            FileKind::Symlink => {
                let link = at::read_link(src, name).map_err(|e| self.fail("readlink", e))?;
                self.replacing(dst, new, || symlinkat(&link, dst, new))?;
            }
            // A socket means nothing without its process; an empty file keeps its place.
            FileKind::Socket => self.replacing(dst, new, || {
                mknodat(dst, new, FileKind::File.to_file_type(), Mode::from_raw_mode(0o600), 0)
            })?,
            kind => {
                let dev = rustix::fs::makedev(meta.rdev.0, meta.rdev.1);
                self.replacing(dst, new, || {
                    mknodat(dst, new, kind.to_file_type(), Mode::from_raw_mode(0o600), dev)
                })?;
            }
        }
        let (uid, gid) = self.owner(meta);
        at::chown(dst, new, uid, gid).map_err(|e| self.fail("chown", e))?;
        if meta.kind != FileKind::Symlink {
            at::chmod(dst, new, self.mode(meta)).map_err(|e| self.fail("chmod", e))?;
        }
        let (atime, mtime) = self.times(meta);
        at::utimens(dst, new, atime, mtime).map_err(|e| self.fail("utimes", e))?;
        match at::list_xattrs(src, name) {
            Ok(keys) => keys.iter().for_each(|key| {
                let done = at::get_xattr(src, name, key).and_then(|v| at::set_xattr(dst, new, key, &v));
                self.xattr_result(key, done);
            }),
            Err(e) => self.xattr_result(OsStr::new(""), Err(e)),
        }
        Ok(())
    }

    fn file(
        &mut self,
        src: BorrowedFd<'_>,
        name: &OsStr,
        meta: &Metadata,
        dst: BorrowedFd<'_>,
        new: &OsStr,
    ) -> Result<()> {
        if meta.nlink > 1 && self.link(meta, dst, new)? {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from = openat(src, name, flags, Mode::empty()).map_err(|e| self.fail("open", e))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = self.replacing(dst, new, || openat(dst, new, flags, Mode::from_raw_mode(0o600)))?;
        let go_on = || self.copier.check_cancelled().is_ok();
        match self.data.copy(from.as_fd(), meta, to.as_fd(), &go_on) {
            Err(Errno::CANCELED) => return Err(CopyError::Cancelled),
            done => done.map_err(|e| self.fail("copy", e))?,
        }
        self.finish_fd(from.as_fd(), meta, to.as_fd())
    }

    /// Makes a hard link if another name of the file was copied before. Remembers this one if not.
    fn link(&mut self, meta: &Metadata, dst: BorrowedFd<'_>, new: &OsStr) -> Result<bool> {
        let key = (meta.dev, meta.ino);
        let Some(first) = self.links.get(&key).cloned() else {
            let path = self.path();
            self.links.insert(key, path);
            return Ok(false);
        };
        let (dir, name) = self.dst.parent(&first)?;
        match self.replacing(dst, new, || linkat(&dir, &name, dst, new, AtFlags::empty())) {
            // As many links as the filesystem takes, or the first name is gone again: a copy will do.
            Err(CopyError::Fs(e)) if matches!(e.errno(), Some(Errno::MLINK | Errno::NOENT)) => {
                let path = self.path();
                self.links.insert(key, path);
                Ok(false)
            }
            done => done.map(|()| true),
        }
    }

    /// Runs `make`; if something is in the way and may be replaced, removes it and tries again.
    fn replacing<T>(
        &self,
        dst: BorrowedFd<'_>,
        new: &OsStr,
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T> {
        match make() {
            Err(Errno::EXIST) => {}
            done => return done.map_err(|e| self.fail("create", e)),
        }
        let is_dir = at::stat(dst, new).map_err(|e| self.fail("stat", e))?.is_dir();
        let removed = match is_dir {
            true if self.copier.options.replace_existing => at::remove_all(dst, new),
            true => return Err(CopyError::IsDirectory(self.path())),
            false => unlinkat(dst, new, AtFlags::empty()),
        };
        removed.and_then(|()| make()).map_err(|e| self.fail("replace", e))
    }
}
