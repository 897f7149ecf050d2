//! Symlink chains of wanted paths: a link is useless without what it points to.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_fs::patterns::go_match;
use kiln_fs::{FileKind, Root, paths};

use super::TransferError;

/// Paths looked at for one request; more is no honest list.
const MAX_STEPS: usize = 200_000;

/// The given paths, which may have wildcards, with every link on the way and what it leads to, sorted. Links are
/// resolved as in a chroot; what does not exist is kept as written.
pub(crate) fn follow(root: &Root, wanted: &[String]) -> Result<Vec<String>, TransferError> {
    let mut follower = Follower { root, resolved: BTreeSet::new(), steps: 0 };
    for path in wanted {
        follower.add(PathBuf::from(path))?;
    }
    let mut sorted: Vec<String> = Vec::with_capacity(follower.resolved.len());
    for path in follower.resolved {
        if path == "." {
            return Ok(vec![path]);
        }
        let below =
            |last: &String| path.strip_prefix(last.as_str()).is_some_and(|rest| rest.starts_with('/'));
        if !sorted.last().is_some_and(below) {
            sorted.push(path);
        }
    }
    Ok(sorted)
}

struct Follower<'a> {
    root: &'a Root,
    resolved: BTreeSet<String>,
    steps: usize,
}

impl Follower<'_> {
    /// Walks down `path`; at the first link on the way it goes on with the link's target instead.
    fn add(&mut self, path: PathBuf) -> Result<(), TransferError> {
        let mut queue = vec![path];
        while let Some(path) = queue.pop() {
            let path = paths::absolute(&path);
            let names: Vec<&OsStr> = paths::components(&path).collect();
            if names.is_empty() {
                self.resolved.insert(".".to_string());
            }
            let mut current = PathBuf::new();
            for (i, name) in names.iter().enumerate() {
                self.step()?;
                current.push(name);
                let targets = self.targets(&current, true)?;
                let last = i + 1 == names.len();
                if !last && targets.is_none() {
                    continue;
                }
                let Some(text) = current.to_str() else { break };
                let new = self.resolved.insert(text.to_string());
                if let Some(targets) = targets
                    && new
                {
                    let rest: PathBuf = names[i + 1..].iter().collect();
                    queue.extend(targets.into_iter().rev().map(|t| t.join(&rest)));
                }
                break;
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), TransferError> {
        self.steps += 1;
        match self.steps > MAX_STEPS {
            true => Err(TransferError::Limit { what: "followed paths", limit: MAX_STEPS as u64 }),
            false => Ok(()),
        }
    }

    /// Where the link at `path` leads; `None` if it is no link. A wildcard name stands for all links that match.
    fn targets(&mut self, path: &Path, wildcard: bool) -> Result<Option<Vec<PathBuf>>, TransferError> {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let parent = path.parent().unwrap_or(Path::new(""));
        if wildcard && kiln_go::path::has_wildcards(name) {
            // The parents are known to be no links, or wildcards that name nothing real.
            let Some(entries) = found(self.root.read_dir(parent))? else { return Ok(None) };
            let mut all = Vec::new();
            for entry in entries {
                self.step()?;
                if entry.kind == FileKind::Symlink && go_match(name, entry.name.as_bytes()).unwrap_or(false) {
                    all.extend(self.targets(&parent.join(&entry.name), false)?.unwrap_or_default());
                }
            }
            return Ok((!all.is_empty()).then_some(all));
        }
        let is_link = found(self.root.metadata(path, false))?.is_some_and(|m| m.is_symlink());
        if !is_link {
            return Ok(None);
        }
        let Some(link) = found(self.root.read_link(path))? else { return Ok(None) };
        Ok(Some(vec![if link.is_absolute() { link } else { parent.join(link) }]))
    }
}

fn found<T>(result: kiln_fs::Result<T>) -> Result<Option<T>, TransferError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn run(links: &[(&str, &str)], wanted: &[&str]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for (path, target) in links {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            match *target {
                "" => std::fs::write(path, "").unwrap(),
                target => symlink(target, path).unwrap(),
            }
        }
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        follow(&Root::open(dir.path()).unwrap(), &wanted).unwrap()
    }

    #[test]
    fn chains_are_followed_inside_the_root() {
        let links = [("a/l", "/b/m"), ("b/m", "../../../c/x"), ("c/x", "")];
        assert_eq!(run(&links, &["a/l"]), ["a/l", "b/m", "c/x"]);
        assert_eq!(run(&links, &["/a/../c/x", "missing"]), ["c/x", "missing"]);
    }

    #[test]
    fn a_link_in_the_middle_carries_the_rest_along() {
        let links = [("dir", "real"), ("real/f", "g"), ("real/g", "")];
        assert_eq!(run(&links, &["dir/f"]), ["dir", "real/f", "real/g"]);
    }

    #[test]
    fn loops_end() {
        assert_eq!(run(&[("a", "b"), ("b", "a")], &["a"]), ["a", "b"]);
        assert_eq!(run(&[("a", "a/b")], &["a/x"]), ["a"]);
    }

    #[test]
    fn wildcards_follow_every_matching_link() {
        let links = [("l1", "t1"), ("l2", "t2"), ("t1", ""), ("t2", ""), ("plain", "")];
        assert_eq!(run(&links, &["l*"]), ["l*", "t1", "t2"]);
        assert_eq!(run(&links, &["p*"]), ["p*"]);
    }

    #[test]
    fn the_root_is_everything() {
        assert_eq!(run(&[("l", "/")], &["l", "z"]), ["."]);
        assert_eq!(run(&[], &["/"]), ["."]);
    }
}
