//! Finding a path among names and links, reading directories on the way.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_fs::walk::{Step, walk};
use kiln_fs::{FileKind, Root};

use super::tree::{Dir, HashTree, MAX_DEPTH, Name, Names, Node, TOO_DEEP, names};
use crate::SnapshotError;
use crate::error::Result;

/// As in the reference.
const MAX_LINKS: usize = 255;

/// A filesystem together with what is known of it.
pub(crate) struct Walker<'a> {
    pub(crate) root: &'a Root,
    pub(crate) tree: &'a mut HashTree,
}

/// The path as messages show it: absolute and clean, the root as nothing.
pub(crate) fn clean_text(path: &str) -> String {
    String::from_utf8_lossy(&clean(path.as_bytes())).into_owned()
}

/// Lexically clean: `/a/b`, or empty for the root.
pub(crate) fn clean(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(out.pop()),
            name => out.push(name),
        }
    }
    out.iter().flat_map(|name| [b"/".as_slice(), name].concat()).collect()
}

/// A path for the kernel.
pub(crate) fn path_of(path: &[Name]) -> PathBuf {
    let mut out = PathBuf::from("/");
    out.extend(path.iter().map(|name| OsStr::from_bytes(name)));
    out
}

impl<'a> Walker<'a> {
    pub(crate) fn new(root: &'a Root, tree: &'a mut HashTree) -> Self {
        Self { root, tree }
    }

    /// Where a path leads: links in parents are followed, one in the last element only with `follow`. What does not
    /// exist is kept as written, so the result need not exist.
    pub(crate) fn resolve(&mut self, path: &[u8], follow: bool) -> Result<Names> {
        let split = |text: &[u8]| text.split(|b| *b == b'/').map(Name::from).collect::<Vec<_>>();
        let cleaned = clean(path);
        let mut rest: VecDeque<Name> = split(&cleaned).into();
        let mut at = Names::new();
        let mut links = 0;
        while let Some(part) = rest.pop_front() {
            match &*part {
                b"" | b"." => continue,
                b".." => {
                    at.pop();
                    continue;
                }
                _ => at.push(part),
            }
            let last = rest.is_empty();
            let Some(Node::Symlink { target, .. }) = self.lookup(&at)? else { continue };
            if last && !follow {
                break;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(SnapshotError::TooManyLinks(String::from_utf8_lossy(path).into_owned()));
            }
            let target = target.clone();
            at.pop();
            if target.first() == Some(&b'/') {
                at.clear();
            }
            for part in split(&target).into_iter().rev() {
                rest.push_front(part);
            }
        }
        Ok(at)
    }

    /// The node at a path without links, directories on the way being read.
    fn lookup(&mut self, path: &[Name]) -> Result<Option<&Node>> {
        for depth in 0..path.len() {
            let Some(dir) = self.tree.dir(&path[..depth]) else { return Ok(None) };
            if !dir.scanned {
                self.scan_one(&path[..depth])?;
            }
        }
        Ok(self.tree.get(path))
    }

    pub(crate) fn exists(&self, path: &[Name]) -> bool {
        path.is_empty() || self.tree.get(path).is_some()
    }

    pub(crate) fn is_dir(&self, path: &[Name]) -> bool {
        self.tree.dir(path).is_some()
    }

    /// Reads the names of one directory.
    fn scan_one(&mut self, path: &[Name]) -> Result<()> {
        let mut found = Vec::new();
        walk(self.root, path_of(path), |entry| {
            found.push((Name::from(entry.name().as_bytes()), new_node(entry)?));
            Ok::<_, SnapshotError>(Step::SkipDir)
        })?;
        if let Some(dir) = self.tree.dir_mut(path) {
            for (name, node) in found {
                dir.children.entry(name).or_insert(node);
            }
            dir.scanned = true;
        }
        Ok(())
    }

    /// Reads the names of a directory and all below it.
    pub(crate) fn scan_all(&mut self, path: &[Name]) -> Result<()> {
        let Some(top) = self.tree.dir_mut(path) else { return Ok(()) };
        if scanned_below(top) {
            return Ok(());
        }
        walk(self.root, path_of(path), |entry| {
            let below = names(entry.path());
            let Some((name, parent)) = below.split_last() else { return Ok(Step::Continue) };
            if path.len() + below.len() > MAX_DEPTH {
                return Err(TOO_DEEP);
            }
            let Some(dir) = descend(top, parent) else { return Ok(Step::Continue) };
            if !dir.children.contains_key(name) {
                dir.children.insert(name.clone(), new_node(entry)?);
            }
            Ok(Step::Continue)
        })?;
        mark_scanned(top);
        Ok(())
    }
}

fn descend<'d>(mut dir: &'d mut Dir, path: &[Name]) -> Option<&'d mut Dir> {
    for name in path {
        match dir.children.get_mut(name)? {
            Node::Dir(next) => dir = next,
            _ => return None,
        }
    }
    Some(dir)
}

fn scanned_below(dir: &Dir) -> bool {
    // A known total was computed from every name below.
    dir.total.is_some()
        || dir.scanned
            && dir.children.values().all(|node| !matches!(node, Node::Dir(dir) if !scanned_below(dir)))
}

fn mark_scanned(dir: &mut Dir) {
    dir.scanned = true;
    for node in dir.children.values_mut() {
        if let Node::Dir(dir) = node {
            mark_scanned(dir);
        }
    }
}

fn new_node(entry: &kiln_fs::walk::Entry<'_>) -> Result<Node> {
    Ok(match entry.kind()? {
        FileKind::Dir => Node::Dir(Dir::default()),
        FileKind::Symlink => {
            let target = entry.read_link()?;
            Node::Symlink { target: Path::as_os_str(&target).as_bytes().into(), digest: None }
        }
        _ => Node::File(None),
    })
}
