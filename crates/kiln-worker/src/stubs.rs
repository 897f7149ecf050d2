//! Mount points that did not exist before a step, and their removal after it.
//!
//! What is removed is checked again through directory handles at the time of removal: a step may have put a link in
//! the way (CVE-2024-23652), and only empty directories and empty files go.

use kiln_fs::{FileTime, Root};
use std::path::{Path, PathBuf};

/// Made before the step runs.
pub(crate) struct Stubs {
    missing: Vec<PathBuf>,
}

impl Stubs {
    /// Notes which of `dests` do not exist in `root`; with `recursive` also their missing parents.
    pub(crate) fn note<'a>(root: &Root, dests: impl Iterator<Item = &'a str>, recursive: bool) -> Self {
        let mut missing = Vec::new();
        for dest in dests {
            // Links in parents are resolved now: afterwards the step may have changed them.
            let Ok(mut path) = canonical_missing(root, dest) else { continue };
            while path.as_os_str().len() > 1 && !root.exists(&path, false).unwrap_or(true) {
                missing.push(path.clone());
                if !recursive || !path.pop() {
                    break;
                }
            }
        }
        Self { missing }
    }

    /// Removes those that are still empty. Parents keep their times, so that the layer does not depend on the mounts.
    pub(crate) fn remove(self, root: &Root) {
        for path in self.missing {
            if let Err(error) = remove_one(root, &path) {
                tracing::debug!(path = %path.display(), %error, "a mount point stays");
            }
        }
    }
}

/// `dest` below the root with the links of its existing parents resolved.
fn canonical_missing(root: &Root, dest: &str) -> Result<PathBuf, kiln_fs::Error> {
    let mut rest = Vec::new();
    let mut at = Path::new("/").join(dest.trim_start_matches('/'));
    loop {
        if at.parent().is_none() || root.exists(&at, true).unwrap_or(false) {
            break;
        }
        if let Some(name) = at.file_name() {
            rest.push(name.to_os_string());
        }
        at.pop();
    }
    let mut path = Path::new("/").join(root.canonical(&at, true)?);
    path.extend(rest.iter().rev());
    Ok(path)
}

fn remove_one(root: &Root, path: &Path) -> Result<(), kiln_fs::Error> {
    let Some(parent) = path.parent() else { return Ok(()) };
    // A parent that is reached over a link now was put there by the step.
    if Path::new("/").join(root.canonical(parent, true)?) != parent {
        return Ok(());
    }
    let meta = root.metadata(path, false)?;
    let empty =
        if meta.is_dir() { root.read_dir(path)?.is_empty() } else { meta.is_file() && meta.size == 0 };
    if !empty {
        return Ok(());
    }
    let before = root.metadata(parent, false)?;
    root.remove(path)?;
    let time: FileTime = before.mtime;
    root.utimens(parent, time, time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_empty_ones_that_were_missing_go() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("had")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let stubs = Stubs::note(&root, ["/had", "/a/b/c", "/f", "/full"].into_iter(), true);
        fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        fs::create_dir_all(dir.path().join("full/x")).unwrap();
        fs::write(dir.path().join("f"), "").unwrap();
        stubs.remove(&root);
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(dir.path().join("had").exists() && dir.path().join("full").exists());
    }

    #[test]
    fn a_link_put_in_the_way_is_not_followed() {
        let host = tempfile::tempdir().unwrap();
        fs::write(host.path().join("canary"), "").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        fs::create_dir(dir.path().join("other")).unwrap();
        fs::write(dir.path().join("other/canary"), "").unwrap();
        for target in [host.path(), Path::new("other"), Path::new("/other")] {
            let stubs = Stubs::note(&root, ["/x/canary"].into_iter(), false);
            std::os::unix::fs::symlink(target, dir.path().join("x")).unwrap();
            stubs.remove(&root);
            assert!(host.path().join("canary").exists());
            assert!(dir.path().join("other/canary").exists(), "{}", target.display());
            fs::remove_file(dir.path().join("x")).unwrap();
        }
    }
}
