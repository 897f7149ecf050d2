//! Operations on one name in an open directory. A name is a single path element, so nothing can be followed.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, RawDir, StatxFlags, Timestamps, Uid, XattrFlags, chownat, lgetxattr,
    llistxattr, lsetxattr, openat, readlinkat, statx, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::meta::{FileKind, FileTime, Metadata};

/// Extended attributes by name, sorted.
pub type Xattrs = BTreeMap<OsString, Vec<u8>>;

pub(crate) fn stat(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Metadata, Errno> {
    let st = statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::BASIC_STATS)?;
    Ok(Metadata::from_statx(&st))
}

pub(crate) fn fstat(fd: BorrowedFd<'_>) -> Result<Metadata, Errno> {
    Ok(Metadata::from_statx(&statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?))
}

pub(crate) fn read_link(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OsString, Errno> {
    Ok(OsString::from_vec(readlinkat(dir, name, Vec::new())?.into_bytes()))
}

/// Opens a directory for reading; fails with `NOTDIR` on anything else, links included.
pub(crate) fn open_dir(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    openat(
        dir,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
    )
}

pub(crate) fn chown(dir: BorrowedFd<'_>, name: &OsStr, uid: u32, gid: u32) -> Result<(), Errno> {
    // -1 means "leave as it is" to the kernel (chown(2)); it is no owner.
    let owner = (uid != u32::MAX).then(|| Uid::from_raw(uid));
    let group = (gid != u32::MAX).then(|| Gid::from_raw(gid));
    chownat(dir, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)
}

pub(crate) fn times(atime: FileTime, mtime: FileTime) -> Timestamps {
    Timestamps { last_access: atime.timespec(), last_modification: mtime.timespec() }
}

pub(crate) fn utimens(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    atime: FileTime,
    mtime: FileTime,
) -> Result<(), Errno> {
    utimensat(dir, name, &times(atime, mtime), AtFlags::SYMLINK_NOFOLLOW)
}

/// chmod of anything but a link. `fchmodat2` is younger than the kernels we run on, so it goes through a handle.
pub(crate) fn chmod(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<(), Errno> {
    let fd = openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if fstat(fd.as_fd())?.is_symlink() {
        return Err(Errno::OPNOTSUPP);
    }
    rustix::fs::chmod(proc_path(fd.as_fd()), Mode::from_raw_mode(mode & 0o7777))
}

/// The kernel's own link to an open file: leads to exactly that file, whatever its name is now (proc(5)).
pub(crate) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// A name in an open directory as a path, for calls that have no `*at` form.
fn proc_name(dir: BorrowedFd<'_>, name: &OsStr) -> Vec<u8> {
    let mut path = proc_path(dir).into_bytes();
    path.push(b'/');
    path.extend_from_slice(name.as_bytes());
    path
}

pub(crate) fn list_xattrs(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Vec<OsString>, Errno> {
    let path = proc_name(dir, name);
    let mut small = [0u8; 256];
    match llistxattr(&*path, &mut small[..]) {
        Ok(n) => return Ok(split_names(&small[..n])),
        Err(Errno::RANGE) => {}
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    }
    // The kernel's own limit for a list is 64 KiB (xattr(7)).
    let mut large = vec![0u8; 64 << 10];
    let n = llistxattr(&*path, &mut large[..])?;
    Ok(split_names(&large[..n]))
}

fn split_names(list: &[u8]) -> Vec<OsString> {
    let names = list.split(|&b| b == 0).filter(|n| !n.is_empty());
    names.map(|n| OsStr::from_bytes(n).to_os_string()).collect()
}

pub(crate) fn get_xattr(dir: BorrowedFd<'_>, name: &OsStr, key: &OsStr) -> Result<Vec<u8>, Errno> {
    let path = proc_name(dir, name);
    let mut value = vec![0u8; 256];
    loop {
        match lgetxattr(&*path, key, &mut value[..]) {
            Ok(n) => {
                value.truncate(n);
                return Ok(value);
            }
            // 64 KiB is the kernel's limit for a value (xattr(7)).
            Err(Errno::RANGE) if value.len() < 64 << 10 => value.resize(64 << 10, 0),
            Err(e) => return Err(e),
        }
    }
}

pub(crate) fn set_xattr(dir: BorrowedFd<'_>, name: &OsStr, key: &OsStr, value: &[u8]) -> Result<(), Errno> {
    lsetxattr(&*proc_name(dir, name), key, value, XattrFlags::empty())
}

pub(crate) fn remove_xattr(dir: BorrowedFd<'_>, name: &OsStr, key: &OsStr) -> Result<(), Errno> {
    rustix::fs::lremovexattr(&*proc_name(dir, name), key)
}

/// All attributes; those that vanish or may not be read meanwhile are left out.
pub(crate) fn xattrs(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Xattrs, Errno> {
    let mut all = Xattrs::new();
    for key in list_xattrs(dir, name)? {
        match get_xattr(dir, name, &key) {
            Ok(value) => {
                all.insert(key, value);
            }
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}

/// The names of one directory: one buffer for all of them.
#[derive(Default)]
pub(crate) struct Listing {
    names: Vec<u8>,
    entries: Vec<(u32, u32, Option<FileKind>)>,
}

impl Listing {
    /// Reads all names but `.` and `..`, in the order of the filesystem.
    pub(crate) fn read(dir: BorrowedFd<'_>) -> Result<Listing, Errno> {
        let mut list = Listing::default();
        let mut buf = [MaybeUninit::<u8>::uninit(); 32 << 10];
        let mut raw = RawDir::new(dir, &mut buf);
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let start = u32::try_from(list.names.len()).map_err(|_| Errno::OVERFLOW)?;
            list.names.extend_from_slice(name);
            list.entries.push((start, name.len() as u32, FileKind::from_file_type(entry.file_type())));
        }
        Ok(list)
    }

    /// Sorts by name, as bytes.
    pub(crate) fn sort(&mut self) {
        let names = &self.names;
        let name = |e: &(u32, u32, Option<FileKind>)| &names[e.0 as usize..(e.0 + e.1) as usize];
        self.entries.sort_unstable_by(|a, b| name(a).cmp(name(b)));
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get(&self, i: usize) -> Option<(&OsStr, Option<FileKind>)> {
        let &(start, len, kind) = self.entries.get(i)?;
        Some((OsStr::from_bytes(&self.names[start as usize..(start + len) as usize]), kind))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&OsStr, Option<FileKind>)> {
        (0..self.len()).filter_map(|i| self.get(i))
    }
}

/// Removes `name` and all below it; links are removed, not followed. Missing is fine. Other mounts stop it (`BUSY`).
pub(crate) fn remove_all(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    struct Level {
        fd: OwnedFd,
        name: OsString,
        list: Listing,
        next: usize,
    }
    let mut levels: Vec<Level> = Vec::new();
    let mut target = name.to_os_string();
    loop {
        let here = levels.last().map_or(dir, |l| l.fd.as_fd());
        match remove_one(here, &target)? {
            Removed::Gone => {}
            Removed::NotEmpty(fd) => {
                let list = Listing::read(fd.as_fd())?;
                levels.push(Level { fd, name: target, list, next: 0 });
            }
        }
        target = loop {
            let Some(level) = levels.last_mut() else { return Ok(()) };
            if let Some((child, _)) = level.list.get(level.next) {
                level.next += 1;
                break child.to_os_string();
            }
            let Some(done) = levels.pop() else { return Ok(()) };
            let parent = levels.last().map_or(dir, |l| l.fd.as_fd());
            match unlinkat(parent, &done.name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(e),
            }
        };
    }
}

enum Removed {
    Gone,
    NotEmpty(OwnedFd),
}

fn remove_one(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Removed, Errno> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(Removed::Gone),
        // Linux says EISDIR, POSIX allows EPERM.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e),
    }
    match unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(Removed::Gone),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(Removed::NotEmpty(open_dir(dir, name)?)),
        Err(e) => Err(e),
    }
}
