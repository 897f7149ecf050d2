//! Which paths a COPY source with wildcards means.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_go::path::has_wildcards;

use crate::error::{Error, Result};
use crate::meta::FileKind;
use crate::paths;
use crate::patterns::go_match;
use crate::root::Root;
use crate::walk::{Step, walk};

/// The paths that a pattern names, absolute and in walk order; below a match nothing more is looked for. Elements before
/// the first wildcard are taken literally and must exist; their links are followed, the last one's only with `follow`.
/// Without wildcards it is the path itself, unchecked.
pub fn resolve_wildcards(root: &Root, pattern: impl AsRef<Path>, follow: bool) -> Result<Vec<PathBuf>> {
    let (fixed, glob) = split(&paths::absolute(pattern.as_ref()));
    if glob.is_empty() {
        return Ok(vec![fixed]);
    }
    let base = root.canonical(&fixed, follow)?;
    if root.metadata(&base, false)?.kind != FileKind::Dir {
        return Ok(Vec::new());
    }
    // Only a class can match a slash, so without one the depth is known.
    let depth = (!glob.contains(&b'[')).then(|| glob.iter().filter(|&&b| b == b'/').count());
    let mut found = Vec::new();
    walk::<Error>(root, &base, |entry| {
        let path = entry.path().as_os_str().as_bytes();
        // A malformed pattern matches nothing, as in the original.
        if go_match(&glob, path).unwrap_or(false) {
            found.push(base.join(entry.path()));
            return Ok(Step::SkipDir);
        }
        let here = path.iter().filter(|&&b| b == b'/').count();
        Ok(if depth.is_some_and(|d| here >= d) { Step::SkipDir } else { Step::Continue })
    })?;
    Ok(found)
}

/// Cuts before the first element with a wildcard.
fn split(path: &Path) -> (PathBuf, Vec<u8>) {
    let mut fixed = PathBuf::from("/");
    let mut rest: Vec<&[u8]> = Vec::new();
    for part in paths::components(path) {
        if !rest.is_empty() || has_wildcards(part.as_bytes()) {
            rest.push(part.as_bytes());
        } else {
            fixed.push(part);
        }
    }
    (fixed, rest.join(&b'/'))
}
