//! Trees that can be sent.

use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use kiln_fs::walk::{Entry, Step, walk};
use kiln_fs::{FileKind, Root};
use rustix::fs::{Mode, OFlags, openat};

use super::TransferError;
use super::filter::{Filter, Matched, Verdict};
use super::packet::Stat;
use super::validate::compare;

/// Takes the entries of a walk. An error ends the walk and is passed on.
pub type Visit<'a> = dyn FnMut(Stat) -> Result<(), TransferError> + 'a;

/// A tree of files, as a sender sees it. Calls block.
pub trait Tree: Send + Sync {
    /// Visits every entry once, in the order of the protocol: parents first, siblings by bytes, a directory's whole
    /// content before its next sibling.
    fn walk(&self, visit: &mut Visit<'_>) -> Result<(), TransferError>;

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

struct DirWalk<'a, 'v> {
    tree: &'a DirTree,
    above: Vec<Above>,
    /// First path of each file that has several.
    links: HashMap<((u32, u32), u64), Bytes>,
    visit: &'a mut Visit<'v>,
}

impl Tree for DirTree {
    fn walk(&self, visit: &mut Visit<'_>) -> Result<(), TransferError> {
        let mut state = DirWalk { tree: self, above: Vec::new(), links: HashMap::new(), visit };
        walk(&self.root, "", |entry| match state.entry(entry) {
            // What vanished is not there.
            Err(TransferError::Fs(e)) if e.is_not_found() => Ok(Step::SkipDir),
            step => step,
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

impl DirWalk<'_, '_> {
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
            (self.visit)(stat)?;
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
        self.map(&mut stat);
        Ok(stat)
    }

    fn map(&self, stat: &mut Stat) {
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
            self.map(&mut stat);
            (self.visit)(stat)?;
        }
        Ok(())
    }
}

/// A directory that nobody asked for must not stop the walk because it cannot be read.
fn is_readable(dir: &Entry<'_>) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir.dir(), dir.name(), flags, Mode::empty()).is_ok()
}

/// Files that exist in memory only, such as attestations.
#[derive(Clone, Debug, Default)]
pub struct MemoryTree {
    entries: BTreeMap<Key, (Stat, Bytes)>,
}

/// A path that sorts in walk order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key(Bytes);

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl MemoryTree {
    /// Adds a file at a clean relative path, with mode 0755 directories above it where there are none yet.
    pub fn add(&mut self, path: &str, permissions: u32, mod_time: i64, content: Bytes) {
        for (at, _) in path.match_indices('/') {
            let dir = Bytes::copy_from_slice(&path.as_bytes()[..at]);
            let stat = || (Stat { mod_time, ..Stat::dir(dir.clone(), 0o755) }, Bytes::new());
            self.entries.entry(Key(dir.clone())).or_insert_with(stat);
        }
        let stat = Stat { mod_time, ..Stat::file(path.to_string(), permissions, content.len() as u64) };
        self.entries.insert(Key(stat.path.clone()), (stat, content));
    }
}

impl Tree for MemoryTree {
    fn walk(&self, visit: &mut Visit<'_>) -> Result<(), TransferError> {
        self.entries.values().try_for_each(|(stat, _)| visit(stat.clone()))
    }

    fn open(&self, path: &Path) -> std::io::Result<Box<dyn Read + Send>> {
        let key = Key(Bytes::copy_from_slice(path.as_os_str().as_bytes()));
        match self.entries.get(&key) {
            Some((_, content)) => Ok(Box::new(Cursor::new(content.clone()))),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }
}

/// Several trees in one, each in a directory of its own or all in the root.
pub struct JoinedTree {
    parts: Vec<(Stat, Arc<dyn Tree>)>,
}

impl std::fmt::Debug for JoinedTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinedTree").field("parts", &self.parts.len()).finish()
    }
}

impl JoinedTree {
    /// Each part below a directory described by its [`Stat`], whose path is one name; names must differ.
    pub fn side_by_side(mut parts: Vec<(Stat, Arc<dyn Tree>)>) -> Result<Self, TransferError> {
        parts.sort_by(|(a, _), (b, _)| compare(&a.path, &b.path));
        let same = parts.windows(2).find(|pair| pair[0].0.path == pair[1].0.path);
        match same {
            Some(pair) => Err(TransferError::Twice(pair[0].0.path().to_path_buf())),
            None => Ok(Self { parts }),
        }
    }
}

impl Tree for JoinedTree {
    fn walk(&self, visit: &mut Visit<'_>) -> Result<(), TransferError> {
        for (dir, tree) in &self.parts {
            visit(dir.clone())?;
            let below = |path: &Bytes| Bytes::from([&dir.path[..], path].join(&b'/'));
            tree.walk(&mut |mut stat| {
                stat.path = below(&stat.path);
                if stat.has_contents() && !stat.linkname.is_empty() {
                    stat.linkname = below(&stat.linkname);
                }
                visit(stat)
            })?;
        }
        Ok(())
    }

    fn open(&self, path: &Path) -> std::io::Result<Box<dyn Read + Send>> {
        let mut names = path.components();
        let first = names.next().map(|c| c.as_os_str().as_bytes()).unwrap_or_default();
        match self.parts.iter().find(|(dir, _)| dir.path == first) {
            Some((_, tree)) => tree.open(names.as_path()),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }
}

/// Two trees laid over each other; a path in both is an error, except for directories.
#[derive(Clone)]
pub struct OverlaidTree {
    lower: Arc<dyn Tree>,
    upper: MemoryTree,
}

impl std::fmt::Debug for OverlaidTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OverlaidTree").field("upper", &self.upper).finish_non_exhaustive()
    }
}

impl OverlaidTree {
    /// `upper` within `lower`.
    pub fn new(lower: Arc<dyn Tree>, upper: MemoryTree) -> Self {
        Self { lower, upper }
    }
}

impl Tree for OverlaidTree {
    fn walk(&self, visit: &mut Visit<'_>) -> Result<(), TransferError> {
        let mut added = self.upper.entries.iter().peekable();
        self.lower.walk(&mut |stat| {
            while let Some((_, (extra, _))) = added.next_if(|(key, _)| compare(&key.0, &stat.path).is_lt()) {
                visit(extra.clone())?;
            }
            if let Some((_, (extra, _))) = added.next_if(|(key, _)| key.0 == stat.path)
                && (extra.has_contents() || stat.kind() != Some(super::Kind::Dir))
            {
                return Err(TransferError::Twice(stat.path().to_path_buf()));
            }
            visit(stat)
        })?;
        added.try_for_each(|(_, (extra, _))| visit(extra.clone()))
    }

    fn open(&self, path: &Path) -> std::io::Result<Box<dyn Read + Send>> {
        self.upper.open(path).or_else(|_| self.lower.open(path))
    }
}
