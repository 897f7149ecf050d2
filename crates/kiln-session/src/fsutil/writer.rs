//! Writing the contents of files as they arrive.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kiln_fs::Root;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::TransferError;
use super::dirs::Dirs;
use super::options::{ContentHasher, Observer, Style};
use super::place;
use super::stat::Stat;
use super::validate::{split, to_path};

/// Contents for one writer. The permit bounds what is in memory.
pub(crate) struct Pieces {
    pub(crate) list: Vec<(u32, Bytes)>,
    pub(crate) _memory: OwnedSemaphorePermit,
}

/// Files that were asked for and are not complete, shared between the one that asks and those that write.
pub(crate) struct Wanted {
    shards: Vec<Mutex<HashMap<u32, Stat>>>,
    /// Number of them.
    open: watch::Sender<u64>,
    stopped: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every update is one statement, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wanted {
    pub(crate) fn new(writers: usize) -> Self {
        let shards = (0..writers).map(|_| Mutex::default()).collect();
        Self { shards, open: watch::Sender::new(0), stopped: AtomicBool::new(false) }
    }

    /// Which writer has to do with file `id`.
    pub(crate) fn writer_of(&self, id: u32) -> usize {
        id as usize % self.shards.len()
    }

    /// Must come before the request goes out.
    pub(crate) fn add(&self, id: u32, stat: Stat) {
        // Nobody waits for more of them.
        self.open.send_if_modified(|open| {
            *open += 1;
            false
        });
        lock(&self.shards[self.writer_of(id)]).insert(id, stat);
    }

    fn take(&self, id: u32) -> Option<Stat> {
        lock(&self.shards[self.writer_of(id)]).remove(&id)
    }

    fn completed(&self) {
        self.open.send_if_modified(|open| {
            *open -= 1;
            *open == 0
        });
    }

    /// Ends all waiting.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.open.send_modify(|_| {});
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Waits until every file that was asked for is in its place.
    pub(crate) async fn complete(&self) -> Result<(), TransferError> {
        let mut open = self.open.subscribe();
        // The sender is ours, so it does not end before.
        let _ = open.wait_for(|open| *open == 0 || self.is_stopped()).await;
        match self.is_stopped() {
            true => Err(TransferError::Stopped),
            false => Ok(()),
        }
    }
}

/// One of those who write.
pub(crate) struct Writer {
    dirs: Dirs,
    wanted: Arc<Wanted>,
    observer: Option<Arc<dyn Observer>>,
    style: Style,
    files: HashMap<u32, Unfinished>,
}

/// A file that is being written.
struct Unfinished {
    stat: Stat,
    file: File,
    hasher: Option<Box<dyn ContentHasher>>,
    written: u64,
    /// Its present name, if not yet the final one.
    temporary: Option<(OwnedFd, String)>,
}

/// Bytes that a file may be longer than announced, besides twice its size: it may be growing while it is read.
const GROWTH: u64 = 64 << 20;

impl Writer {
    pub(crate) fn new(
        root: Arc<Root>,
        wanted: Arc<Wanted>,
        observer: Option<Arc<dyn Observer>>,
        style: Style,
    ) -> Self {
        Self { dirs: Dirs::new(root), wanted, observer, style, files: HashMap::new() }
    }

    /// Writes what came.
    pub(crate) fn take(&mut self, pieces: Pieces) -> Result<(), TransferError> {
        for (id, data) in pieces.list {
            if self.wanted.is_stopped() {
                return Err(TransferError::Stopped);
            }
            self.write(id, &data)?;
        }
        Ok(())
    }

    fn write(&mut self, id: u32, data: &[u8]) -> Result<(), TransferError> {
        let mut file = match self.files.remove(&id) {
            Some(file) => file,
            None => self.begin(self.wanted.take(id).ok_or(TransferError::FileRequest(id))?)?,
        };
        if data.is_empty() {
            self.finish(file)?;
            self.wanted.completed();
            return Ok(());
        }
        file.append(data)?;
        self.files.insert(id, file);
        Ok(())
    }

    fn begin(&mut self, stat: Stat) -> Result<Unfinished, TransferError> {
        let hasher = self.observer.as_ref().map(|o| o.hasher(&stat));
        let (dir, name) = self.dirs.parent(&stat.path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let failed = |e: Errno| TransferError::io("create", to_path(&stat.path), e);
        let (file, temporary) = match self.style {
            Style::InPlace => (rustix::fs::openat(dir, name, flags, mode).map_err(failed)?, None),
            Style::Replace => {
                let name = format!(".tmp-{:024x}", rand::random::<u128>() >> 32);
                let file = rustix::fs::openat(dir, name.as_str(), flags, mode).map_err(failed)?;
                let dir = dir
                    .try_clone_to_owned()
                    .map_err(|e| TransferError::io("open", to_path(&stat.path), e))?;
                (file, Some((dir, name)))
            }
        };
        Ok(Unfinished { stat, file: File::from(file), hasher, written: 0, temporary })
    }

    fn finish(&mut self, mut file: Unfinished) -> Result<(), TransferError> {
        place::finish_file(file.file.as_fd(), &file.stat)?;
        file.settle()?;
        if let (Some(observer), Some(hasher)) = (&self.observer, file.hasher.take()) {
            observer.changed(&file.stat, hasher.finish());
        }
        Ok(())
    }
}

impl Unfinished {
    fn append(&mut self, data: &[u8]) -> Result<(), TransferError> {
        let size = u64::try_from(self.stat.size).unwrap_or(0);
        self.written += data.len() as u64;
        if self.written > size.saturating_mul(2).saturating_add(GROWTH) {
            return Err(TransferError::Overrun { path: to_path(&self.stat.path), size });
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.write(data);
        }
        self.file.write_all(data).map_err(|e| TransferError::io("write", to_path(&self.stat.path), e))
    }

    /// Gives the file its final name.
    fn settle(&mut self) -> Result<(), TransferError> {
        let Some((dir, temporary)) = &self.temporary else { return Ok(()) };
        let (_, name) = split(&self.stat.path);
        rustix::fs::renameat(dir, temporary.as_str(), dir, name)
            .map_err(|e| TransferError::io("rename", to_path(&self.stat.path), e))?;
        self.temporary = None;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some((dir, name)) = &self.temporary
            && let Err(e) = rustix::fs::unlinkat(dir, name.as_str(), AtFlags::empty())
        {
            let path: PathBuf = to_path(&self.stat.path);
            tracing::warn!(path = %path.display(), error = %e, "unfinished file stays behind");
        }
    }
}
