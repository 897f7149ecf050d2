//! Making one object, in the place of whatever is there.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, linkat, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;

use super::extract::Placed;
use super::layer::Layer;
use crate::error::Error;
use crate::meta::FileKind;
use crate::root::{Root, at};

/// Where an entry goes: a name in an open directory.
pub(super) struct Target<'t> {
    pub(super) dir: BorrowedFd<'t>,
    pub(super) name: &'t OsStr,
    pub(super) path: &'t Path,
    pub(super) layer: Option<&'t Layer<'t>>,
    pub(super) replaced: &'t mut bool,
}

impl Target<'_> {
    /// Runs `make`; when something is there, removes it and tries again.
    fn replacing<T>(
        &mut self,
        op: &'static str,
        make: impl Fn(&Self) -> Result<T, Errno>,
    ) -> Result<T, Error> {
        let run = |this: &mut Self| match make(this) {
            Err(Errno::EXIST) => {
                *this.replaced = true;
                at::remove_all(this.dir, this.name)?;
                make(this)
            }
            done => done,
        };
        run(self).map_err(|e| Error::sys(op, self.path, e))
    }

    pub(super) fn create_file(&mut self) -> Result<File, Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.replacing("create", |t| openat(t.dir, t.name, flags, Mode::from_raw_mode(0o600)))?;
        Ok(File::from(fd))
    }

    pub(super) fn create_dir(&mut self) -> Placed {
        let make = |t: &Self| mkdirat(t.dir, t.name, Mode::from_raw_mode(0o700));
        let fail = |e| Error::sys("mkdir", self.path, e);
        match make(self) {
            Err(Errno::EXIST) => {}
            done => return done.map_err(fail),
        }
        let there = at::stat(self.dir, self.name).map_err(fail)?;
        if there.is_dir() {
            return Ok(());
        }
        self.replacing("mkdir", make)?;
        // A whiteout of this layer for the same name: the directory is new and shows nothing from below.
        match self.layer {
            Some(layer) if there.is_overlay_whiteout() => {
                layer.set_opaque(self.dir, self.name).map_err(|e| Error::sys("set xattr", self.path, e))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn symlink(&mut self, link: &Path) -> Placed {
        self.replacing("symlink", |t| symlinkat(link, t.dir, t.name))
    }

    pub(super) fn hard_link(&mut self, root: &Root, link: &Path) -> Placed {
        let (dir, name): (OwnedFd, OsString) = root.parent(link)?;
        self.replacing("link", |t| linkat(&dir, &name, t.dir, t.name, AtFlags::empty()))
    }

    pub(super) fn mknod(&mut self, kind: FileKind, rdev: (u32, u32)) -> Placed {
        let dev = rustix::fs::makedev(rdev.0, rdev.1);
        self.replacing("mknod", |t| {
            mknodat(t.dir, t.name, kind.to_file_type(), Mode::from_raw_mode(0o600), dev)
        })
    }
}
