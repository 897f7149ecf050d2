//! What a layer changes: from an overlay upper directory, or by comparing two trees.
//!
//! The rules for what counts as unchanged are those of containerd's and BuildKit's differs, so that the same step gives
//! the same layer.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use kiln_fs::walk::{Entry, Step, walk};
use kiln_fs::{DirEntry, FileKind, Metadata, Root};

use crate::SnapshotError;
use crate::error::Result;

/// How a path differs from below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// Was not there.
    Add,
    /// Was there, and is different.
    Modify,
    /// Was there, and is gone with all below it.
    Delete,
}

/// One changed path.
pub(crate) struct Change<'a> {
    /// Relative, without a leading slash.
    pub(crate) path: &'a Path,
    pub(crate) kind: ChangeKind,
    /// What is there now; `None` for deletions.
    pub(crate) metadata: Option<Metadata>,
    /// The filesystem that has it, and its parents.
    pub(crate) root: &'a Root,
    /// A shorter way to it, when it comes from a walk.
    entry: Option<&'a Entry<'a>>,
}

impl Change<'_> {
    /// Opens a regular file.
    pub(crate) fn open(&self) -> Result<File> {
        match self.entry {
            Some(entry) => Ok(entry.open()?),
            None => Ok(self.root.open_file(self.path)?),
        }
    }

    /// The capabilities of a file.
    pub(crate) fn capability(&self) -> Result<Option<Vec<u8>>> {
        match self.entry {
            Some(entry) => Ok(entry.xattrs()?.remove(OsStr::new(CAPABILITY))),
            None => Ok(self.root.get_xattr(self.path, CAPABILITY)?),
        }
    }
}

/// Sees each change, parents before children, names in byte order.
pub(crate) type Visit<'a> = dyn FnMut(&Change<'_>) -> Result<()> + 'a;

/// The attribute of a file that counts beside mode and owner.
pub(crate) const CAPABILITY: &str = "security.capability";

/// An overlay upper directory and what it lies on.
pub(crate) struct Upper<'a> {
    /// The upper directory itself, with whiteouts.
    pub(crate) dir: &'a Root,
    /// The filesystem below; `None` for the empty one.
    pub(crate) base: Option<&'a Root>,
    /// The filesystem as seen with `dir` on top.
    pub(crate) merged: &'a Root,
    /// The name of the attribute that makes a directory opaque.
    pub(crate) opaque: &'a str,
}

impl Upper<'_> {
    /// Walks the upper directory once.
    pub(crate) fn changes(&self, visit: &mut Visit<'_>) -> Result<()> {
        // A directory that is new, or replaces something else: below it everything is new.
        let mut new_below: Option<PathBuf> = None;
        walk(self.dir, "", |entry| {
            let path = entry.path();
            if new_below.as_ref().is_some_and(|new| !path.starts_with(new)) {
                new_below = None;
            }
            let base = match (&new_below, self.base) {
                (None, Some(base)) => lookup(base, path)?.map(|meta| (base, meta)),
                _ => None,
            };
            let meta = *entry.metadata()?;
            let change = |kind, metadata| Change { path, kind, metadata, root: self.dir, entry: Some(entry) };
            if meta.is_overlay_whiteout() {
                if base.is_some() {
                    visit(&change(ChangeKind::Delete, None))?;
                }
                return Ok(Step::SkipDir);
            }
            match base {
                Some((root, old)) if same(root, &old, self.dir, &meta, path)? => {}
                Some(_) => visit(&change(ChangeKind::Modify, Some(meta)))?,
                None => visit(&change(ChangeKind::Add, Some(meta)))?,
            }
            if !meta.is_dir() {
                return Ok(Step::Continue);
            }
            match base {
                Some((root, old)) if old.is_dir() => {
                    if self.is_opaque(entry)? {
                        // The upper directory does not say what was there; both sides do.
                        compare_below(root, self.merged, path, visit)?;
                        return Ok(Step::SkipDir);
                    }
                }
                _ => {
                    new_below.get_or_insert_with(|| path.to_path_buf());
                }
            }
            Ok(Step::Continue)
        })
    }

    fn is_opaque(&self, entry: &Entry<'_>) -> Result<bool> {
        Ok(is_opaque(self.dir, entry.path(), self.opaque)?)
    }
}

pub(crate) fn is_opaque(dir: &Root, path: &Path, xattr: &str) -> Result<bool, kiln_fs::Error> {
    Ok(dir.get_xattr(path, xattr)?.is_some_and(|value| value == b"y"))
}

fn lookup(root: &Root, path: &Path) -> Result<Option<Metadata>> {
    match root.metadata(path, false) {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Compares two filesystems.
pub(crate) fn compare(lower: &Root, upper: &Root, visit: &mut Visit<'_>) -> Result<()> {
    compare_below(lower, upper, Path::new(""), visit)
}

fn compare_below(lower: &Root, upper: &Root, dir: &Path, visit: &mut Visit<'_>) -> Result<()> {
    let mut old = lower.read_dir(dir)?.into_iter().peekable();
    let mut new = upper.read_dir(dir)?.into_iter().peekable();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return Ok(()),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(old), Some(new)) => old.name.cmp(&new.name),
        };
        let in_old = if order.is_le() { old.next() } else { None };
        let in_new = if order.is_ge() { new.next() } else { None };
        match (in_old, in_new) {
            (Some(gone), None) => {
                let path = &dir.join(gone.name);
                visit(&Change { path, kind: ChangeKind::Delete, metadata: None, root: upper, entry: None })?;
            }
            (None, Some(entry)) => add_all(upper, &dir.join(entry.name), visit)?,
            (Some(old), Some(new)) => both(lower, upper, &dir.join(&new.name), &old, &new, visit)?,
            (None, None) => return Ok(()),
        }
    }
}

fn both(
    lower: &Root,
    upper: &Root,
    path: &Path,
    old: &DirEntry,
    new: &DirEntry,
    visit: &mut Visit<'_>,
) -> Result<()> {
    let (Some(was), Some(is)) = (lookup(lower, path)?, lookup(upper, path)?) else { return Ok(()) };
    if !same(lower, &was, upper, &is, path)? {
        visit(&Change { path, kind: ChangeKind::Modify, metadata: Some(is), root: upper, entry: None })?;
    }
    match (old.kind, new.kind) {
        (FileKind::Dir, FileKind::Dir) => compare_below(lower, upper, path, visit),
        (_, FileKind::Dir) => add_below(upper, path, visit),
        _ => Ok(()),
    }
}

fn add_all(upper: &Root, path: &Path, visit: &mut Visit<'_>) -> Result<()> {
    let Some(meta) = lookup(upper, path)? else { return Ok(()) };
    visit(&Change { path, kind: ChangeKind::Add, metadata: Some(meta), root: upper, entry: None })?;
    if meta.is_dir() { add_below(upper, path, visit) } else { Ok(()) }
}

fn add_below(upper: &Root, dir: &Path, visit: &mut Visit<'_>) -> Result<()> {
    walk(upper, dir, |entry| {
        let metadata = Some(*entry.metadata()?);
        let path = &dir.join(entry.path());
        visit(&Change { path, kind: ChangeKind::Add, metadata, root: upper, entry: Some(entry) })?;
        Ok(Step::Continue)
    })
}

/// Whether a path is the same file on both sides: owner, mode, device, capabilities; of what is no directory also size,
/// time, and the content where the time has no fraction and may have been cut off by an archive.
fn same(a_root: &Root, a: &Metadata, b_root: &Root, b: &Metadata, path: &Path) -> Result<bool> {
    if (a.dev, a.ino) == (b.dev, b.ino) {
        return Ok(true);
    }
    if (a.st_mode(), a.uid, a.gid, a.rdev) != (b.st_mode(), b.uid, b.gid, b.rdev) {
        return Ok(false);
    }
    if a_root.get_xattr(path, CAPABILITY)? != b_root.get_xattr(path, CAPABILITY)? {
        return Ok(false);
    }
    if a.is_dir() {
        return Ok(true);
    }
    if a.size != b.size || a.mtime != b.mtime {
        return Ok(false);
    }
    if a.mtime.nanos != 0 {
        return Ok(true);
    }
    match a.kind {
        FileKind::Symlink => Ok(a_root.read_link(path)? == b_root.read_link(path)?),
        FileKind::File => same_content(a_root, b_root, path),
        _ => Ok(true),
    }
}

fn same_content(a: &Root, b: &Root, path: &Path) -> Result<bool> {
    let read = |error| SnapshotError::io("compare", path.display(), error);
    let (mut a, mut b) = (a.open_file(path)?, b.open_file(path)?);
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let n = a.read(&mut left).map_err(read)?;
        if n == 0 {
            return Ok(b.read(&mut right[..1]).map_err(read)? == 0);
        }
        match b.read_exact(&mut right[..n]) {
            Ok(()) if left[..n] == right[..n] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(read(error)),
        }
    }
}

/// Whether a layer's directory has whiteouts or opaque marks.
pub(crate) fn has_marks(dir: &Root, opaque: &str) -> Result<bool> {
    let mut found = false;
    walk(dir, "", |entry| {
        let kind = entry.kind()?;
        found = kind == FileKind::CharDevice && entry.metadata()?.is_overlay_whiteout()
            || kind == FileKind::Dir && is_opaque(dir, entry.path(), opaque)?;
        Ok::<_, SnapshotError>(if found { Step::Stop } else { Step::Continue })
    })?;
    Ok(found)
}

/// Names in a directory; nothing when it is none.
pub(crate) fn names_in(root: &Root, dir: &Path) -> Result<HashSet<std::ffi::OsString>> {
    match root.metadata(dir, false) {
        Ok(meta) if meta.is_dir() => Ok(root.read_dir(dir)?.into_iter().map(|entry| entry.name).collect()),
        Ok(_) => Ok(HashSet::new()),
        Err(error) if error.is_not_found() => Ok(HashSet::new()),
        Err(error) => Err(error.into()),
    }
}
