//! A layer's changes as a tar archive, shaped as containerd and BuildKit write it: parents before what is in them,
//! deletions as `.wh.` files of 1970, whole seconds, hard links to the first name, no sockets.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use kiln_fs::tar::{Entry, EntryKind, TarError, Writer};
use kiln_fs::{Metadata, Root};

use crate::SnapshotError;
use crate::changes::{CAPABILITY, Change, ChangeKind};
use crate::error::Result;

/// Writes changes as they come.
pub(crate) struct DiffTar<W: Write> {
    tar: Writer<W>,
    /// Directories that are in the archive.
    dirs: HashSet<PathBuf>,
    /// Where an inode with several names was written first.
    links: HashMap<((u32, u32), u64), PathBuf>,
}

fn tar_error(error: TarError) -> SnapshotError {
    SnapshotError::io("write", "layer archive", error)
}

impl<W: Write> DiffTar<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { tar: Writer::new(out), dirs: HashSet::new(), links: HashMap::new() }
    }

    /// Writes one change.
    pub(crate) fn write(&mut self, change: &Change<'_>) -> Result<()> {
        match (&change.metadata, change.kind) {
            (_, ChangeKind::Delete) | (None, _) => self.deletion(change.root, change.path),
            (Some(meta), _) if meta.is_dir() => self.directory(change.root, change.path, meta),
            (Some(meta), _) => self.object(change, meta),
        }
    }

    /// Ends the archive.
    pub(crate) fn finish(self) -> Result<W> {
        self.tar.finish().map_err(tar_error)
    }

    fn deletion(&mut self, root: &Root, path: &Path) -> Result<()> {
        self.parents(root, path)?;
        let mut name = OsString::from(".wh.");
        name.push(path.file_name().unwrap_or_default());
        self.tar.append_empty(&Entry::new(path.with_file_name(name), EntryKind::File)).map_err(tar_error)
    }

    fn directory(&mut self, root: &Root, path: &Path, meta: &Metadata) -> Result<()> {
        let Some(mut entry) = Entry::from_metadata(path, meta) else { return Ok(()) };
        if self.dirs.contains(path) {
            return Ok(());
        }
        self.parents(root, path)?;
        self.dirs.insert(path.to_path_buf());
        entry.mtime = meta.mtime.truncated();
        self.tar.append_empty(&entry).map_err(tar_error)
    }

    fn object(&mut self, change: &Change<'_>, meta: &Metadata) -> Result<()> {
        let path = change.path;
        let Some(mut entry) = Entry::from_metadata(path, meta) else { return Ok(()) };
        entry.mtime = meta.mtime.truncated();
        if entry.kind == EntryKind::Symlink {
            entry.link = change.root.read_link(path)?;
        }
        if meta.nlink > 1 {
            match self.links.get(&(meta.dev, meta.ino)) {
                Some(first) => {
                    entry.kind = EntryKind::HardLink;
                    entry.link = first.clone();
                    entry.size = 0;
                }
                None => {
                    self.links.insert((meta.dev, meta.ino), path.to_path_buf());
                }
            }
        }
        if let Some(value) = change.capability()?.filter(|value| !value.is_empty()) {
            entry.xattrs.insert(CAPABILITY.into(), value);
        }
        self.parents(change.root, path)?;
        if entry.kind == EntryKind::File && entry.size > 0 {
            return self.tar.append(&entry, change.open()?).map_err(tar_error);
        }
        self.tar.append_empty(&entry).map_err(tar_error)
    }

    /// Writes the directories above a path that are not in the archive yet, so that unpacking keeps their metadata.
    fn parents(&mut self, root: &Root, path: &Path) -> Result<()> {
        let missing = |dir: &&Path| !dir.as_os_str().is_empty() && !self.dirs.contains(*dir);
        // The outermost first; the usual file finds its directory there and this is empty.
        let missing: Vec<&Path> = path.ancestors().skip(1).take_while(missing).collect();
        for dir in missing.into_iter().rev() {
            self.directory(root, dir, &root.metadata(dir, false)?)?;
        }
        Ok(())
    }
}
