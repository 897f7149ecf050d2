//! Changes below a [`Root`].

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{
    AtFlags, CWD, Dev, Mode, OFlags, fchmod, ftruncate, linkat, mkdirat, mknodat, openat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::{Root, at, resolve};
use crate::error::{Error, Result};
use crate::meta::{FileKind, FileTime};

impl Root {
    /// Opens a directory, making what is missing with `create` (parent's handle, name, path without links).
    pub(crate) fn open_or_create(
        &self,
        path: &Path,
        create: &mut dyn FnMut(BorrowedFd<'_>, &OsStr, &Path) -> Result<(), Errno>,
    ) -> Result<OwnedFd, Errno> {
        match resolve::open(self.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => resolve::open_or_create(self.as_fd(), path, create),
            done => done,
        }
    }

    /// Makes a directory and its missing parents with these permissions, owner and time, whatever the umask says; what
    /// exists stays as it is. Dangling links are followed: their target is made. Returns what was made, outermost
    /// first, as paths without links.
    pub fn create_dir_all(
        &self,
        path: impl AsRef<Path>,
        mode: u32,
        owner: Option<(u32, u32)>,
        mtime: Option<SystemTime>,
    ) -> Result<Vec<PathBuf>> {
        let path = path.as_ref();
        let mut created = Vec::new();
        let mut create = |dir: BorrowedFd<'_>, name: &OsStr, full: &Path| {
            match mkdirat(dir, name, Mode::from_raw_mode(mode & 0o777)) {
                Ok(()) => created.push(full.to_path_buf()),
                // Someone else was quicker; the walk goes on with what is there.
                Err(Errno::EXIST) => return Ok(()),
                Err(e) => return Err(e),
            }
            let fd = at::open_dir(dir, name)?;
            if let Some((uid, gid)) = owner {
                at::chown(dir, name, uid, gid)?;
            }
            fchmod(&fd, Mode::from_raw_mode(mode & 0o7777))?;
            match mtime {
                Some(t) => at::utimens(dir, name, t.into(), t.into()),
                None => Ok(()),
            }
        };
        self.open_or_create(path, &mut create).map_err(|e| Error::sys("mkdir", path, e))?;
        Ok(created)
    }

    /// Makes one directory; the parent must exist and nothing may be at `path`.
    pub fn create_dir(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        let path = path.as_ref();
        let (dir, name) = self.parent(path)?;
        let make = || {
            mkdirat(&dir, &name, Mode::from_raw_mode(mode & 0o777))?;
            fchmod(at::open_dir(dir.as_fd(), &name)?, Mode::from_raw_mode(mode & 0o7777))
        };
        make().map_err(|e| Error::sys("mkdir", path, e))
    }

    /// Writes a regular file. Links are followed inside the root, also a dangling one; an existing file is truncated
    /// and keeps its permissions, a new one gets `mode` whatever the umask says. Devices and FIFOs are refused unopened.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<()> {
        let path = path.as_ref();
        let mut file = self.create_file(path, mode)?;
        file.write_all(bytes).map_err(|e| Error::io("write", path, &e))
    }

    /// Opens a regular file for writing, as [`Root::write_file`] does; an existing one is emptied.
    pub fn create_file(&self, path: impl AsRef<Path>, mode: u32) -> Result<File> {
        let path = path.as_ref();
        let fail = |e| Error::sys("open", path, e);
        let (dir, name, _) = resolve::target(self.as_fd(), path).map_err(fail)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&dir, &name, flags, Mode::from_raw_mode(mode & 0o7777)) {
            Ok(fd) => {
                fchmod(&fd, Mode::from_raw_mode(mode & 0o7777)).map_err(fail)?;
                return Ok(File::from(fd));
            }
            Err(Errno::EXIST) => {}
            Err(e) => return Err(fail(e)),
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = openat(&dir, &name, flags, Mode::empty()).map_err(fail)?;
        match at::fstat(place.as_fd()).map_err(fail)?.kind {
            FileKind::File => {}
            FileKind::Dir => return Err(fail(Errno::ISDIR)),
            _ => return Err(Error::NotRegular { path: path.to_path_buf() }),
        }
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = openat(CWD, at::proc_path(place.as_fd()), flags, Mode::empty()).map_err(fail)?;
        ftruncate(&fd, 0).map_err(fail)?;
        Ok(File::from(fd))
    }

    /// Makes a symbolic link at `path` with any text as target; nothing may be at `path`.
    pub fn symlink(&self, target: impl AsRef<OsStr>, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (dir, name) = self.parent(path)?;
        symlinkat(target.as_ref(), dir, &name).map_err(|e| Error::sys("symlink", path, e))
    }

    /// Makes a hard link at `path` to the object at `existing`; a link there is itself linked, not followed.
    pub fn hard_link(&self, existing: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (from, old) = self.parent(existing)?;
        let (to, new) = self.parent(path)?;
        linkat(from, &old, to, &new, AtFlags::empty()).map_err(|e| Error::sys("link", path, e))
    }

    /// Makes a device, FIFO or socket; `rdev` is major and minor, for devices only.
    pub fn mknod(&self, path: impl AsRef<Path>, kind: FileKind, mode: u32, rdev: (u32, u32)) -> Result<()> {
        let path = path.as_ref();
        let (dir, name) = self.parent(path)?;
        let dev: Dev = rustix::fs::makedev(rdev.0, rdev.1);
        let make = || {
            mknodat(&dir, &name, kind.to_file_type(), Mode::from_raw_mode(mode & 0o7777), dev)?;
            at::chmod(dir.as_fd(), &name, mode)
        };
        make().map_err(|e| Error::sys("mknod", path, e))
    }

    /// Renames inside the root, replacing what is at `to`; links in the last place are not followed.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        let from = from.as_ref();
        let (old_dir, old) = self.parent(from)?;
        let (new_dir, new) = self.parent(to)?;
        rustix::fs::renameat(old_dir, &old, new_dir, &new).map_err(|e| Error::sys("rename", from, e))
    }

    /// Removes a file, link or empty directory.
    pub fn remove(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (dir, name) = self.parent(path)?;
        let removed = match unlinkat(&dir, &name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => unlinkat(&dir, &name, AtFlags::REMOVEDIR),
            done => done,
        };
        removed.map_err(|e| Error::sys("remove", path, e))
    }

    /// Removes `path` and everything below it, following no link. Missing is fine. The root itself stays, emptied.
    pub fn remove_all(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (dir, name) = match self.parent(path) {
            Err(e) if e.is_not_found() => return Ok(()),
            other => other?,
        };
        let remove = || {
            if name != "." {
                return at::remove_all(dir.as_fd(), &name);
            }
            for (child, _) in at::Listing::read(dir.as_fd())?.iter() {
                at::remove_all(dir.as_fd(), child)?;
            }
            Ok(())
        };
        remove().map_err(|e| Error::sys("remove", path, e))
    }

    /// Changes owner and group; a link's own.
    pub fn chown(&self, path: impl AsRef<Path>, uid: u32, gid: u32) -> Result<()> {
        let path = path.as_ref();
        let (dir, name) = self.parent(path)?;
        at::chown(dir.as_fd(), &name, uid, gid).map_err(|e| Error::sys("chown", path, e))
    }

    /// Changes the permission bits (07777). A link in the last place is an error: links have none.
    pub fn chmod(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        let path = path.as_ref();
        let (dir, name) = self.parent(path)?;
        at::chmod(dir.as_fd(), &name, mode).map_err(|e| Error::sys("chmod", path, e))
    }

    /// Sets access and modification time; a link's own.
    pub fn utimens(&self, path: impl AsRef<Path>, atime: FileTime, mtime: FileTime) -> Result<()> {
        let path = path.as_ref();
        let (dir, name) = self.parent(path)?;
        at::utimens(dir.as_fd(), &name, atime, mtime).map_err(|e| Error::sys("utimes", path, e))
    }

    /// Sets an extended attribute; a link's own.
    pub fn set_xattr(&self, path: impl AsRef<Path>, key: impl AsRef<OsStr>, value: &[u8]) -> Result<()> {
        let path = path.as_ref();
        let (dir, name) = self.parent(path)?;
        at::set_xattr(dir.as_fd(), &name, key.as_ref(), value).map_err(|e| Error::sys("set xattr", path, e))
    }

    /// Removes an extended attribute; a missing one is fine.
    pub fn remove_xattr(&self, path: impl AsRef<Path>, key: impl AsRef<OsStr>) -> Result<()> {
        let path = path.as_ref();
        let (dir, name) = self.parent(path)?;
        match at::remove_xattr(dir.as_fd(), &name, key.as_ref()) {
            Ok(()) | Err(Errno::NODATA) => Ok(()),
            Err(e) => Err(Error::sys("remove xattr", path, e)),
        }
    }

    /// Flushes the directory itself: names made or removed in it are then durable.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::fsync(self.as_fd()).map_err(|e| Error::sys("sync", "/", e))
    }
}
