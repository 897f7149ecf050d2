//! Copying between trees, with the rules of COPY and ADD.
//!
//! Both sides are roots: source links cannot lead out of the source, and nothing in the destination is written through
//! a link. Content is shared (`FICLONE`) or copied inside the kernel where the filesystem can.

mod data;
mod metadata;
mod mode;
mod node;
mod tree;
mod wildcard;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use self::mode::{BadMode, ModeChange};
use self::tree::Tree;
pub use self::wildcard::resolve_wildcards;
use crate::error::Error;
use crate::meta::FileTime;
use crate::paths;
use crate::patterns::{Matcher, PatternError};
use crate::root::Root;

/// Why a copy failed. The destination may be partly written.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A filesystem operation failed.
    #[error(transparent)]
    Fs(#[from] Error),
    /// A directory is to go where something else is.
    #[error("cannot copy to non-directory: {}", .0.display())]
    NotDirectory(PathBuf),
    /// A file is to go where a directory is.
    #[error("cannot replace to directory {} with file", .0.display())]
    IsDirectory(PathBuf),
    /// The include patterns cannot be used.
    #[error("invalid includepatterns: {0}")]
    Include(PatternError),
    /// The exclude patterns cannot be used.
    #[error("invalid excludepatterns: {0}")]
    Exclude(PatternError),
    /// [`CopyOptions::cancel`] was set.
    #[error("copy was cancelled")]
    Cancelled,
}

/// How to copy.
#[derive(Debug, Clone, Default)]
pub struct CopyOptions {
    /// Owner of everything copied or made; else files keep theirs and made parents are root's.
    pub owner: Option<(u32, u32)>,
    /// Access and modification time of everything copied or made; else files keep theirs.
    pub time: Option<FileTime>,
    /// Permissions of everything copied. Parents that must be made get them only from [`CopyOptions::parent_mode`].
    pub mode: Option<ModeChange>,
    /// Permissions of made parents (0777); 0755 if not given.
    pub parent_mode: Option<u32>,
    /// Copy what is in a source directory, not the directory itself.
    pub dir_contents: bool,
    /// Follow a link in the last place of the source path. Links inside a copied tree are always copied as links.
    pub follow_links: bool,
    /// If not empty, copy only what matches (paths relative to the source).
    pub include: Vec<String>,
    /// Leave out what matches, also if included.
    pub exclude: Vec<String>,
    /// Replace what is in the way whatever its type; directories are still merged with directories.
    pub replace_existing: bool,
    /// Set by someone else to stop the copy.
    pub cancel: Option<Arc<AtomicBool>>,
}

/// Options with their patterns read once, for several copies.
#[derive(Debug)]
pub struct Copier {
    options: CopyOptions,
    include: Option<Matcher>,
    exclude: Option<Matcher>,
}

/// Copies one path; see [`Copier::copy`].
pub fn copy(
    src: &Root,
    src_path: impl AsRef<Path>,
    dst: &Root,
    dst_path: impl AsRef<Path>,
    options: &CopyOptions,
) -> Result<(), CopyError> {
    Copier::new(options.clone())?.copy(src, src_path, dst, dst_path)
}

impl Copier {
    /// Reads the patterns.
    pub fn new(options: CopyOptions) -> Result<Copier, CopyError> {
        let matcher = |patterns: &[String]| {
            let some = !patterns.is_empty();
            some.then(|| Matcher::new(patterns)).transpose()
        };
        let include = matcher(&options.include).map_err(CopyError::Include)?;
        let exclude = matcher(&options.exclude).map_err(CopyError::Exclude)?;
        Ok(Copier { options, include, exclude })
    }

    /// Copies a file, link, device or tree. `src_path` is taken literally (see [`resolve_wildcards`]).
    ///
    /// `dst_path` is a directory to copy into when it ends with a slash or exists as one, else the new name; its missing
    /// parents are made, its links followed inside the root. A directory goes into an existing one under its own name,
    /// or with [`CopyOptions::dir_contents`] is merged with it. Inside a tree: directories merge and take the source's
    /// metadata, anything else replaces what is there but a directory. Hard links among the copied stay hard links.
    pub fn copy(
        &self,
        src: &Root,
        src_path: impl AsRef<Path>,
        dst: &Root,
        dst_path: impl AsRef<Path>,
    ) -> Result<(), CopyError> {
        let (src_path, dst_path) = (src_path.as_ref(), dst_path.as_ref());
        let (dir, file) = paths::split(dst_path);
        let ensure = if file.is_empty() || file == "." { dst_path } else { dir };
        let mut made = self.make_dirs(dst, ensure)?;

        let mut target = dst.canonical(paths::absolute(dst_path), true)?;
        let from = src.canonical(paths::absolute(src_path), self.options.follow_links)?;
        let meta = src.metadata(&from, false)?;
        let there = match dst.metadata(&target, false) {
            Ok(m) => Some(m),
            Err(e) if e.errno() == Some(rustix::io::Errno::NOENT) => None,
            Err(e) => return Err(e.into()),
        };
        let into = match there {
            Some(_) if meta.is_dir() => !self.options.dir_contents,
            Some(there) => there.is_dir(),
            None => false,
        };
        let name = paths::base(src_path);
        if into && name != "/" {
            target = paths::absolute(target.join(name));
        }
        let parent = match there {
            None if self.options.dir_contents && meta.is_dir() => Some(target.as_path()),
            _ => target.parent(),
        };
        if let Some(parent) = parent {
            made.extend(self.make_dirs(dst, parent)?);
        }
        Tree::new(self, src, dst, &target).copy(&from, meta)?;
        if let Some(t) = self.options.time {
            for dir in made.iter().rev() {
                dst.utimens(dir, t, t)?;
            }
        }
        Ok(())
    }

    fn make_dirs(&self, dst: &Root, path: &Path) -> Result<Vec<PathBuf>, CopyError> {
        if path.as_os_str().is_empty() {
            return Ok(Vec::new());
        }
        let mode = self.options.parent_mode.unwrap_or(0o755) & 0o777;
        Ok(dst.create_dir_all(path, mode, self.options.owner, self.options.time.map(Into::into))?)
    }

    fn check_cancelled(&self) -> Result<(), CopyError> {
        match &self.options.cancel {
            Some(flag) if flag.load(Ordering::Relaxed) => Err(CopyError::Cancelled),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
