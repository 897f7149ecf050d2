//! A directory handle below which paths are resolved as in a chroot.

pub(crate) mod at;
mod resolve;
mod write;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

pub use self::at::Xattrs;
use crate::error::{Error, Result};
use crate::meta::{FileKind, Metadata};
use crate::paths;

/// An open directory that is the `/` of every path given to it.
///
/// Symbolic links are followed inside it: an absolute link starts at this directory, `..` stops at it. Magic links
/// (`/proc/<pid>/root`) are not followed. Nothing outside can be reached whatever another process renames meanwhile.
/// Relative and absolute paths mean the same.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without path.
    pub name: OsString,
    /// Its type.
    pub kind: FileKind,
}

impl Root {
    /// Opens a directory of the host, following links. This is the one way in: `path` must be our own.
    pub fn open(path: impl AsRef<Path>) -> Result<Root> {
        let path = path.as_ref();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, path, flags, Mode::empty()).map_err(|e| Error::sys("open", path, e))?;
        Ok(Root { fd })
    }

    /// Takes an open directory. A handle opened with `O_PATH` can resolve but not list or sync.
    pub fn from_fd(fd: OwnedFd) -> Root {
        Root { fd }
    }

    /// The directory's handle.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A second handle to the same directory.
    pub fn try_clone(&self) -> Result<Root> {
        let fd = self.fd.try_clone().map_err(|e| Error::io("duplicate", "/", &e))?;
        Ok(Root { fd })
    }

    /// Gives the handle away.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Opens an object as a place only (`O_PATH`): devices and FIFOs are not touched by it.
    pub fn open_path(&self, path: impl AsRef<Path>, follow: bool) -> Result<OwnedFd> {
        let path = path.as_ref();
        self.open_raw(path, follow).map_err(|e| Error::sys("open", path, e))
    }

    fn open_raw(&self, path: &Path, follow: bool) -> Result<OwnedFd, Errno> {
        let nofollow = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        resolve::open(self.as_fd(), path, OFlags::PATH | nofollow, Mode::empty())
    }

    /// Opens a regular file for reading, links followed. Anything else is refused before it is opened, because opening
    /// a device can already act on the host.
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<File> {
        let path = path.as_ref();
        let place = self.open_path(path, true)?;
        let meta = at::fstat(place.as_fd()).map_err(|e| Error::sys("stat", path, e))?;
        if meta.is_dir() {
            return Err(Error::sys("read", path, Errno::ISDIR));
        }
        if !meta.is_file() {
            return Err(Error::NotRegular { path: path.to_path_buf() });
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = openat(CWD, at::proc_path(place.as_fd()), flags, Mode::empty());
        Ok(File::from(fd.map_err(|e| Error::sys("open", path, e))?))
    }

    /// Opens a directory as a root of its own, links followed.
    pub fn open_dir(&self, path: impl AsRef<Path>) -> Result<Root> {
        let path = path.as_ref();
        let fd = resolve::open(self.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
        Ok(Root { fd: fd.map_err(|e| Error::sys("open", path, e))? })
    }

    /// The handle of the directory that holds `path`, and the last name. Links in parents are followed, the last
    /// element is not looked at. The path is cleaned first, so the name is never `..`; for the root it is `.`.
    pub fn parent(&self, path: impl AsRef<Path>) -> Result<(OwnedFd, OsString)> {
        let clean = paths::absolute(path.as_ref());
        let (dir, name) = match clean.parent() {
            Some(dir) => (dir, paths::base(&clean)),
            None => (clean.as_path(), OsStr::new(".")),
        };
        let fd = resolve::open(self.as_fd(), dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .map_err(|e| Error::sys("open", dir, e))?;
        Ok((fd, name.to_os_string()))
    }

    /// Where `path` leads when all links are followed: the directory's handle, the name in it (which may not exist yet)
    /// and the path without links.
    pub fn target(&self, path: impl AsRef<Path>) -> Result<(OwnedFd, OsString, PathBuf)> {
        let path = path.as_ref();
        resolve::target(self.as_fd(), path).map_err(|e| Error::sys("resolve", path, e))
    }

    /// The path below the root without links, absolute and clean. Elements that do not exist are kept as written.
    pub fn canonical(&self, path: impl AsRef<Path>, follow_last: bool) -> Result<PathBuf> {
        let path = path.as_ref();
        resolve::canonical(self.as_fd(), path, follow_last).map_err(|e| Error::sys("resolve", path, e))
    }

    /// What the kernel says about an object.
    pub fn metadata(&self, path: impl AsRef<Path>, follow: bool) -> Result<Metadata> {
        let path = path.as_ref();
        let stat = || at::fstat(self.open_raw(path, follow)?.as_fd());
        stat().map_err(|e| Error::sys("stat", path, e))
    }

    /// Whether something is there; a missing or non-directory parent is "no".
    pub fn exists(&self, path: impl AsRef<Path>, follow: bool) -> Result<bool> {
        match self.metadata(path, follow) {
            Ok(_) => Ok(true),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The content of a regular file of at most `limit` bytes.
    pub fn read(&self, path: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let mut bytes = Vec::new();
        let file = self.open_file(path)?;
        let n = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
        n.map_err(|e| Error::io("read", path, &e))?;
        if bytes.len() as u64 > limit {
            return Err(Error::TooLarge { path: path.to_path_buf(), limit });
        }
        Ok(bytes)
    }

    /// The target of a symbolic link, as written in it.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        let path = path.as_ref();
        let (dir, name) = self.parent(path)?;
        let link = at::read_link(dir.as_fd(), &name).map_err(|e| Error::sys("readlink", path, e))?;
        Ok(PathBuf::from(link))
    }

    /// The names in a directory, sorted by bytes.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<Vec<DirEntry>> {
        let path = path.as_ref();
        let dir = self.open_dir(path)?;
        let read = || {
            let mut list = at::Listing::read(dir.as_fd())?;
            list.sort();
            let mut entries = Vec::with_capacity(list.len());
            for (name, kind) in list.iter() {
                let kind = match kind {
                    Some(kind) => kind,
                    None => at::stat(dir.as_fd(), name)?.kind,
                };
                entries.push(DirEntry { name: name.to_os_string(), kind });
            }
            Ok(entries)
        };
        read().map_err(|e| Error::sys("read directory", path, e))
    }

    /// All extended attributes of an object, links not followed. Empty where the filesystem has none.
    pub fn xattrs(&self, path: impl AsRef<Path>) -> Result<Xattrs> {
        let path = path.as_ref();
        let (dir, name) = self.parent(path)?;
        at::xattrs(dir.as_fd(), &name).map_err(|e| Error::sys("list xattrs", path, e))
    }

    /// One extended attribute, links not followed; `None` when it is not set.
    pub fn get_xattr(&self, path: impl AsRef<Path>, key: impl AsRef<OsStr>) -> Result<Option<Vec<u8>>> {
        let path = path.as_ref();
        let (dir, name) = self.parent(path)?;
        match at::get_xattr(dir.as_fd(), &name, key.as_ref()) {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(e) => Err(Error::sys("get xattr", path, e)),
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests;
