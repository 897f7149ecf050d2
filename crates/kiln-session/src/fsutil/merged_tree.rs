//! Several trees in one directory.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::Read;
use std::iter::{once, once_with};
use std::path::Path;
use std::sync::Arc;

use super::TransferError;
use super::stat::{Kind, Stat};
use super::tree::{Entries, Tree};
use super::virtual_tree::Key;

/// Trees that share their directories; any other path that two of them have is an error.
pub struct MergedTree {
    parts: Vec<Arc<dyn Tree>>,
}

impl std::fmt::Debug for MergedTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MergedTree").field("parts", &self.parts.len()).finish()
    }
}

impl MergedTree {
    /// All of `parts`; where they share a directory, its owner, mode and times are those of the first.
    pub fn new(parts: Vec<Arc<dyn Tree>>) -> Self {
        Self { parts }
    }
}

/// All entries, so that a clash is known before anything is sent.
fn merge(parts: &[Arc<dyn Tree>]) -> Result<BTreeMap<Key, Stat>, TransferError> {
    let mut all: BTreeMap<Key, Stat> = BTreeMap::new();
    for stat in parts.iter().flat_map(|part| part.entries()) {
        let stat = stat?;
        match all.entry(Key(stat.path.clone())) {
            Entry::Vacant(free) => {
                free.insert(stat);
            }
            Entry::Occupied(other)
                if other.get().kind() != Some(Kind::Dir) || stat.kind() != Some(Kind::Dir) =>
            {
                return Err(TransferError::Twice(stat.path().to_path_buf()));
            }
            Entry::Occupied(_) => {}
        }
    }
    Ok(all)
}

impl Tree for MergedTree {
    fn entries(&self) -> Entries {
        let parts = self.parts.clone();
        Box::new(once_with(move || merge(&parts)).flat_map(|all| match all {
            Ok(all) => Box::new(all.into_values().map(Ok)) as Entries,
            Err(e) => Box::new(once(Err(e))),
        }))
    }

    fn open(&self, path: &Path) -> std::io::Result<Box<dyn Read + Send>> {
        // Only one has it: the walk has made sure.
        let mut found = self.parts.iter().filter_map(|part| part.open(path).ok());
        found.next().ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsutil::MemoryTree;
    use bytes::Bytes;

    fn tree(files: &[&str]) -> Arc<dyn Tree> {
        let mut tree = MemoryTree::default();
        for path in files {
            tree.add(path, 0o644, 0, Bytes::from(format!("{path} of {}", files.len())));
        }
        Arc::new(tree)
    }

    fn names(tree: &MergedTree) -> Result<Vec<String>, TransferError> {
        tree.entries().map(|stat| Ok(stat?.path().display().to_string())).collect()
    }

    #[test]
    fn directories_are_shared_and_files_are_not() {
        let merged = MergedTree::new(vec![tree(&["d/b", "d.x", "z"]), tree(&["a", "d/a"])]);
        assert_eq!(names(&merged).unwrap(), ["a", "d", "d/a", "d/b", "d.x", "z"]);
        let mut text = String::new();
        merged.open(Path::new("d/a")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "d/a of 2");
        assert!(merged.open(Path::new("none")).is_err());
        for (a, b) in [("d/b", "d/b"), ("d", "d/b"), ("d/b", "d")] {
            let clash = MergedTree::new(vec![tree(&[a]), tree(&[b])]);
            assert!(matches!(names(&clash), Err(TransferError::Twice(_))), "{a} {b}");
        }
    }
}
