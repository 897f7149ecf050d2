//! Trees that can be sent.

use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use kiln_fs::walk::{Cursor, Entry, Step};
use kiln_fs::{FileKind, Root};
use rustix::fs::{Mode, OFlags, openat};

use super::TransferError;
use super::filter::{Filter, Matched, Verdict};
use super::stat::Stat;

/// What is in a tree, one entry after the other. Asking for the next one blocks; after an error there is none.
pub type Entries = Box<dyn Iterator<Item = Result<Stat, TransferError>> + Send>;

/// A tree of files, as a sender sees it. Calls block on nothing but the file system.
pub trait Tree: Send + Sync {
    /// Every entry once, in the order of the protocol: parents first, siblings by bytes, a directory's whole content
    /// before its next sibling.
    fn entries(&self) -> Entries;

    /// Opens a file that the walk has announced.
    fn open(&self, path: &Path) -> std::io::Result<Box<dyn Read + Send>>;
}

type Map = Arc<dyn Fn(&mut Stat) + Send + Sync>;

/// A directory of a filesystem.
#[derive(Clone)]
pub struct DirTree {
    root: Arc<Root>,
    filters: Vec<Filter>,
    map: Option<Map>,
}

impl std::fmt::Debug for DirTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirTree").field("filters", &self.filters).finish_non_exhaustive()
    }
}

impl DirTree {
    /// Everything below `root`.
    pub fn new(root: Arc<Root>) -> Self {
        Self { root, filters: Vec::new(), map: None }
    }

    /// Only what passes `filter`, on top of earlier filters. Directories above it are sent too.
    pub fn filtered(mut self, filter: Filter) -> Self {
        if !filter.is_empty() {
            self.filters.push(filter);
        }
        self
    }

    /// Changes owner, mode or time of every entry on the way.
    pub fn mapped(mut self, map: impl Fn(&mut Stat) + Send + Sync + 'static) -> Self {
        self.map = Some(Arc::new(map));
        self
    }

    /// Sends everything as owned by root, as clients do with build contexts: the owner on the client means nothing in
    /// the image.
    pub fn owned_by_root(self) -> Self {
        self.mapped(|stat| (stat.uid, stat.gid) = (0, 0))
    }
}

/// A directory on the way down.
struct Above {
    path: PathBuf,
    matched: Vec<Matched>,
    sent: bool,
}

struct DirWalk {
    tree: DirTree,
    /// `None` before the start and after the end.
    cursor: Option<Cursor>,
    begun: bool,
    above: Vec<Above>,
    /// First path of each file that has several.
    links: HashMap<((u32, u32), u64), Bytes>,
    /// Entries found and not yet given.
    ready: VecDeque<Stat>,
}

impl Tree for DirTree {
    fn entries(&self) -> Entries {
        Box::new(DirWalk {
            tree: self.clone(),
            cursor: None,
            begun: false,
            above: Vec::new(),
            links: HashMap::new(),
            ready: VecDeque::new(),
        })
    }

    fn open(&self, path: &Path) -> std::io::Result<Box<dyn Read + Send>> {
        // Not through links: the announced path was none.
        let (dir, name) = self.root.parent(path)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = std::fs::File::from(openat(dir, &name, flags, Mode::empty())?);
        match file.metadata()?.is_file() {
            true => Ok(Box::new(file)),
            false => Err(std::io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Iterator for DirWalk {
    type Item = Result<Stat, TransferError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() {
            match self.step() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(e) => return Some(Err(e)),
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

impl DirWalk {
    /// Looks at one entry; says whether there was one.
    fn step(&mut self) -> Result<bool, TransferError> {
        if !self.begun {
            self.begun = true;
            self.cursor = Some(Cursor::new(&self.tree.root, "")?);
        }
        let Some(mut cursor) = self.cursor.take() else { return Ok(false) };
        let Some(entry) = cursor.entry() else { return Ok(false) };
        let step = match self.entry(&entry) {
            // What vanished is not there.
            Err(TransferError::Fs(e)) if e.is_not_found() => Step::SkipDir,
            step => step?,
        };
        cursor.advance(step)?;
        self.cursor = Some(cursor);
        Ok(true)
    }

    fn entry(&mut self, entry: &Entry<'_>) -> Result<Step, TransferError> {
        while self.above.last().is_some_and(|dir| !entry.path().starts_with(&dir.path)) {
            self.above.pop();
        }
        let is_dir = entry.kind()? == FileKind::Dir;
        let mut matched = Vec::with_capacity(self.tree.filters.len());
        let mut keep = true;
        for (i, filter) in self.tree.filters.iter().enumerate() {
            let parent = self.above.last().and_then(|dir| dir.matched.get(i));
            match filter.judge(entry.path(), is_dir, parent)? {
                Verdict::Prune => return Ok(Step::SkipDir),
                Verdict::Keep(m) => matched.push(m),
                Verdict::Descend(m) => {
                    keep = false;
                    matched.push(m);
                }
            }
        }
        if keep {
            let stat = self.stat(entry)?;
            self.send_above()?;
            self.ready.push_back(stat);
        }
        if !is_dir {
            return Ok(Step::Continue);
        }
        if !keep && !is_readable(entry) {
            return Ok(Step::SkipDir);
        }
        if !self.tree.filters.is_empty() {
            self.above.push(Above { path: entry.path().to_path_buf(), matched, sent: keep });
        }
        Ok(Step::Continue)
    }

    fn stat(&mut self, entry: &Entry<'_>) -> Result<Stat, TransferError> {
        let metadata = entry.metadata()?;
        let path = Bytes::copy_from_slice(entry.path().as_os_str().as_bytes());
        let mut stat = Stat::new(path.clone(), metadata);
        match metadata.kind {
            FileKind::Symlink => stat.linkname = entry.read_link()?.into_os_string().into_vec().into(),
            FileKind::File if metadata.nlink > 1 => {
                let first = self.links.entry((metadata.dev, metadata.ino)).or_insert_with(|| path.clone());
                if *first != path {
                    stat.linkname = first.clone();
                }
            }
            _ => {}
        }
        for (key, value) in entry.xattrs()? {
            if let Some(key) = key.to_str() {
                stat.xattrs.insert(key.to_string(), value);
            }
        }
        self.change(&mut stat);
        Ok(stat)
    }

    fn change(&self, stat: &mut Stat) {
        if let Some(map) = &self.tree.map {
            map(stat);
        }
    }

    /// Directories that hold something wanted but were not wanted themselves.
    fn send_above(&mut self) -> Result<(), TransferError> {
        for i in 0..self.above.len() {
            if self.above[i].sent {
                continue;
            }
            self.above[i].sent = true;
            let path = &self.above[i].path;
            let metadata = self.tree.root.metadata(path, false)?;
            let mut stat = Stat::new(path.as_os_str().as_bytes().to_vec(), &metadata);
            self.change(&mut stat);
            self.ready.push_back(stat);
        }
        Ok(())
    }
}

/// A directory that nobody asked for must not stop the walk because it cannot be read.
fn is_readable(dir: &Entry<'_>) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir.dir(), dir.name(), flags, Mode::empty()).is_ok()
}
