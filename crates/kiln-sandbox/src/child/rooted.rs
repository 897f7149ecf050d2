//! Paths inside the root, resolved by hand and by handle.
//!
//! The walk keeps a stack of open directories, so `..` goes back along the way it came and never above the
//! root, and a link is read and continued, never followed by the kernel. What the walk makes on its way is
//! made below an open directory. Whatever another process swaps meanwhile, the walk stays inside.

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// Links one path may contain, as in the kernel.
const LINK_LIMIT: usize = 40;

/// What to make when the last component is missing; missing directories before it are made too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// A directory, 0755.
    Directory,
    /// An empty file.
    File,
}

/// Whose the made directories and files are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Opens (`O_PATH`) `path` below `root`, with links resolved inside it; makes what is missing.
pub(crate) fn open_or_make(
    root: BorrowedFd<'_>,
    path: &Path,
    missing: Missing,
    owner: Option<Owner>,
) -> Result<OwnedFd, Errno> {
    let mut stack = vec![dup(root)?];
    let mut todo = components(path.as_os_str());
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            if stack.len() > 1 {
                stack.pop();
            }
            continue;
        }
        let here = top(&stack)?;
        let last = todo.is_empty();
        let next = match open_path(here, &name) {
            Err(Errno::NOENT) => {
                make(here, &name, if last { missing } else { Missing::Directory }, owner)?;
                open_path(here, &name)?
            }
            other => other?,
        };
        match file_type(next.as_fd())? {
            FileType::Symlink => {
                links += 1;
                if links > LINK_LIMIT {
                    return Err(Errno::LOOP);
                }
                let target = rustix::fs::readlinkat(&next, c"", Vec::new())?;
                if target.as_bytes().starts_with(b"/") {
                    stack.truncate(1);
                }
                for part in components(OsStr::from_bytes(target.as_bytes())).into_iter().rev() {
                    todo.push_front(part);
                }
            }
            FileType::Directory => stack.push(next),
            _ if last => return Ok(next),
            _ => return Err(Errno::NOTDIR),
        }
    }
    stack.pop().ok_or(Errno::NOENT)
}

/// Opens (`O_PATH`) the directory `name`, one component, in `at`; makes it when missing. ELOOP for a link.
pub(crate) fn plain_directory(at: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let next = match open_path(at, OsStr::new(name)) {
        Err(Errno::NOENT) => {
            make(at, OsStr::new(name), Missing::Directory, None)?;
            open_path(at, OsStr::new(name))?
        }
        other => other?,
    };
    match file_type(next.as_fd())? {
        FileType::Directory => Ok(next),
        FileType::Symlink => Err(Errno::LOOP),
        _ => Err(Errno::NOTDIR),
    }
}

/// The process's present `/`.
pub(crate) fn open_slash() -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(rustix::fs::CWD, "/", flags, Mode::empty())
}

/// The type of an open file.
pub(crate) fn file_type(fd: BorrowedFd<'_>) -> Result<FileType, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode))
}

fn components(path: &OsStr) -> VecDeque<OsString> {
    Path::new(path)
        .components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        })
        .collect()
}

fn top(stack: &[OwnedFd]) -> Result<BorrowedFd<'_>, Errno> {
    stack.last().map(OwnedFd::as_fd).ok_or(Errno::NOENT)
}

fn dup(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3)
}

/// One component, not followed: the kernel hands out the link itself.
fn open_path(at: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(at, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn make(at: BorrowedFd<'_>, name: &OsStr, what: Missing, owner: Option<Owner>) -> Result<(), Errno> {
    let made = match what {
        Missing::Directory => rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o755)),
        Missing::File => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            rustix::fs::openat(at, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    };
    match made {
        // Somebody sharing a cache mount was faster; what is there now is looked at like anything else.
        Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(e),
        Ok(()) => match owner {
            Some(o) => rustix::fs::chownat(
                at,
                name,
                Some(Uid::from_raw(o.uid)),
                Some(Gid::from_raw(o.gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            ),
            None => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    struct Tree {
        // Kept for its Drop.
        dir: tempfile::TempDir,
        root: OwnedFd,
    }

    /// `dir/root` is the root, `dir/host` must never be reached.
    fn tree() -> Tree {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/real/sub")).unwrap();
        fs::create_dir(dir.path().join("host")).unwrap();
        let root = fs::File::open(dir.path().join("root")).unwrap().into();
        Tree { dir, root }
    }

    impl Tree {
        fn make(&self, path: &str, missing: Missing) -> Result<u64, Errno> {
            let fd = open_or_make(self.root.as_fd(), Path::new(path), missing, None)?;
            Ok(rustix::fs::fstat(&fd)?.st_ino)
        }

        fn ino(&self, path: &str) -> u64 {
            fs::symlink_metadata(self.dir.path().join(path)).unwrap().ino()
        }
    }

    #[test]
    fn missing_directories_and_files_are_made() {
        let t = tree();
        assert_eq!(t.make("/a/b/c", Missing::Directory).unwrap(), t.ino("root/a/b/c"));
        assert_eq!(t.make("x/y.conf", Missing::File).unwrap(), t.ino("root/x/y.conf"));
        assert_eq!(t.make("/", Missing::Directory).unwrap(), t.ino("root"));
        assert_eq!(t.make("/real/./sub/", Missing::File).unwrap(), t.ino("root/real/sub"));
    }

    #[test]
    fn parents_and_absolute_links_stay_inside() {
        let t = tree();
        symlink("/", t.dir.path().join("root/slash")).unwrap();
        symlink("../../../host", t.dir.path().join("root/real/out")).unwrap();
        assert_eq!(t.make("/../../real", Missing::Directory).unwrap(), t.ino("root/real"));
        assert_eq!(t.make("slash/real/sub", Missing::Directory).unwrap(), t.ino("root/real/sub"));
        assert_eq!(t.make("real/out/f", Missing::File).unwrap(), t.ino("root/host/f"));
        assert!(fs::read_dir(t.dir.path().join("host")).unwrap().next().is_none());
    }

    #[test]
    fn a_dangling_link_makes_its_target_inside() {
        let t = tree();
        fs::create_dir(t.dir.path().join("root/etc")).unwrap();
        symlink("../run/resolve/stub.conf", t.dir.path().join("root/etc/resolv.conf")).unwrap();
        assert_eq!(t.make("/etc/resolv.conf", Missing::File).unwrap(), t.ino("root/run/resolve/stub.conf"));
    }

    #[test]
    fn loops_and_files_in_the_way_are_errors() {
        let t = tree();
        symlink("loop", t.dir.path().join("root/loop")).unwrap();
        fs::write(t.dir.path().join("root/file"), "").unwrap();
        assert_eq!(t.make("loop/x", Missing::File), Err(Errno::LOOP));
        assert_eq!(t.make("file/x", Missing::File), Err(Errno::NOTDIR));
        assert_eq!(plain_directory(t.root.as_fd(), "loop").unwrap_err(), Errno::LOOP);
        assert_eq!(plain_directory(t.root.as_fd(), "file").unwrap_err(), Errno::NOTDIR);
        plain_directory(t.root.as_fd(), "fresh").unwrap();
    }
}
