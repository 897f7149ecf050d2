//! Copying one path and all below it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, fchmod, mkdirat};
use rustix::io::Errno;

use super::data::Data;
use super::{Copier, CopyError};
use crate::error::Error;
use crate::meta::{FileKind, Metadata};
use crate::paths;
use crate::patterns::{MatchInfo, Matcher};
use crate::root::Root;
use crate::root::at::{self, Listing};

pub(super) type Result<T, E = CopyError> = std::result::Result<T, E>;

pub(super) struct Tree<'a> {
    pub(super) copier: &'a Copier,
    src: &'a Root,
    pub(super) dst: &'a Root,
    /// Destination of the top, absolute, without links.
    target: &'a Path,
    /// Path of the present entry relative to the source.
    rel: Vec<u8>,
    pub(super) data: Data,
    /// Where the first of several links to a file went, by device and inode.
    pub(super) links: HashMap<((u32, u32), u64), PathBuf>,
}

/// A directory being copied.
struct Level {
    src: OwnedFd,
    meta: Metadata,
    name: OsString,
    /// The destination; `None` until something in it is copied, if the directory itself does not match the patterns.
    dst: Option<OwnedFd>,
    /// What is to be done to it at the end.
    finish: Finish,
    list: Listing,
    next: usize,
    /// Length of its path in [`Tree::rel`].
    len: usize,
    include: Option<MatchInfo>,
    exclude: Option<MatchInfo>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Finish {
    Nothing,
    /// It existed as the top: only its times become the source's.
    Times,
    All,
}

/// What the patterns say.
struct Verdict {
    included: bool,
    excluded: bool,
    include: Option<MatchInfo>,
    exclude: Option<MatchInfo>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(copier: &'a Copier, src: &'a Root, dst: &'a Root, target: &'a Path) -> Tree<'a> {
        Tree { copier, src, dst, target, rel: Vec::new(), data: Data::new(), links: HashMap::new() }
    }

    /// Copies `from` (without links) to the target, whose parent exists.
    pub(super) fn copy(&mut self, from: &Path, meta: Metadata) -> Result<()> {
        let (src_dir, src_name) = self.src.parent(from)?;
        let (dst_dir, dst_name) = self.dst.parent(self.target)?;
        if !meta.is_dir() {
            return self.other(src_dir.as_fd(), &src_name, &meta, dst_dir.as_fd(), &dst_name);
        }
        let src = at::open_dir(src_dir.as_fd(), &src_name).map_err(|e| self.fail("open", e))?;
        let (dst, created) = self.make_dir(dst_dir.as_fd(), &dst_name)?;
        let finish = if created { Finish::All } else { Finish::Times };
        let mut list = Listing::read(src.as_fd()).map_err(|e| self.fail("read directory", e))?;
        list.sort();
        let name = dst_name.clone();
        let top = Level {
            src,
            meta,
            name,
            dst: Some(dst),
            finish,
            list,
            next: 0,
            len: 0,
            include: None,
            exclude: None,
        };
        self.run(top)
    }

    fn run(&mut self, top: Level) -> Result<()> {
        let mut levels = vec![top];
        while let Some(level) = levels.last_mut() {
            let Some((name, hint)) =
                level.list.get(level.next).map(|(name, kind)| (name.to_os_string(), kind))
            else {
                self.rel.truncate(level.len);
                if let Some(level) = levels.pop() {
                    self.finish(&level)?;
                }
                continue;
            };
            level.next += 1;
            self.copier.check_cancelled()?;
            self.rel.truncate(level.len);
            if !self.rel.is_empty() {
                self.rel.push(b'/');
            }
            self.rel.extend_from_slice(name.as_bytes());
            if let Some(below) = self.entry(&mut levels, name, hint)? {
                levels.push(below);
            }
        }
        Ok(())
    }

    /// Copies one entry of the innermost level; a directory is returned to be gone into.
    fn entry(
        &mut self,
        levels: &mut [Level],
        name: OsString,
        hint: Option<FileKind>,
    ) -> Result<Option<Level>> {
        let Some(level) = levels.last() else { return Ok(None) };
        let verdict = self.verdict(level)?;
        let no_dir = hint.is_some_and(|kind| kind != FileKind::Dir);
        if !verdict.included && (no_dir || !self.may_hold_matches(&verdict)) {
            return Ok(None);
        }
        let meta = at::stat(level.src.as_fd(), &name).map_err(|e| self.fail("stat", e))?;
        if !verdict.included && !meta.is_dir() {
            return Ok(None);
        }
        if verdict.included {
            self.make_levels(levels)?;
        }
        let Some(level) = levels.last() else { return Ok(None) };
        if !meta.is_dir() {
            if let Some(dst) = &level.dst {
                self.other(level.src.as_fd(), &name, &meta, dst.as_fd(), &name)?;
            }
            return Ok(None);
        }
        let src = at::open_dir(level.src.as_fd(), &name).map_err(|e| self.fail("open", e))?;
        let dst = match (&level.dst, verdict.included) {
            (Some(dst), true) => Some(self.make_dir(dst.as_fd(), &name)?.0),
            _ => None,
        };
        let finish = if verdict.included { Finish::All } else { Finish::Nothing };
        let mut list = Listing::read(src.as_fd()).map_err(|e| self.fail("read directory", e))?;
        list.sort();
        let Verdict { include, exclude, .. } = verdict;
        let len = self.rel.len();
        Ok(Some(Level { src, meta, name, dst, finish, list, next: 0, len, include, exclude }))
    }

    fn verdict(&self, level: &Level) -> Result<Verdict> {
        let path = Path::new(OsStr::from_bytes(&self.rel));
        let ask = |m: &Option<Matcher>, parent: &Option<MatchInfo>| {
            m.as_ref().map(|m| m.matches_below(path, parent.as_ref())).transpose()
        };
        let include = ask(&self.copier.include, &level.include).map_err(CopyError::Include)?;
        let exclude = ask(&self.copier.exclude, &level.exclude).map_err(CopyError::Exclude)?;
        let excluded = exclude.as_ref().is_some_and(|e| e.0);
        Ok(Verdict {
            included: include.as_ref().is_none_or(|i| i.0) && !excluded,
            excluded,
            include: include.map(|i| i.1),
            exclude: exclude.map(|e| e.1),
        })
    }

    /// Whether below something that is not copied there may be something that is.
    fn may_hold_matches(&self, verdict: &Verdict) -> bool {
        let path = Path::new(OsStr::from_bytes(&self.rel));
        let Copier { include, exclude, .. } = self.copier;
        match (verdict.excluded, exclude, include) {
            (true, Some(exclude), _) => exclude.may_except_below(path),
            (_, _, Some(include)) => include.may_match_below(path),
            _ => false,
        }
    }

    /// Makes the directories on the way that were put off.
    fn make_levels(&mut self, levels: &mut [Level]) -> Result<()> {
        for i in 1..levels.len() {
            if levels[i].dst.is_some() {
                continue;
            }
            let rel = self.rel.clone();
            self.rel.truncate(levels[i].len);
            let (dst, created) = match &levels[i - 1].dst {
                Some(parent) => self.make_dir(parent.as_fd(), &levels[i].name)?,
                None => continue,
            };
            self.rel = rel;
            levels[i].dst = Some(dst);
            levels[i].finish = if created { Finish::All } else { Finish::Nothing };
            if !created && let Some(dst) = &levels[i].dst {
                let mode = Mode::from_raw_mode(levels[i].meta.mode);
                fchmod(dst, mode).map_err(|e| self.fail("chmod", e))?;
            }
        }
        Ok(())
    }

    /// Opens a directory of the destination, making it if it is missing.
    fn make_dir(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(OwnedFd, bool)> {
        let make = || mkdirat(dir, name, Mode::from_raw_mode(0o700));
        let mut created = true;
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                if !at::stat(dir, name).map_err(|e| self.fail("stat", e))?.is_dir() {
                    if !self.copier.options.replace_existing {
                        return Err(CopyError::NotDirectory(self.path()));
                    }
                    let replace = || at::remove_all(dir, name).and_then(|()| make());
                    replace().map_err(|e| self.fail("replace", e))?;
                } else {
                    created = false;
                }
            }
            Err(e) => return Err(self.fail("mkdir", e)),
        }
        let fd = at::open_dir(dir, name).map_err(|e| self.fail("open", e))?;
        Ok((fd, created))
    }

    fn finish(&self, level: &Level) -> Result<()> {
        let Some(dst) = &level.dst else { return Ok(()) };
        match level.finish {
            Finish::Nothing => Ok(()),
            Finish::Times => self.set_times(&level.meta, dst.as_fd()),
            Finish::All => self.finish_fd(level.src.as_fd(), &level.meta, dst.as_fd()),
        }
    }

    /// The destination of the present entry.
    pub(super) fn path(&self) -> PathBuf {
        paths::absolute(self.target.join(OsStr::from_bytes(&self.rel)))
    }

    pub(super) fn fail(&self, op: &'static str, e: Errno) -> CopyError {
        CopyError::Fs(Error::sys(op, self.path(), e))
    }
}
