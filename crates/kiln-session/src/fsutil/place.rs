//! Puts single entries into their place below the root.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kiln_fs::{FileKind, FileTime, Metadata};
use rustix::fs::{AtFlags, Dev, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::TransferError;
use super::dirs::Dirs;
use super::stat::{Kind, Stat};
use super::validate::to_path;

fn failed(step: &'static str, path: &[u8]) -> impl Fn(Errno) -> TransferError {
    move |e| TransferError::io(step, to_path(path), e)
}

/// What is at `path` now, links not followed.
pub(crate) fn look(dirs: &mut Dirs, path: &[u8]) -> Result<Option<Metadata>, TransferError> {
    // Relative to the kept parent, which spares walking the whole path.
    let (dir, name) = dirs.parent(path)?;
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(failed("stat", path)(e)),
        Ok(_) => Ok(Some(dirs.root().metadata(Path::new(OsStr::from_bytes(path)), false)?)),
    }
}

/// Removes whatever is at `path`.
pub(crate) fn remove(dirs: &mut Dirs, path: &[u8]) -> Result<(), TransferError> {
    dirs.root().remove_all(Path::new(OsStr::from_bytes(path)))?;
    dirs.forget();
    Ok(())
}

/// Makes a directory, or gives an existing one the announced owner and mode. Its time is set at the very end.
pub(crate) fn dir(dirs: &mut Dirs, stat: &Stat, exists: bool) -> Result<(), TransferError> {
    let path = &stat.path[..];
    let (parent, name) = dirs.parent(path)?;
    if !exists {
        // Open to us until its entries are in; the announced mode may lack what that takes.
        match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
            // Another platform's transfer into the same directory was faster; what is no directory is not opened below.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(failed("mkdir", path)(e)),
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(failed("open", path))?;
    owner(fd.as_fd(), stat).map_err(failed("chown", path))?;
    // A directory that its owner may not enter is closed last, with its time.
    let mode = Mode::from_raw_mode(stat.permissions() | 0o700);
    rustix::fs::fchmod(&fd, mode).map_err(failed("chmod", path))?;
    set_xattrs(fd.as_fd(), stat);
    Ok(())
}

/// Sets what must come after a directory's content: its final mode and time.
pub(crate) fn finish_dir(
    dirs: &mut Dirs,
    path: &[u8],
    mode: u32,
    mtime: FileTime,
) -> Result<(), TransferError> {
    let (parent, name) = dirs.parent(path)?;
    let times = timestamps(mtime);
    rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("set time of", path))?;
    if mode & 0o700 != 0o700 {
        dirs.root().chmod(Path::new(OsStr::from_bytes(path)), mode)?;
    }
    Ok(())
}

/// Makes a symbolic link, device or FIFO where nothing is.
pub(crate) fn special(dirs: &mut Dirs, stat: &Stat, kind: Kind) -> Result<(), TransferError> {
    let path = &stat.path[..];
    let (parent, name) = dirs.parent(path)?;
    if kind == Kind::Symlink {
        rustix::fs::symlinkat(&stat.linkname[..], parent, name).map_err(failed("symlink", path))?;
    } else {
        let (major, minor) = stat.rdev().unwrap_or_default();
        let dev: Dev = if kind == Kind::Fifo { 0 } else { rustix::fs::makedev(major, minor) };
        let file_type = rustix::fs::FileType::from_raw_mode(kind.file_kind().type_bits());
        let mode = Mode::from_raw_mode(stat.permissions());
        rustix::fs::mknodat(parent, name, file_type, mode, dev).map_err(failed("mknod", path))?;
    }
    let (uid, gid) = (Uid::from_raw(stat.uid), Gid::from_raw(stat.gid));
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("chown", path))?;
    if kind != Kind::Symlink {
        // mknod obeys the umask.
        let full = Path::new(OsStr::from_bytes(path));
        dirs.root().chmod(full, stat.permissions())?;
    }
    let (parent, name) = dirs.parent(path)?;
    let times = timestamps(stat.mtime());
    rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("set time of", path))
}

/// Makes a hard link to a file of the same transfer.
pub(crate) fn hard_link(dirs: &mut Dirs, target: &[u8], path: &[u8]) -> Result<(), TransferError> {
    let (target, full) = (Path::new(OsStr::from_bytes(target)), Path::new(OsStr::from_bytes(path)));
    // The target was announced as a file, but in a shared directory somebody else may have replaced it.
    if dirs.root().metadata(target, false)?.kind != FileKind::File {
        return Err(TransferError::Link { path: full.to_path_buf(), target: target.to_path_buf() });
    }
    Ok(dirs.root().hard_link(target, full)?)
}

/// Gives a written file its owner, mode, attributes and time.
pub(crate) fn finish_file(fd: BorrowedFd<'_>, stat: &Stat) -> Result<(), TransferError> {
    let path = &stat.path[..];
    owner(fd, stat).map_err(failed("chown", path))?;
    // After chown, which clears the setuid bit and capabilities.
    let mode = Mode::from_raw_mode(stat.permissions());
    rustix::fs::fchmod(fd, mode).map_err(failed("chmod", path))?;
    set_xattrs(fd, stat);
    rustix::fs::futimens(fd, &timestamps(stat.mtime())).map_err(failed("set time of", path))
}

fn owner(fd: BorrowedFd<'_>, stat: &Stat) -> Result<(), Errno> {
    rustix::fs::fchown(fd, Some(Uid::from_raw(stat.uid)), Some(Gid::from_raw(stat.gid)))
}

fn timestamps(mtime: FileTime) -> Timestamps {
    let time = Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Attributes that overlayfs reads would let a client redirect lookups; labels belong to the host.
fn is_harmless(key: &str) -> bool {
    match key.split_once('.') {
        Some(("user" | "trusted", rest)) => !rest.starts_with("overlay."),
        Some(("security", rest)) => rest == "capability",
        Some(("system", rest)) => matches!(rest, "posix_acl_access" | "posix_acl_default"),
        _ => false,
    }
}

fn set_xattrs(fd: BorrowedFd<'_>, stat: &Stat) {
    for (key, value) in stat.xattrs.iter().filter(|(key, _)| is_harmless(key)) {
        // Not every filesystem has them, and not everyone may set them.
        if let Err(e) = rustix::fs::fsetxattr(fd, key.as_str(), value, XattrFlags::empty()) {
            tracing::debug!(path = %stat.path().display(), key, error = %e, "extended attribute not set");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_that_steer_the_kernel_are_left_out() {
        for good in ["user.a", "trusted.x", "security.capability", "system.posix_acl_access"] {
            assert!(is_harmless(good), "{good}");
        }
        for bad in [
            "trusted.overlay.redirect",
            "user.overlay.opaque",
            "security.selinux",
            "system.nfs4_acl",
            "x",
            "",
        ] {
            assert!(!is_harmless(bad), "{bad}");
        }
    }
}
