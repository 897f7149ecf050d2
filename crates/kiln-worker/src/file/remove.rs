//! Removing.

use super::FileError;
use kiln_fs::{Root, copy, paths};
use kiln_llb::RmAction;
use std::path::Path;

/// Removes a path or, with wildcards, all that match (none is fine). Links in the last place are removed, not followed.
pub(super) fn run(a: &RmAction, root: &Root) -> Result<(), FileError> {
    if !a.allow_wildcard {
        return one(root, Path::new(&a.path), a.allow_not_found);
    }
    for path in copy::resolve_wildcards(root, &a.path, false)? {
        one(root, &path, a.allow_not_found)?;
    }
    Ok(())
}

fn one(root: &Root, path: &Path, allow_not_found: bool) -> Result<(), FileError> {
    let path = paths::absolute(path);
    // Also what `..` comes down to (GHSA-32pv-7hq5-qhwq).
    if path == Path::new("/") {
        return Err(FileError::RemoveRoot);
    }
    if !allow_not_found {
        root.metadata(&path, false)?;
    }
    Ok(root.remove_all(&path)?)
}
