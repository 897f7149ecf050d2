//! Work on checked out trees, through directory handles.

use std::path::{Path, PathBuf};

use kiln_fs::{FileKind, FileTime, Root};

use crate::{Result, SourceError};

/// Moves what is in `from/subdir` to the root and removes the rest of `from`. Every part of `subdir` must be a
/// directory of the repository itself: links are not followed, so nothing outside of it can be reached.
pub(super) fn lift(root: &Root, from: &str, subdir: &str) -> Result<(), String> {
    let mut path = PathBuf::from("/").join(from);
    for part in subdir.split('/') {
        if matches!(part, "" | "." | "..") {
            return Err(format!("invalid subdir {subdir}: git subpath {subdir:?} is not clean"));
        }
        path.push(part);
        let meta = root
            .metadata(&path, false)
            .map_err(|_| format!("failed to lstat {part:?} of git subpath {subdir:?}"))?;
        if !meta.is_dir() {
            return Err(format!(
                "invalid subdir {subdir}: git subpath {subdir:?} contains non-directory {part:?}"
            ));
        }
    }
    let text = |e: kiln_fs::Error| e.to_string();
    for entry in root.read_dir(&path).map_err(text)? {
        root.rename(path.join(&entry.name), Path::new("/").join(&entry.name)).map_err(text)?;
    }
    root.remove_all(Path::new("/").join(from)).map_err(text)
}

/// Sets the modification time of everything, directories after what is in them.
pub(super) fn set_times(root: &Root, seconds: i64) -> Result<()> {
    let time = FileTime { secs: seconds, nanos: 0 };
    let mut found = Vec::new();
    visit(root, &mut |path, _| found.push(path.to_path_buf()))?;
    // Parents come before children in the walk, so the way back does directories last.
    for path in found.iter().rev() {
        root.utimens(path, time, time)?;
    }
    Ok(root.utimens("/", time, time)?)
}

/// Removes the `.git` files of submodules: they name a repository that is not part of the checkout.
pub(super) fn remove_git_files(root: &Root) -> Result<()> {
    let mut found = Vec::new();
    visit(root, &mut |path, kind| {
        if kind == FileKind::File && path.file_name().is_some_and(|n| n == ".git") {
            found.push(path.to_path_buf());
        }
    })?;
    found.iter().try_for_each(|path| root.remove(path)).map_err(SourceError::from)
}

/// Calls `f` for everything below the root, parents first.
fn visit(root: &Root, f: &mut dyn FnMut(&Path, FileKind)) -> Result<()> {
    let mut dirs = vec![PathBuf::from("/")];
    while let Some(dir) = dirs.pop() {
        for entry in root.read_dir(&dir)? {
            let path = dir.join(&entry.name);
            f(&path, entry.kind);
            if entry.kind == FileKind::Dir {
                dirs.push(path);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn lifts_only_what_is_inside() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("canary"), "").unwrap();
        fs::create_dir_all(dir.path().join("co/a/b")).unwrap();
        fs::write(dir.path().join("co/a/b/file"), "").unwrap();
        fs::write(dir.path().join("co/plain"), "").unwrap();
        symlink(outside.path(), dir.path().join("co/link")).unwrap();
        symlink("a", dir.path().join("co/inner")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        for bad in ["link", "inner/b", "plain", "missing", "a/../../.."] {
            assert!(lift(&root, "co", bad).is_err(), "{bad}");
        }
        assert!(outside.path().join("canary").exists());
        lift(&root, "co", "a/b").unwrap();
        let names: Vec<_> = root.read_dir("/").unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["file"]);
    }

    #[test]
    fn times_of_everything() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/.git"), "").unwrap();
        symlink("nowhere", dir.path().join("d/l")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        remove_git_files(&root).unwrap();
        set_times(&root, 1_000_000_000).unwrap();
        for path in ["/", "/d", "/d/l"] {
            assert_eq!(root.metadata(path, false).unwrap().mtime.secs, 1_000_000_000, "{path}");
        }
        assert!(!root.exists("/d/.git", false).unwrap());
    }
}
