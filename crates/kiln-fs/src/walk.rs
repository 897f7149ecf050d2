//! A sorted walk of a tree, parents before children, names by bytes: the order of fsutil, which is the order of paths
//! with `/` counted as the smallest byte.
//!
//! Directories are read with `getdents64`; an object is only asked about (`statx`) when the visitor wants to know
//! more than name and type, so that what is ignored costs nothing.

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::meta::{FileKind, Metadata};
use crate::root::at::{self, Listing};
use crate::root::{Root, Xattrs};

/// What to do after an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Go on; into the entry if it is a directory.
    Continue,
    /// Go on, but not into this directory.
    SkipDir,
    /// End the walk, successfully.
    Stop,
}

/// One object of a walk. It lives as long as the visit.
#[derive(Debug)]
pub struct Entry<'a> {
    path: &'a Path,
    name: &'a OsStr,
    dir: BorrowedFd<'a>,
    hint: Option<FileKind>,
    metadata: OnceCell<Metadata>,
}

impl Entry<'_> {
    /// The path relative to where the walk began, without a leading slash.
    pub fn path(&self) -> &Path {
        self.path
    }

    /// The last element of the path.
    pub fn name(&self) -> &OsStr {
        self.name
    }

    /// The open directory the entry is in.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir
    }

    /// Its type; asks the kernel only on filesystems that do not store it with the name.
    pub fn kind(&self) -> Result<FileKind> {
        match self.hint {
            Some(kind) => Ok(kind),
            None => Ok(self.metadata()?.kind),
        }
    }

    /// What the kernel says about it, links not followed; asked once.
    pub fn metadata(&self) -> Result<&Metadata> {
        if let Some(m) = self.metadata.get() {
            return Ok(m);
        }
        let m = at::stat(self.dir, self.name).map_err(|e| Error::sys("stat", self.path, e))?;
        Ok(self.metadata.get_or_init(|| m))
    }

    /// The target of a symbolic link.
    pub fn read_link(&self) -> Result<PathBuf> {
        let link = at::read_link(self.dir, self.name);
        Ok(PathBuf::from(link.map_err(|e| Error::sys("readlink", self.path, e))?))
    }

    /// Its extended attributes.
    pub fn xattrs(&self) -> Result<Xattrs> {
        at::xattrs(self.dir, self.name).map_err(|e| Error::sys("list xattrs", self.path, e))
    }

    /// Opens a regular file for reading. Anything else is refused; a link or FIFO that was put there since is not
    /// followed and not waited for.
    pub fn open(&self) -> Result<File> {
        if self.metadata()?.kind != FileKind::File {
            return Err(Error::NotRegular { path: self.path.to_path_buf() });
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = openat(self.dir, self.name, flags, Mode::empty());
        Ok(File::from(fd.map_err(|e| Error::sys("open", self.path, e))?))
    }
}

struct Level {
    fd: OwnedFd,
    list: Listing,
    next: usize,
    /// Length of the directory's path.
    len: usize,
}

impl Level {
    fn open(dir: BorrowedFd<'_>, name: &OsStr, len: usize) -> Result<Level, Errno> {
        let fd = at::open_dir(dir, name)?;
        let mut list = Listing::read(fd.as_fd())?;
        list.sort();
        Ok(Level { fd, list, next: 0, len })
    }
}

/// A walk that is gone on with when its user likes; nothing is held but the directories on the way.
pub struct Cursor {
    levels: Vec<Level>,
    path: Vec<u8>,
    /// Of the present entry.
    kind: FileKind,
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor").field("entry", &self.entry()).finish_non_exhaustive()
    }
}

impl Cursor {
    /// At the first entry below `start`, a directory; links in it are followed inside the root.
    pub fn new(root: &Root, start: impl AsRef<Path>) -> Result<Cursor> {
        let start = start.as_ref();
        let top = root.open_dir(start)?;
        let first = Level::open(top.as_fd(), OsStr::new("."), 0)
            .map_err(|e| Error::sys("read directory", start, e))?;
        let mut cursor = Cursor { levels: vec![first], path: Vec::new(), kind: FileKind::Dir };
        cursor.settle()?;
        Ok(cursor)
    }

    /// The present entry; `None` at the end.
    pub fn entry(&self) -> Option<Entry<'_>> {
        let level = self.levels.last()?;
        let (name, _) = level.list.get(level.next.checked_sub(1)?)?;
        let path = Path::new(OsStr::from_bytes(&self.path));
        let hint = Some(self.kind);
        Some(Entry { path, name, dir: level.fd.as_fd(), hint, metadata: OnceCell::new() })
    }

    /// Goes to the next entry: the first one in the present one if that is a directory and `step` does not skip it.
    /// What vanishes in between is skipped.
    pub fn advance(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Stop => self.levels.clear(),
            Step::Continue if self.kind == FileKind::Dir => self.descend()?,
            Step::Continue | Step::SkipDir => {}
        }
        self.settle()
    }

    fn descend(&mut self) -> Result<()> {
        let Some(Entry { dir, name, .. }) = self.entry() else { return Ok(()) };
        match Level::open(dir, name, self.path.len()) {
            Ok(below) => self.levels.push(below),
            // Gone, or no directory any more.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(e) => return Err(Error::sys("read directory", OsString::from_vec(self.path.clone()), e)),
        }
        Ok(())
    }

    /// Moves on to the next name that is still there.
    fn settle(&mut self) -> Result<()> {
        while let Some(level) = self.levels.last_mut() {
            let Some((name, hint)) = level.list.get(level.next) else {
                self.levels.pop();
                continue;
            };
            level.next += 1;
            self.path.truncate(level.len);
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.as_bytes());
            let path = Path::new(OsStr::from_bytes(&self.path));
            let entry = Entry { path, name, dir: level.fd.as_fd(), hint, metadata: OnceCell::new() };
            match entry.kind() {
                Err(e) if e.is_not_found() => continue,
                kind => self.kind = kind?,
            }
            return Ok(());
        }
        Ok(())
    }
}

/// Visits everything below `start` (a directory; links in it are followed inside the root), without `start` itself.
///
/// What vanishes while the walk looks at it is skipped. An error of the visitor ends the walk; an [`Error`] it passes
/// on that says "not found" about its own entry should be handled by the visitor.
pub fn walk<E: From<Error>>(
    root: &Root,
    start: impl AsRef<Path>,
    mut visit: impl FnMut(&Entry<'_>) -> Result<Step, E>,
) -> Result<(), E> {
    let mut cursor = Cursor::new(root, start)?;
    while let Some(entry) = cursor.entry() {
        let step = visit(&entry)?;
        cursor.advance(step)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
