//! Filesystems as directory handles.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use kiln_fs::Root;
use kiln_sys::mount::{self, Attrs, Dir, OverlayOptions};

use crate::driver::Driver;
use crate::error::Result;
use crate::reaper::Reaper;
use crate::snapshots::Inner;
use crate::{Snapshot, SnapshotError};

/// A filesystem that can be read (and written, if it is that of an [`ActiveSnapshot`](crate::ActiveSnapshot)) through
/// a directory handle. Attached inside the daemon's mount namespace, where it goes with the last clone of this.
#[derive(Clone, Debug)]
pub struct Mounted(Arc<Attached>);

/// A [`Mounted`] that is kept by others.
#[derive(Debug)]
pub(crate) struct WeakMounted(Weak<Attached>);

impl WeakMounted {
    pub(crate) fn upgrade(&self) -> Option<Mounted> {
        self.0.upgrade().map(Mounted)
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }
}

#[derive(Debug)]
struct Attached {
    /// Taken by drop only.
    root: Option<Root>,
    read_only: bool,
    /// Where it is attached, and who closes it.
    point: Option<(PathBuf, Arc<Reaper>)>,
    /// Keeps the layers on disk.
    _snapshot: Option<Snapshot>,
}

impl Mounted {
    pub(crate) fn downgrade(&self) -> WeakMounted {
        WeakMounted(Arc::downgrade(&self.0))
    }

    /// The `/` of the filesystem.
    pub fn root(&self) -> &Root {
        self.0.root.as_ref().expect("a root is taken by drop only")
    }

    /// Whether a sandbox that gets this cannot write.
    pub fn read_only(&self) -> bool {
        self.0.read_only
    }

    /// A detached clone of the mount, to be attached in a sandbox. It is usable after this handle is gone.
    pub fn tree_fd(&self) -> Result<OwnedFd> {
        Ok(mount::bind_detached(self.root().as_fd(), false, self.0.read_only)?)
    }

    /// As [`tree_fd`](Self::tree_fd), of a directory or file in it; links are followed inside the root. The path is
    /// resolved once, so what is swapped for a link later does not matter.
    pub fn tree_fd_at(&self, path: &Path, read_only: bool) -> Result<OwnedFd> {
        let place = self.root().open_path(path, true)?;
        Ok(mount::bind_detached(place.as_fd(), false, read_only || self.0.read_only)?)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let (Some((point, reaper)), Some(root)) = (&self.point, self.root.take()) else { return };
        if let Err(error) = mount::unmount(root.as_fd()) {
            tracing::warn!(%error, point = %point.display(), "unmount");
            return;
        }
        if let Err(error) = fs::remove_dir(point) {
            tracing::debug!(%error, point = %point.display(), "remove mount point");
        }
        // A writable mount must be gone before its directory is used again; for a view it does not matter when.
        if self.read_only {
            reaper.close(root.into_fd());
        }
    }
}

impl Inner {
    pub(crate) fn fs_dir(&self, dir: u64) -> PathBuf {
        self.snapshots.join(dir.to_string()).join("fs")
    }

    pub(crate) fn work_dir(&self, dir: u64) -> PathBuf {
        self.snapshots.join(dir.to_string()).join("work")
    }

    /// Mounts a stack of directories (bottom first) for reading. `keep` stays on disk meanwhile.
    pub(crate) fn mount_stack(&self, stack: &[u64], keep: Option<Snapshot>) -> Result<Mounted> {
        let path = match stack {
            [] => self.empty.clone(),
            [one] => self.fs_dir(*one),
            _ => return self.mount_overlay(stack, None, keep),
        };
        self.plain(&path, true, keep)
    }

    /// Mounts an active directory over a stack for writing.
    pub(crate) fn mount_active(&self, stack: &[u64], dir: u64, keep: Option<Snapshot>) -> Result<Mounted> {
        if stack.is_empty() || self.driver == Driver::Native {
            return self.plain(&self.fs_dir(dir), false, keep);
        }
        // What an earlier mount left there (`work`, and the mark of a volatile one) stops the next.
        let work = self.work_dir(dir);
        reset_work_dir(&work).map_err(|e| SnapshotError::io("prepare", work.display(), e))?;
        self.mount_overlay(stack, Some(dir), keep)
    }

    fn plain(&self, path: &Path, read_only: bool, keep: Option<Snapshot>) -> Result<Mounted> {
        let root = Root::open(path)?;
        Ok(Mounted(Arc::new(Attached { root: Some(root), read_only, point: None, _snapshot: keep })))
    }

    fn mount_overlay(&self, stack: &[u64], upper: Option<u64>, keep: Option<Snapshot>) -> Result<Mounted> {
        let Driver::Overlay { userxattr } = self.driver else {
            // A native snapshot has one directory; see stack::dirs.
            return Err(SnapshotError::io("mount", "stack of layers", rustix::io::Errno::INVAL));
        };
        let lower: Vec<PathBuf> = stack.iter().rev().map(|dir| self.fs_dir(*dir)).collect();
        let lower: Vec<Dir<'_>> = lower.iter().map(Dir::from).collect();
        let writable = upper.map(|dir| (self.fs_dir(dir), self.work_dir(dir)));
        let writable = writable.as_ref().map(|(upper, work)| (Dir::from(upper), Dir::from(work)));
        // Volatile: what is not committed need not survive, and a commit does not wait for the disk (see the crate's
        // durability rule).
        let options = OverlayOptions {
            userxattr,
            volatile: true,
            attrs: Attrs::default(),
            scratch: Some(&self.mounts),
        };
        let detached = mount::overlay(&lower, writable, &options)?;
        self.attach(detached, upper.is_none(), keep)
    }

    /// Attaches a mount below `mounts/`: a clone for a sandbox can only be made of an attached one.
    fn attach(&self, detached: OwnedFd, read_only: bool, keep: Option<Snapshot>) -> Result<Mounted> {
        let point = self.mounts.join(self.next_mount().to_string());
        fs::create_dir(&point).map_err(|e| SnapshotError::io("make mount point", point.display(), e))?;
        let attached = Root::open(&point)
            .map_err(SnapshotError::from)
            .and_then(|at| Ok(mount::attach(detached.as_fd(), at.as_fd())?))
            .and_then(|()| Ok(Root::open(&point)?));
        match attached {
            Ok(root) => {
                let point = Some((point, self.reaper.clone()));
                Ok(Mounted(Arc::new(Attached { root: Some(root), read_only, point, _snapshot: keep })))
            }
            Err(error) => {
                let _ = fs::remove_dir(&point);
                Err(error)
            }
        }
    }
}

fn reset_work_dir(work: &Path) -> std::io::Result<()> {
    if let Err(error) = fs::create_dir(work) {
        if error.kind() != std::io::ErrorKind::AlreadyExists {
            return Err(error);
        }
        if fs::read_dir(work)?.next().is_some() {
            fs::remove_dir_all(work)?;
            fs::create_dir(work)?;
        }
    }
    Ok(())
}
