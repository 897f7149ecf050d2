//! Several trees in one directory.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::TransferError;
use super::stat::{Kind, Stat};
use super::tree::{Tree, Visit};
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

impl Tree for MergedTree {
    fn walk(&self, visit: &mut Visit<'_>) -> Result<(), TransferError> {
        let mut all: BTreeMap<Key, Stat> = BTreeMap::new();
        for part in &self.parts {
            part.walk(&mut |stat| match all.entry(Key(stat.path.clone())) {
                Entry::Vacant(free) => {
                    free.insert(stat);
                    Ok(())
                }
                Entry::Occupied(other) => {
                    match (other.get().kind() == Some(Kind::Dir), stat.kind() == Some(Kind::Dir)) {
                        (true, true) => Ok(()),
                        _ => Err(TransferError::Twice(stat.path().to_path_buf())),
                    }
                }
            })?;
        }
        all.into_values().try_for_each(visit)
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
        let mut names = Vec::new();
        tree.walk(&mut |stat| {
            names.push(stat.path().display().to_string());
            Ok(())
        })?;
        Ok(names)
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
