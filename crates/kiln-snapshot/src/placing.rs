//! Putting files of one tree into another, for layers that are put together without overlayfs, or outside of it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use kiln_fs::walk::{Step, walk};
use kiln_fs::{FileKind, Metadata, Root};

use crate::SnapshotError;
use crate::changes::{Change, ChangeKind};
use crate::error::Result;

/// How the content of a file arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A copy (sharing blocks where the filesystem can): the target may be written to.
    Copy,
    /// A hard link: both sides are immutable.
    Link,
}

/// Writes into a tree. [`finish`](Self::finish) must be called: it sets the times of directories.
pub(crate) struct Placer<'a> {
    source: &'a Root,
    target: &'a Root,
    content: Content,
    /// Where an inode with several names was put first.
    links: HashMap<((u32, u32), u64), PathBuf>,
    dirs: Vec<(PathBuf, Metadata)>,
    /// The same directories, to look up.
    placed: HashSet<PathBuf>,
}

impl<'a> Placer<'a> {
    pub(crate) fn new(source: &'a Root, target: &'a Root, content: Content) -> Self {
        Self { source, target, content, links: HashMap::new(), dirs: Vec::new(), placed: HashSet::new() }
    }

    /// Applies one change. Parents must be there.
    pub(crate) fn apply(&mut self, change: &Change<'_>) -> Result<()> {
        match (change.kind, &change.metadata) {
            (ChangeKind::Delete, _) | (_, None) => Ok(self.target.remove_all(change.path)?),
            (_, Some(meta)) => self.place(change.path, meta),
        }
    }

    /// Makes the directories above a path be those of the source, as a layer does that has something in them.
    pub(crate) fn place_parents(&mut self, path: &Path) -> Result<()> {
        let new = |dir: &&Path| !dir.as_os_str().is_empty() && !self.placed.contains(*dir);
        let new: Vec<&Path> = path.ancestors().skip(1).take_while(new).collect();
        for dir in new.into_iter().rev() {
            self.place(dir, &self.source.metadata(dir, false)?)?;
        }
        Ok(())
    }

    /// Puts one object in place of what is there; a directory keeps what is in it.
    pub(crate) fn place(&mut self, path: &Path, meta: &Metadata) -> Result<()> {
        let existing = match self.target.metadata(path, false) {
            Ok(existing) => Some(existing),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        if existing.is_some_and(|old| !(old.is_dir() && meta.is_dir())) {
            self.target.remove_all(path)?;
        }
        if meta.is_dir() {
            if !existing.is_some_and(|old| old.is_dir()) {
                self.target.create_dir(path, 0o700)?;
            }
            if self.placed.insert(path.to_path_buf()) {
                self.dirs.push((path.to_path_buf(), *meta));
            }
            return self.metadata(path, meta);
        }
        if meta.nlink > 1 {
            if let Some(first) = self.links.get(&(meta.dev, meta.ino)) {
                return Ok(self.target.hard_link(first, path)?);
            }
            self.links.insert((meta.dev, meta.ino), path.to_path_buf());
        }
        if self.content == Content::Link && self.link(path)? {
            return Ok(());
        }
        self.copy(path, meta)?;
        self.metadata(path, meta)
    }

    /// Whether a hard link could be made: a file system allows only so many per inode.
    fn link(&self, path: &Path) -> Result<bool> {
        let (from, from_name) = self.source.parent(path)?;
        let (to, to_name) = self.target.parent(path)?;
        match rustix::fs::linkat(&from, &from_name, &to, &to_name, rustix::fs::AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::MLINK) => Ok(false),
            Err(errno) => Err(SnapshotError::io("link", path.display(), errno)),
        }
    }

    fn copy(&self, path: &Path, meta: &Metadata) -> Result<()> {
        match meta.kind {
            FileKind::Symlink => self.target.symlink(self.source.read_link(path)?, path)?,
            FileKind::File => {
                let mut from = self.source.open_file(path)?;
                let mut to = self.target.create_file(path, 0o600)?;
                if rustix::fs::ioctl_ficlone(&to, &from).is_err() {
                    io::copy(&mut from, &mut to).map_err(|e| SnapshotError::io("copy", path.display(), e))?;
                }
            }
            kind => self.target.mknod(path, kind, meta.mode, meta.rdev)?,
        }
        Ok(())
    }

    /// Owner before mode: chown clears set-id bits.
    fn metadata(&self, path: &Path, meta: &Metadata) -> Result<()> {
        self.target.chown(path, meta.uid, meta.gid)?;
        if !meta.is_symlink() {
            self.target.chmod(path, meta.mode)?;
        }
        for (name, value) in self.source.xattrs(path)? {
            if !name.to_string_lossy().contains(".overlay.") {
                self.target.set_xattr(path, name, &value)?;
            }
        }
        Ok(self.target.utimens(path, meta.atime, meta.mtime)?)
    }

    /// Sets the times of directories, which the files put in them have changed.
    pub(crate) fn finish(self) -> Result<()> {
        for (path, meta) in self.dirs.iter().rev() {
            match self.target.utimens(path, meta.atime, meta.mtime) {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Copies a whole tree, root included.
pub(crate) fn copy_tree(from: &Path, to: &Path, content: Content) -> Result<()> {
    let (source, target) = (Root::open(from)?, Root::open(to)?);
    let mut placer = Placer::new(&source, &target, content);
    placer.place(Path::new(""), &source.metadata("", false)?)?;
    walk(&source, "", |entry| {
        let meta = *entry.metadata()?;
        placer.place(entry.path(), &meta)?;
        Ok::<_, SnapshotError>(Step::Continue)
    })?;
    placer.finish()
}
