//! Placing one entry.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, Uid, XattrFlags, fchmod, fchown, fsetxattr, futimens, mkdirat};
use rustix::io::Errno;

use super::layer::Layer;
use super::target::Target;
use super::{ArchiveOptions, LayerOptions, UnpackError};
use crate::error::Error;
use crate::meta::{FileKind, FileTime};
use crate::paths;
use crate::root::{Root, at};
use crate::tar::{Entry, EntryKind, Reader};

/// Attributes that say how overlayfs or an LSM of the host treats a file; an archive has no say in them.
const ADMIN_XATTRS: &[u8] = b"trusted.";
const USER_OVERLAY_XATTRS: &[u8] = b"user.overlay.";

pub(super) struct Extractor<'a> {
    pub(super) root: &'a Root,
    owner: Option<(u32, u32)>,
    /// Whiteout handling; `None` for plain archives.
    layer: Option<Layer<'a>>,
    /// The directory of the last entry: archives list files of a directory together.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Directories whose times are set at the end, when nothing changes them any more.
    dirs: Vec<(PathBuf, FileTime, FileTime)>,
}

pub(super) type Placed = Result<(), Error>;

impl<'a> Extractor<'a> {
    pub(super) fn for_layer(root: &'a Root, options: LayerOptions<'a>) -> Extractor<'a> {
        Extractor { root, owner: None, layer: Some(Layer::new(options)), parent: None, dirs: Vec::new() }
    }

    pub(super) fn for_archive(root: &'a Root, options: ArchiveOptions) -> Extractor<'a> {
        Extractor { root, owner: options.owner, layer: None, parent: None, dirs: Vec::new() }
    }

    pub(super) fn place<R: Read>(
        &mut self,
        entry: &Entry,
        content: &mut Reader<R>,
    ) -> Result<(), UnpackError> {
        let path = paths::absolute(&entry.path);
        if path == Path::new("/") {
            return Ok(());
        }
        let failed = |source| UnpackError::Place { entry: entry.path.clone(), source };
        let name = paths::base(&path);
        let parent = self.parent_of(path.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
        let dir_fd = parent.1.as_fd();
        if let Some(layer) = &mut self.layer {
            match layer.whiteout(dir_fd, name) {
                Ok(false) => {}
                Ok(true) => return Ok(()),
                Err(None) => return Err(UnpackError::BadWhiteout { entry: entry.path.clone() }),
                Err(Some(e)) => return Err(failed(Error::sys("whiteout", &path, e))),
            }
        }
        let mut replaced = false;
        let target =
            Target { dir: dir_fd, name, path: &path, layer: self.layer.as_ref(), replaced: &mut replaced };
        self.create(entry, target, content)?;
        if let Some(layer) = &mut self.layer {
            layer.note(dir_fd, name).map_err(|e| failed(Error::sys("stat", &path, e)))?;
        }
        // What was removed may have been a directory that is on the way to others.
        self.parent = if replaced { None } else { Some(parent) };
        if entry.kind == EntryKind::Dir {
            let (atime, mtime) = times(entry);
            self.dirs.push((path, atime, mtime));
        }
        Ok(())
    }

    fn create<R: Read>(
        &self,
        entry: &Entry,
        mut target: Target<'_>,
        content: &mut Reader<R>,
    ) -> Result<(), UnpackError> {
        let failed = |source| UnpackError::Place { entry: entry.path.clone(), source };
        match entry.kind {
            EntryKind::File => {
                let mut file = target.create_file().map_err(failed)?;
                content
                    .copy_content_to(&mut file)
                    .map_err(|source| UnpackError::Content { entry: entry.path.clone(), source })?;
                self.file_metadata(entry, &file, &target).map_err(failed)
            }
            EntryKind::Dir => {
                target.create_dir().and_then(|()| self.metadata(entry, &target)).map_err(failed)
            }
            EntryKind::Symlink => {
                target.symlink(&entry.link).and_then(|()| self.metadata(entry, &target)).map_err(failed)
            }
            EntryKind::HardLink => target
                .hard_link(self.root, &entry.link)
                .and_then(|()| self.metadata(entry, &target))
                .map_err(failed),
            EntryKind::CharDevice => self.device(entry, target, FileKind::CharDevice).map_err(failed),
            EntryKind::BlockDevice => self.device(entry, target, FileKind::BlockDevice).map_err(failed),
            EntryKind::Fifo => self.device(entry, target, FileKind::Fifo).map_err(failed),
            EntryKind::GlobalHeader => Ok(()),
            EntryKind::Other(flag) => Err(UnpackError::UnknownKind { entry: entry.path.clone(), flag }),
        }
    }

    fn device(&self, entry: &Entry, mut target: Target<'_>, kind: FileKind) -> Placed {
        let rdev = if kind == FileKind::Fifo { (0, 0) } else { entry.rdev };
        match target.mknod(kind, rdev) {
            // Devices cannot be made in a user namespace; runc and containerd leave them out there too.
            Err(e) if e.errno() == Some(Errno::PERM) && kind != FileKind::Fifo => {
                tracing::warn!(path = %target.path.display(), "device left out: not permitted");
                Ok(())
            }
            Err(e) => Err(e),
            Ok(()) => self.metadata(entry, &target),
        }
    }

    /// Owner, attributes, mode, times of a new regular file.
    fn file_metadata(&self, entry: &Entry, file: &File, target: &Target<'_>) -> Placed {
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        let (atime, mtime) = times(entry);
        let set = || {
            fchown(file, raw_uid(uid), raw_gid(gid))?;
            fchmod(file, Mode::from_raw_mode(entry.mode & 0o7777))
        };
        set().map_err(|e| Error::sys("set owner and mode of", target.path, e))?;
        for (key, value) in &entry.xattrs {
            self.xattr(key, target, || fsetxattr(file, key, value, XattrFlags::empty()))?;
        }
        futimens(file, &at::times(atime, mtime)).map_err(|e| Error::sys("utimes", target.path, e))
    }

    /// The same for everything else.
    fn metadata(&self, entry: &Entry, target: &Target<'_>) -> Placed {
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        let Target { dir, name, path, .. } = *target;
        if entry.kind == EntryKind::HardLink {
            let there = at::stat(dir, name).map_err(|e| Error::sys("stat", path, e))?;
            // Setting the owner again would remove the capabilities of the file.
            if (there.uid, there.gid, there.mode) == (uid, gid, entry.mode & 0o7777) {
                return Ok(());
            }
        }
        at::chown(dir, name, uid, gid).map_err(|e| Error::sys("chown", path, e))?;
        for (key, value) in &entry.xattrs {
            self.xattr(key, target, || at::set_xattr(dir, name, key, value))?;
        }
        // Links have no mode; a hard link may lead to one.
        if entry.kind != EntryKind::Symlink {
            match at::chmod(dir, name, entry.mode) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP) if entry.kind == EntryKind::HardLink => {}
                Err(e) => return Err(Error::sys("chmod", path, e)),
            }
        }
        let (atime, mtime) = times(entry);
        at::utimens(dir, name, atime, mtime).map_err(|e| Error::sys("utimes", path, e))
    }

    fn xattr(&self, key: &OsStr, target: &Target<'_>, set: impl Fn() -> Result<(), Errno>) -> Placed {
        let bytes = key.as_bytes();
        if bytes.starts_with(ADMIN_XATTRS) || bytes.starts_with(USER_OVERLAY_XATTRS) {
            tracing::warn!(path = %target.path.display(), ?key, "extended attribute of an archive left out");
            return Ok(());
        }
        let ignorable = match set() {
            Ok(()) => return Ok(()),
            Err(e @ Errno::OPNOTSUPP) => Ok(e),
            // user.* exists on files and directories only (xattr(7)); plain archives are unpacked as far as allowed.
            Err(e @ Errno::PERM) if self.layer.is_none() || bytes.starts_with(b"user.") => Ok(e),
            Err(e) => Err(e),
        };
        let e = ignorable.map_err(|e| Error::sys("set xattr", target.path, e))?;
        tracing::warn!(path = %target.path.display(), ?key, error = %e, "extended attribute left out");
        Ok(())
    }

    /// The handle of a directory; made with its parents if the archive did not list it.
    fn parent_of(&mut self, dir: &Path) -> Result<(PathBuf, OwnedFd), Error> {
        if let Some(cached) = self.parent.take().filter(|(path, _)| path == dir) {
            return Ok(cached);
        }
        let Extractor { root, layer, dirs, .. } = self;
        let mut create = |parent: BorrowedFd<'_>, name: &OsStr, full: &Path| {
            mkdirat(parent, name, Mode::from_raw_mode(0o755)).or_else(ignore_existing)?;
            fchmod(at::open_dir(parent, name)?, Mode::from_raw_mode(0o755))?;
            if let Some(layer) = layer
                && let Some((atime, mtime)) = layer.inherit(parent, name, full)?
            {
                dirs.push((full.to_path_buf(), atime, mtime));
            }
            Ok(())
        };
        let fd = root.open_or_create(dir, &mut create).map_err(|e| Error::sys("mkdir", dir, e))?;
        Ok((dir.to_path_buf(), fd))
    }

    /// Sets the times of directories, the deepest names last listed first.
    pub(super) fn finish(&mut self) -> Result<(), UnpackError> {
        for (path, atime, mtime) in self.dirs.drain(..) {
            let set = || -> Placed {
                let (dir, name) = self.root.parent(&path)?;
                match at::stat(dir.as_fd(), &name) {
                    Ok(m) if m.is_dir() => {}
                    // Replaced or removed by a later entry.
                    Ok(_) | Err(Errno::NOENT) => return Ok(()),
                    Err(e) => return Err(Error::sys("stat", &path, e)),
                }
                at::utimens(dir.as_fd(), &name, atime, mtime).map_err(|e| Error::sys("utimes", &path, e))
            };
            match set() {
                Err(e) if e.is_not_found() => {}
                done => done.map_err(|source| UnpackError::Place { entry: path.clone(), source })?,
            }
        }
        Ok(())
    }
}

fn ignore_existing(e: Errno) -> Result<(), Errno> {
    if e == Errno::EXIST { Ok(()) } else { Err(e) }
}

/// `-1` means "leave as it is" to chown(2); in an archive it is a number that cannot be kept.
fn raw_uid(uid: u32) -> Option<Uid> {
    (uid != u32::MAX).then(|| Uid::from_raw(uid))
}

fn raw_gid(gid: u32) -> Option<Gid> {
    (gid != u32::MAX).then(|| Gid::from_raw(gid))
}

/// Access and modification time; what lies before 1970 becomes 1970, the access is never older than the change.
fn times(entry: &Entry) -> (FileTime, FileTime) {
    let mtime = entry.mtime.max(FileTime::EPOCH);
    let atime = entry.atime.unwrap_or(mtime).max(mtime);
    (atime, mtime)
}
