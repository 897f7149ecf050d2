//! Handles of directories below the root, one kept at a time: entries come sorted, so the next one is mostly in it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use kiln_fs::Root;

use super::TransferError;
use super::validate::{split, to_path};

/// Opens parents of entries.
#[derive(Debug)]
pub(crate) struct Dirs {
    root: Arc<Root>,
    path: Vec<u8>,
    last: Option<Root>,
}

impl Dirs {
    pub(crate) fn new(root: Arc<Root>) -> Self {
        Self { root, path: Vec::new(), last: None }
    }

    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    /// The directory that holds `path`, and the name in it. `path` must be clean and relative.
    pub(crate) fn parent<'a>(
        &mut self,
        path: &'a [u8],
    ) -> Result<(BorrowedFd<'_>, &'a OsStr), TransferError> {
        let (dir, name) = split(path);
        let name = OsStr::from_bytes(name);
        if dir.is_empty() {
            return Ok((self.root.as_fd(), name));
        }
        if self.last.is_none() || self.path != dir {
            let opened = self.root.open_dir(Path::new(OsStr::from_bytes(dir)))?;
            self.path.clear();
            self.path.extend_from_slice(dir);
            self.last = Some(opened);
        }
        match &self.last {
            Some(dir) => Ok((dir.as_fd(), name)),
            None => Err(TransferError::io("open", to_path(dir), std::io::ErrorKind::NotFound)),
        }
    }

    /// Forgets the kept handle: what is at `path` was replaced.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }
}
