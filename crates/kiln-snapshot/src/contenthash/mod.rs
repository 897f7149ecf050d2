//! Checksums of files and trees as BuildKit computes them for cache keys (spec llb-and-solver.md section 5, exact).
//!
//! A [`HashTree`] remembers the digest of everything that was asked for, so that a second checksum of an unchanged
//! filesystem reads nothing. Directories are read when a path in them is looked up; files are read by several threads.

mod compute;
mod header;
mod include;
mod persist;
mod resolve;
mod tree;

use kiln_digest::Digest;
use kiln_fs::Root;

pub use header::{FileHasher, FileHeader};
pub use tree::HashTree;

use crate::SnapshotError;
use crate::error::Result;
use resolve::Walker;

/// How a path is looked up and what of it counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChecksumOpts {
    /// Follow a symbolic link in the last element (links in parents are always followed).
    pub follow_links: bool,
    /// The path is a pattern (Go `path.Match` per element).
    pub wildcard: bool,
    /// Only what matches (moby patternmatcher), relative to the path.
    pub include: Vec<String>,
    /// Not what matches, relative to the path.
    pub exclude: Vec<String>,
    /// Paths that must be among those included; missing ones are a not-found error.
    pub required: Vec<String>,
}

/// The checksum of `path` in the filesystem `root`, whose known digests are in `tree`.
///
/// `tree` must belong to this filesystem, and the filesystem must not change meanwhile. Blocks on file reads.
pub fn checksum(root: &Root, tree: &mut HashTree, path: &str, opts: &ChecksumOpts) -> Result<Digest> {
    if tree.too_deep {
        return Err(tree::TOO_DEEP);
    }
    let mut walker = Walker::new(root, tree);
    if opts.wildcard || !opts.include.is_empty() || !opts.exclude.is_empty() {
        return include::checksum(&mut walker, path, opts);
    }
    single(&mut walker, path, opts.follow_links)
}

/// The checksum of `path` where there is no filesystem: only `/` exists.
pub fn checksum_of_nothing(path: &str) -> Result<Digest> {
    match path {
        "/" => Ok(Digest::sha256("")),
        _ => Err(SnapshotError::PathNotFound(path.to_string())),
    }
}

/// One record: a file's digest, or a directory's with all that is in it.
fn single(walker: &mut Walker<'_>, path: &str, follow: bool) -> Result<Digest> {
    let found = walker.resolve(path.as_bytes(), follow)?;
    if !walker.exists(&found) {
        return Err(SnapshotError::PathNotFound(resolve::clean_text(path)));
    }
    if walker.is_dir(&found) {
        walker.scan_all(&found)?;
    }
    walker.compute(&compute::Wanted::Subtree(&found))?;
    walker.tree.total(&found).ok_or_else(|| SnapshotError::PathNotFound(resolve::clean_text(path)))
}

#[cfg(test)]
mod tests;
