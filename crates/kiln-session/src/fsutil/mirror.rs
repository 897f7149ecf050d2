//! Compares the announced tree with what is there and makes it so: the one that decides.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use kiln_fs::walk::{Cursor, Entry, Step};
use kiln_fs::{FileKind, FileTime, Metadata, Root};
use tokio::sync::mpsc;

use super::TransferError;
use super::announced::{Next, Source};
use super::dirs::Dirs;
use super::options::{Compare, METADATA_FILE, ReceiveOptions, Style, Update};
use super::place;
use super::stat::{Kind, Stat};
use super::validate::{compare, split};
use super::workers::Announced;
use super::writer::Wanted;

/// What was changed on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) entries: u64,
    pub(crate) requested: u64,
    pub(crate) removed: u64,
}

pub(crate) struct Mirror {
    root: Arc<Root>,
    dirs: Dirs,
    options: ReceiveOptions,
    source: Source,
    /// What is there, where it becomes the announced tree; goes along with it, for both are in the same order.
    existing: Option<Cursor>,
    /// First path of each existing file that has several.
    names: HashMap<((u32, u32), u64), Bytes>,
    wanted: Arc<Wanted>,
    requests: mpsc::UnboundedSender<u32>,
    /// Announced directories on the way to the present entry, outermost first.
    open: Vec<OpenDir>,
    /// Directories whose time (and perhaps mode) has to be set when all is written.
    finish: Vec<OpenDir>,
    /// Hard links wait until their target has its contents.
    links: Vec<Stat>,
    changes: Changes,
    memory: u64,
}

struct OpenDir {
    path: Box<[u8]>,
    mode: u32,
    mtime: FileTime,
    touched: bool,
}

/// Bytes of bookkeeping per kept entry, besides its path.
const KEPT: u64 = 320;

impl Mirror {
    pub(crate) fn begin(
        root: Arc<Root>,
        options: ReceiveOptions,
        wanted: Arc<Wanted>,
        requests: mpsc::UnboundedSender<u32>,
    ) -> Result<Self, TransferError> {
        let existing = match options.update {
            Update::Mirror(_) => Some(Cursor::new(&root, "")?),
            Update::Merge => None,
        };
        Ok(Self {
            dirs: Dirs::new(root.clone()),
            root,
            source: Source::new(&options),
            options,
            existing,
            names: HashMap::new(),
            wanted,
            requests,
            open: Vec::new(),
            finish: Vec::new(),
            links: Vec::new(),
            changes: Changes::default(),
            memory: 0,
        })
    }

    /// Makes what was announced next.
    pub(crate) fn take(&mut self, batch: Announced) -> Result<(), TransferError> {
        for stat in batch {
            if self.wanted.is_stopped() {
                return Err(TransferError::Stopped);
            }
            self.source.take(stat)?;
            while let Some(next) = self.source.next() {
                self.place(next)?;
            }
        }
        if self.source.ended() {
            self.end_walk()?;
        }
        Ok(())
    }

    /// Whether everything was announced.
    pub(crate) fn has_all(&self) -> bool {
        self.source.ended()
    }

    fn end_walk(&mut self) -> Result<(), TransferError> {
        if let Some(mut there) = self.existing.take() {
            while let Some(entry) = there.entry() {
                self.delete(entry.path().as_os_str().as_bytes())?;
                there.advance(Step::SkipDir)?;
            }
        }
        self.close_dirs(None);
        Ok(())
    }

    /// Sets what is left when all contents are in place.
    pub(crate) fn finish(&mut self) -> Result<Changes, TransferError> {
        for stat in std::mem::take(&mut self.links) {
            self.link(&stat)?;
        }
        if let Some(list) = self.source.take_metadata() {
            self.write_metadata(&list)?;
        }
        // Inner ones first: closing an outer one may take our own access away.
        let mut finish = std::mem::take(&mut self.finish);
        finish.sort_unstable_by_key(|dir| std::cmp::Reverse(dir.path.iter().filter(|c| **c == b'/').count()));
        for dir in finish {
            place::finish_dir(&mut self.dirs, &dir.path, dir.mode, dir.mtime)?;
        }
        self.changes.entries = self.source.count();
        Ok(self.changes)
    }

    /// Removes what is there and sorts before the announced entry, then makes that.
    fn place(&mut self, next: Next) -> Result<(), TransferError> {
        let Update::Mirror(how) = self.options.update else { return self.add(next) };
        let Some(mut there) = self.existing.take() else { return self.add(next) };
        while let Some(entry) = there.entry() {
            let path = entry.path().as_os_str().as_bytes();
            match compare(path, &next.stat.path) {
                Ordering::Less => {
                    self.delete(path)?;
                    there.advance(Step::SkipDir)?;
                }
                Ordering::Equal => {
                    let step = self.meet(next, &entry, how)?;
                    there.advance(step)?;
                    self.existing = Some(there);
                    return Ok(());
                }
                Ordering::Greater => break,
            }
        }
        self.existing = Some(there);
        self.add(next)
    }

    /// The announced entry exists.
    fn meet(&mut self, next: Next, entry: &Entry<'_>, how: Compare) -> Result<Step, TransferError> {
        let there = *entry.metadata()?;
        self.close_dirs(Some(&next.stat.path));
        let same = match how {
            Compare::Always => false,
            Compare::Metadata => self.is_same(&next, &there, entry)?,
        };
        if there.is_dir() && next.kind == Kind::Dir {
            self.keep_dir(&next.stat, same, there.mtime)?;
            return Ok(Step::Continue);
        }
        if !same {
            place::remove(&mut self.dirs, &next.stat.path)?;
            self.make(next)?;
        }
        Ok(Step::SkipDir)
    }

    /// Unchanged: same type, mode, owner, size, time, device and link (spec wire.md section 5).
    fn is_same(&mut self, next: &Next, there: &Metadata, entry: &Entry<'_>) -> Result<bool, TransferError> {
        let stat = &next.stat;
        let mut linkname = Bytes::new();
        if there.kind == FileKind::Symlink {
            linkname = entry.read_link()?.into_os_string().into_vec().into();
        } else if there.kind == FileKind::File && there.nlink > 1 {
            let first = self
                .names
                .entry((there.dev, there.ino))
                .or_insert_with(|| Bytes::copy_from_slice(&stat.path));
            if *first != stat.path {
                linkname = first.clone();
            }
        }
        let times =
            there.is_dir() || there.mtime == stat.mtime() && i64::try_from(there.size) == Ok(stat.size);
        // The permission bits of a link mean nothing and differ between systems.
        let modes = there.kind == FileKind::Symlink || there.mode == stat.permissions();
        let device = match there.kind {
            FileKind::CharDevice | FileKind::BlockDevice => stat.rdev() == Some(there.rdev),
            _ => true,
        };
        let special = matches!(there.kind, FileKind::Fifo | FileKind::CharDevice | FileKind::BlockDevice);
        let times = times || special && there.mtime == stat.mtime();
        Ok(there.kind == next.kind.file_kind()
            && modes
            && times
            && device
            && (there.uid, there.gid) == (stat.uid, stat.gid)
            && (special || linkname == stat.linkname))
    }

    fn keep_dir(&mut self, stat: &Stat, same: bool, mtime: FileTime) -> Result<(), TransferError> {
        if !same {
            place::dir(&mut self.dirs, stat, true)?;
            self.observe(stat);
        }
        let touched = !same || mtime != stat.mtime();
        self.open.push(OpenDir {
            path: stat.path[..].into(),
            mode: stat.permissions(),
            mtime: stat.mtime(),
            touched,
        });
        Ok(())
    }

    /// The announced entry is not known to exist; in a merge it may.
    fn add(&mut self, next: Next) -> Result<(), TransferError> {
        self.close_dirs(Some(&next.stat.path));
        if matches!(self.options.update, Update::Merge)
            && let Some(there) = place::look(&mut self.dirs, &next.stat.path)?
        {
            if there.is_dir() && next.kind == Kind::Dir {
                return self.keep_dir(&next.stat, false, there.mtime);
            }
            // A file is replaced by renaming over it, so that there is always one.
            let replaced_later =
                self.options.style == Style::Replace && next.kind == Kind::File && !there.is_dir();
            if !replaced_later {
                place::remove(&mut self.dirs, &next.stat.path)?;
            }
        }
        self.make(next)
    }

    /// Nothing is at the entry's place any more.
    fn make(&mut self, next: Next) -> Result<(), TransferError> {
        let Next { id, kind, mut stat } = next;
        self.touch_parent(&stat.path);
        match kind {
            Kind::Dir => {
                place::dir(&mut self.dirs, &stat, false)?;
                self.observe(&stat);
                let (mode, mtime) = (stat.permissions(), stat.mtime());
                self.open.push(OpenDir { path: stat.path[..].into(), mode, mtime, touched: true });
            }
            Kind::File => {
                self.keep(&mut stat)?;
                self.wanted.add(id, *stat);
                self.changes.requested += 1;
                // The receiving end only goes away with the whole transfer.
                let _ = self.requests.send(id);
            }
            Kind::HardLink => {
                self.keep(&mut stat)?;
                self.links.push(*stat);
            }
            Kind::Symlink | Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => {
                place::special(&mut self.dirs, &stat, kind)?;
                self.observe(&stat);
            }
        }
        Ok(())
    }

    /// Counts an entry that stays in memory, and cuts it loose from the message it came in.
    fn keep(&mut self, stat: &mut Stat) -> Result<(), TransferError> {
        stat.path = Bytes::copy_from_slice(&stat.path);
        stat.linkname = Bytes::copy_from_slice(&stat.linkname);
        let xattrs: usize = stat.xattrs.iter().map(|(k, v)| k.len() + v.len() + 64).sum();
        self.memory += KEPT + (stat.path.len() + stat.linkname.len() + xattrs) as u64;
        let limit = self.options.limits.memory;
        match self.memory > limit {
            true => Err(TransferError::Limit { what: "bytes of file names", limit }),
            false => Ok(()),
        }
    }

    fn link(&mut self, stat: &Stat) -> Result<(), TransferError> {
        if matches!(self.options.update, Update::Merge) && place::look(&mut self.dirs, &stat.path)?.is_some()
        {
            place::remove(&mut self.dirs, &stat.path)?;
        }
        place::hard_link(&mut self.dirs, &stat.linkname, &stat.path)?;
        self.observe(stat);
        Ok(())
    }

    fn delete(&mut self, path: &[u8]) -> Result<(), TransferError> {
        place::remove(&mut self.dirs, path)?;
        self.touch_parent(path);
        self.changes.removed += 1;
        if let Some(observer) = &self.options.observer {
            observer.removed(Path::new(std::ffi::OsStr::from_bytes(path)));
        }
        Ok(())
    }

    fn observe(&self, stat: &Stat) {
        if let Some(observer) = &self.options.observer {
            observer.changed(stat, observer.hasher(stat).finish());
        }
    }

    fn touch_parent(&mut self, path: &[u8]) {
        let (dir, _) = split(path);
        if let Some(open) = self.open.iter_mut().rev().find(|open| &*open.path == dir) {
            open.touched = true;
        }
    }

    /// Leaves the directories that `path` is not in.
    fn close_dirs(&mut self, path: Option<&[u8]>) {
        let inside = |dir: &[u8]| {
            path.and_then(|p| p.strip_prefix(dir)).is_some_and(|rest| rest.first() == Some(&b'/'))
        };
        while let Some(dir) = self.open.pop_if(|dir| !inside(&dir.path)) {
            if dir.touched {
                self.memory += KEPT + dir.path.len() as u64;
                self.finish.push(dir);
            }
        }
    }

    fn write_metadata(&mut self, list: &[u8]) -> Result<(), TransferError> {
        self.root.remove_all(METADATA_FILE)?;
        Ok(self.root.write_file(METADATA_FILE, list, 0o644)?)
    }
}
