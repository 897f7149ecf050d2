//! What is known of a filesystem's names and digests.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use kiln_digest::{Digest, Hasher};

use crate::SnapshotError;

/// Deeper trees are refused, because work on them here is recursive.
pub(crate) const MAX_DEPTH: usize = 512;

/// The error for it.
pub(crate) const TOO_DEEP: SnapshotError = SnapshotError::TooDeep { what: "directories", limit: MAX_DEPTH };

/// One path element.
pub(crate) type Name = Box<[u8]>;

/// A path without links, `.` and `..`; empty is the root.
pub(crate) type Names = Vec<Name>;

/// A file, link or directory. Digests are `None` until somebody asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    File(Option<Digest>),
    Symlink { target: Box<[u8]>, digest: Option<Digest> },
    Dir(Dir),
}

/// A directory. The order of `children` is BuildKit's order of keys: a key is the path with NUL for `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dir {
    /// Digest of the directory's own metadata.
    pub(crate) header: Option<Digest>,
    /// Digest with all that is in it.
    pub(crate) total: Option<Digest>,
    /// Whether `children` has every name.
    pub(crate) scanned: bool,
    pub(crate) children: BTreeMap<Name, Node>,
}

/// Known digests of one filesystem.
///
/// [`HashTree::new`] knows nothing and fills itself from the files. [`HashTree::received`] is filled by whoever writes
/// the files, who must then report every change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HashTree {
    pub(crate) root: Dir,
    /// Hard links whose target may still be reported: target to links.
    pub(super) links: HashMap<Names, Vec<Names>>,
    /// Something was reported that lies too deep. The tree then has no digests to give.
    pub(crate) too_deep: bool,
    /// Something was learned or reported since the tree was loaded or saved.
    pub(crate) changed: bool,
}

pub(crate) fn names(path: &Path) -> Names {
    let normal = |c: Component<'_>| match c {
        Component::Normal(name) => Some(Name::from(name.as_bytes())),
        _ => None,
    };
    path.components().filter_map(normal).collect()
}

impl HashTree {
    /// Nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty directory that is about to be filled by a transfer, each change of which is reported here. As in
    /// BuildKit, the root's own metadata does not count.
    pub fn received() -> Self {
        let root = Dir { header: Some(Digest::sha256("")), scanned: true, ..Dir::default() };
        Self { root, changed: true, ..Self::default() }
    }

    /// A new transfer begins on top of an earlier one: hard links of the earlier one are no longer followed up.
    pub fn start_update(&mut self) {
        self.links.clear();
    }

    /// A regular file, device or FIFO was written; `digest` is that of [`FileHasher`](super::FileHasher).
    pub fn set_file(&mut self, path: &Path, digest: Digest) {
        self.insert(names(path), Node::File(Some(digest)));
    }

    /// A symbolic link was written.
    pub fn set_symlink(&mut self, path: &Path, target: &OsStr, digest: Digest) {
        self.insert(names(path), Node::Symlink { target: target.as_bytes().into(), digest: Some(digest) });
    }

    /// A directory was made or its metadata changed. What is in it stays.
    pub fn set_dir(&mut self, path: &Path, header: Digest) {
        let path = names(path);
        if let Some(Node::Dir(dir)) = self.get_mut(&path) {
            dir.header = Some(header);
            self.touch(&path);
        } else if !path.is_empty() {
            self.insert(path, Node::Dir(Dir { header: Some(header), scanned: true, ..Dir::default() }));
        }
    }

    /// A hard link to `target` was made. It takes the record of its target, also if that is reported later.
    pub fn set_hard_link(&mut self, path: &Path, target: &Path) {
        let (path, target) = (names(path), names(target));
        let node = match self.get(&target) {
            Some(node @ (Node::File(_) | Node::Symlink { .. })) => node.clone(),
            _ => Node::File(None),
        };
        self.insert(path.clone(), node);
        self.links.entry(target).or_default().push(path);
    }

    /// A path was removed, with all below it.
    pub fn remove(&mut self, path: &Path) {
        let path = names(path);
        let Some((name, parent)) = path.split_last() else { return };
        if let Some(dir) = self.dir_mut(parent) {
            dir.children.remove(name);
        }
        self.touch(parent);
    }

    fn insert(&mut self, path: Names, node: Node) {
        let Some((name, parent)) = path.split_last() else { return };
        if path.len() > MAX_DEPTH {
            self.too_deep = true;
            return;
        }
        let linked = match &node {
            Node::Dir(_) => None,
            _ => self.links.remove(&path),
        };
        for link in linked.unwrap_or_default() {
            self.insert(link, node.clone());
        }
        let mut dir = &mut self.root;
        dir.total = None;
        for name in parent {
            let made = || Node::Dir(Dir { scanned: true, ..Dir::default() });
            let child = dir.children.entry(name.clone()).or_insert_with(made);
            if !matches!(child, Node::Dir(_)) {
                *child = made();
            }
            let Node::Dir(next) = child else { return };
            next.total = None;
            dir = next;
        }
        dir.children.insert(name.clone(), node);
        self.changed = true;
    }

    /// Forgets the totals of a directory and its parents.
    fn touch(&mut self, path: &[Name]) {
        self.changed = true;
        let mut dir = &mut self.root;
        dir.total = None;
        for name in path {
            match dir.children.get_mut(name) {
                Some(Node::Dir(next)) => {
                    next.total = None;
                    dir = next;
                }
                _ => return,
            }
        }
    }

    /// The node at a path other than the root.
    pub(crate) fn get(&self, path: &[Name]) -> Option<&Node> {
        let (name, parent) = path.split_last()?;
        self.dir(parent)?.children.get(name)
    }

    fn get_mut(&mut self, path: &[Name]) -> Option<&mut Node> {
        let (name, parent) = path.split_last()?;
        self.dir_mut(parent)?.children.get_mut(name)
    }

    pub(crate) fn dir(&self, path: &[Name]) -> Option<&Dir> {
        let mut dir = &self.root;
        for name in path {
            match dir.children.get(name)? {
                Node::Dir(next) => dir = next,
                _ => return None,
            }
        }
        Some(dir)
    }

    pub(crate) fn dir_mut(&mut self, path: &[Name]) -> Option<&mut Dir> {
        let mut dir = &mut self.root;
        for name in path {
            match dir.children.get_mut(name)? {
                Node::Dir(next) => dir = next,
                _ => return None,
            }
        }
        Some(dir)
    }

    /// Notes a computed digest: a file's, a link's, or a directory's header.
    pub(crate) fn learn(&mut self, path: &[Name], digest: Digest) {
        self.changed = true;
        if path.is_empty() {
            self.root.header = Some(digest);
            return;
        }
        match self.get_mut(path) {
            Some(Node::File(have)) | Some(Node::Symlink { digest: have, .. }) => *have = Some(digest),
            Some(Node::Dir(dir)) => dir.header = Some(digest),
            None => {}
        }
    }

    /// The digest of a record, a directory's with all that is in it. `None` when something below is not known.
    pub(crate) fn total(&mut self, path: &[Name]) -> Option<Digest> {
        let (total, changed) = match self.dir_mut(path) {
            Some(dir) => {
                let known = dir.total.is_some();
                (dir.total()?, !known)
            }
            None => (self.get(path)?.own()?, false),
        };
        self.changed |= changed;
        Some(total)
    }
}

impl Node {
    /// The digest of the record itself; a directory's header.
    pub(crate) fn own(&self) -> Option<Digest> {
        match self {
            Self::File(digest) | Self::Symlink { digest, .. } => *digest,
            Self::Dir(dir) => dir.header,
        }
    }
}

impl Dir {
    fn total(&mut self) -> Option<Digest> {
        if self.total.is_some() {
            return self.total;
        }
        let mut hasher = Hasher::new();
        hasher.update(b"\0");
        hasher.update(self.header?.to_string().as_bytes());
        for (name, child) in &mut self.children {
            let digest = match child {
                Node::Dir(dir) => dir.total()?,
                other => other.own()?,
            };
            hasher.update(b"\0");
            hasher.update(name);
            hasher.update(digest.to_string().as_bytes());
        }
        self.total = Some(hasher.finish());
        self.total
    }
}
