//! Trees that are made of memory and of other trees.

use std::collections::{BTreeMap, btree_map};
use std::io::{Cursor, Read};
use std::iter::{Peekable, once};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::TransferError;
use super::stat::{Kind, Stat};
use super::tree::{Entries, Tree};
use super::validate::compare;

/// Files that exist in memory only, such as attestations.
#[derive(Clone, Debug, Default)]
pub struct MemoryTree {
    entries: BTreeMap<Key, (Stat, Bytes)>,
}

/// A path that sorts in walk order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key(pub(super) Bytes);

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
    fn entries(&self) -> Entries {
        Box::new(self.entries.clone().into_values().map(|(stat, _)| Ok(stat)))
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
    fn entries(&self) -> Entries {
        Box::new(self.parts.clone().into_iter().flat_map(|(dir, tree)| {
            let path = dir.path.clone();
            let below = move |inner: &Bytes| Bytes::from([&path[..], inner].join(&b'/'));
            let moved = tree.entries().map(move |stat| {
                let mut stat = stat?;
                stat.path = below(&stat.path);
                if stat.has_contents() && !stat.linkname.is_empty() {
                    stat.linkname = below(&stat.linkname);
                }
                Ok(stat)
            });
            once(Ok(dir)).chain(moved)
        }))
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

/// The entries of both trees of an overlay.
struct Overlay {
    lower: Peekable<Entries>,
    added: Peekable<btree_map::IntoIter<Key, (Stat, Bytes)>>,
}

impl Iterator for Overlay {
    type Item = Result<Stat, TransferError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(Ok(stat)) = self.lower.peek() else {
            return self.lower.next().or_else(|| self.added.next().map(|(_, (extra, _))| Ok(extra)));
        };
        if let Some((_, (extra, _))) = self.added.next_if(|(key, _)| compare(&key.0, &stat.path).is_lt()) {
            return Some(Ok(extra));
        }
        if let Some((_, (extra, _))) = self.added.next_if(|(key, _)| key.0 == stat.path)
            && (extra.has_contents() || stat.kind() != Some(Kind::Dir))
        {
            return Some(Err(TransferError::Twice(stat.path().to_path_buf())));
        }
        self.lower.next()
    }
}

impl Tree for OverlaidTree {
    fn entries(&self) -> Entries {
        let added = self.upper.entries.clone().into_iter().peekable();
        Box::new(Overlay { lower: self.lower.entries().peekable(), added })
    }

    fn open(&self, path: &Path) -> std::io::Result<Box<dyn Read + Send>> {
        self.upper.open(path).or_else(|_| self.lower.open(path))
    }
}
