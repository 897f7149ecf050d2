//! From a path to handles, as in a chroot.
//!
//! The fast way is `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)`. Where the kernel or an outer seccomp profile has
//! none, where a rename raced with it, or where there are more than its 40 links, the path is walked by hand, element
//! by element, each opened with `O_NOFOLLOW` below the handle of the one before.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2, readlinkat};
use rustix::io::Errno;

use super::at;
use crate::meta::FileKind;
use crate::paths;

/// BuildKit follows up to this many links in one path.
const MAX_LINKS: usize = 255;
/// Elements looked at for one path, links expanded; more is an attack (`..` in a deep tree walks again).
const MAX_STEPS: usize = 20_000;
/// `PATH_MAX`: what the kernel would take in one call.
const MAX_PATH: usize = 4096;
/// Times to try again after a rename raced with `openat2` (openat2(2), `EAGAIN`).
const MAX_RACES: usize = 16;

static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// Opens `path` below `root`; `O_NOFOLLOW` in `flags` keeps a link in the last place.
pub(super) fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    if !NO_OPENAT2.load(Ordering::Relaxed) {
        match open_by_kernel(root, path, flags, mode) {
            Err(Errno::NOSYS) => NO_OPENAT2.store(true, Ordering::Relaxed),
            Err(Errno::AGAIN | Errno::PERM | Errno::LOOP | Errno::XDEV) => {}
            done => return done,
        }
    }
    open_by_hand(root, path, flags, mode)
}

fn open_by_kernel(root: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..MAX_RACES {
        match openat2(root, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
    Err(Errno::AGAIN)
}

pub(super) fn open_by_hand(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let mut walk = Walk::new(root, path)?;
    walk.follow_last = !flags.contains(OFlags::NOFOLLOW);
    walk.last_may_miss = flags.contains(OFlags::CREATE);
    walk.run(&mut no_create)?;
    let (dir, name) = walk.into_parent()?;
    // The last element is known to be no link that may be followed; if it became one, this fails with ELOOP.
    let mut flags = flags | OFlags::CLOEXEC;
    if name != "." {
        flags |= OFlags::NOFOLLOW;
    }
    openat(dir, &name, flags, mode)
}

/// What a walk does when an element is missing: make it (and say so), or return `NOENT`.
type Create<'a> = dyn FnMut(BorrowedFd<'_>, &OsStr, &Path) -> Result<(), Errno> + 'a;

fn no_create(_: BorrowedFd<'_>, _: &OsStr, _: &Path) -> Result<(), Errno> {
    Err(Errno::NOENT)
}

/// Opens the directory at `path`, making what is missing, through dangling links too (as continuity's `RootPath`
/// followed by `MkdirAll`). `created` gets the handle of the parent, the new name and its path below the root.
pub(super) fn open_or_create(
    root: BorrowedFd<'_>,
    path: &Path,
    create: &mut Create<'_>,
) -> Result<OwnedFd, Errno> {
    let mut walk = Walk::new(root, path)?;
    walk.run(create)?;
    let (dir, name) = walk.into_parent()?;
    openat(dir, &name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// The directory and the name that `path` stands for, all links followed; the last element may be missing.
pub(super) fn target(root: BorrowedFd<'_>, path: &Path) -> Result<(OwnedFd, OsString, PathBuf), Errno> {
    let mut walk = Walk::new(root, path)?;
    walk.last_may_miss = true;
    walk.run(&mut no_create)?;
    let resolved = walk.resolved();
    let (dir, name) = walk.into_parent()?;
    Ok((dir, name, resolved))
}

/// The path without links, as continuity's `RootPath`: what does not exist is taken as written.
pub(super) fn canonical(root: BorrowedFd<'_>, path: &Path, follow_last: bool) -> Result<PathBuf, Errno> {
    let mut walk = Walk::new(root, path)?;
    walk.follow_last = follow_last;
    walk.last_may_miss = true;
    match walk.run(&mut no_create) {
        Ok(()) => Ok(walk.resolved()),
        Err(Errno::NOENT) => {
            let rest: PathBuf = walk.pending.iter().collect();
            Ok(paths::absolute(walk.resolved().join(rest)))
        }
        Err(e) => Err(e),
    }
}

/// A walk by hand. Only the handle of the present directory is kept, so depth costs no descriptors.
struct Walk<'a> {
    root: BorrowedFd<'a>,
    /// Names from the root to `dir`; none of them was a link when it was passed.
    done: Vec<OsString>,
    /// The present directory; `None` is the root.
    dir: Option<OwnedFd>,
    /// The last element, once found (or found missing and allowed to).
    last: Option<OsString>,
    pending: VecDeque<OsString>,
    follow_last: bool,
    last_may_miss: bool,
    links: usize,
    steps: usize,
}

impl<'a> Walk<'a> {
    fn new(root: BorrowedFd<'a>, path: &Path) -> Result<Walk<'a>, Errno> {
        let bytes = path.as_os_str().as_bytes();
        if bytes.len() >= MAX_PATH {
            return Err(Errno::NAMETOOLONG);
        }
        if bytes.contains(&0) {
            return Err(Errno::INVAL);
        }
        Ok(Walk {
            root,
            done: Vec::new(),
            dir: None,
            last: None,
            pending: paths::components(path).map(OsStr::to_os_string).collect(),
            follow_last: true,
            last_may_miss: false,
            links: 0,
            steps: 0,
        })
    }

    fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_ref().map_or(self.root, |d| d.as_fd())
    }

    fn run(&mut self, create: &mut Create<'_>) -> Result<(), Errno> {
        while let Some(name) = self.pending.pop_front() {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(Errno::LOOP);
            }
            if name == ".." {
                self.up()?;
                continue;
            }
            let is_last = self.pending.is_empty();
            match openat(self.dir(), &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            {
                Ok(fd) => self.enter(name, fd, is_last)?,
                Err(Errno::NOENT) if is_last && self.last_may_miss => self.last = Some(name),
                Err(Errno::NOENT) => {
                    let path = self.resolved().join(&name);
                    if let Err(e) = create(self.dir(), &name, &path) {
                        self.pending.push_front(name);
                        return Err(e);
                    }
                    self.pending.push_front(name);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn enter(&mut self, name: OsString, fd: OwnedFd, is_last: bool) -> Result<(), Errno> {
        let kind = at::fstat(fd.as_fd())?.kind;
        match kind {
            FileKind::Symlink if !is_last || self.follow_last => {
                self.links += 1;
                if self.links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                let link = readlinkat(&fd, "", Vec::new())?;
                let link = OsString::from_vec(link.into_bytes());
                if link.as_bytes().first() == Some(&b'/') {
                    self.done.clear();
                    self.dir = None;
                }
                for part in paths::components(Path::new(&link)).rev() {
                    self.pending.push_front(part.to_os_string());
                }
                Ok(())
            }
            _ if is_last => {
                self.last = Some(name);
                Ok(())
            }
            FileKind::Dir => {
                self.done.push(name);
                self.dir = Some(fd);
                Ok(())
            }
            _ => Err(Errno::NOTDIR),
        }
    }

    /// `..`: from the root again, because the parent of a handle may have been moved out of the root meanwhile.
    fn up(&mut self) -> Result<(), Errno> {
        self.done.pop();
        self.dir = None;
        for name in &self.done {
            self.steps += 1;
            let dir = openat(
                self.dir.as_ref().map_or(self.root, |d| d.as_fd()),
                name,
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            self.dir = Some(dir);
        }
        Ok(())
    }

    fn resolved(&self) -> PathBuf {
        let mut path = PathBuf::from("/");
        path.extend(&self.done);
        path.extend(&self.last);
        path
    }

    /// Parent and name of the result; the root itself is `.` in the root. A walk that ended with `..` ends on a
    /// directory that is named from its parent again.
    fn into_parent(mut self) -> Result<(OwnedFd, OsString), Errno> {
        let name = match self.last.take() {
            Some(name) => name,
            None => match self.done.last().cloned() {
                Some(name) => {
                    self.up()?;
                    name
                }
                None => OsString::from("."),
            },
        };
        let dir = match self.dir {
            Some(dir) => dir,
            None => self
                .root
                .try_clone_to_owned()
                .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::MFILE))?,
        };
        Ok((dir, name))
    }
}
