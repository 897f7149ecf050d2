//! Filesystems that are being made.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::sync::Arc;
use std::time::SystemTime;

use crate::catalog;
use crate::driver::Driver;
use crate::error::Result;
use crate::placing::{Content, copy_tree};
use crate::record::{Meta, Record, Shape};
use crate::snapshots::Inner;
use crate::{Mounted, NewRef, Snapshot, SnapshotError, SnapshotId, Snapshots};

/// A filesystem that can be written. It becomes a snapshot by [`commit`](Self::commit); dropped, it leaves nothing.
#[derive(Debug)]
pub struct ActiveSnapshot {
    pub(crate) store: Arc<Inner>,
    pub(crate) id: SnapshotId,
    pub(crate) dir: u64,
    pub(crate) parent: Option<Snapshot>,
    pub(crate) new: NewRef,
    /// The directory belongs to a row, or is gone.
    pub(crate) settled: bool,
}

impl Snapshots {
    /// Starts a filesystem on top of `parent` (or an empty one). The parent must not be lazy. Makes directories only:
    /// nothing is written to the database before the commit.
    pub fn new_active(&self, parent: Option<&Snapshot>, new: NewRef) -> Result<ActiveSnapshot> {
        let inner = &self.0;
        let below = parent.map(|p| inner.dirs(&p.record)).transpose()?.unwrap_or_default();
        let dir = inner.make_dir()?;
        let active = ActiveSnapshot {
            store: inner.clone(),
            id: SnapshotId::random(),
            dir,
            parent: parent.cloned(),
            new,
            settled: false,
        };
        match (inner.driver, below.last()) {
            (Driver::Native, Some(whole)) => {
                copy_tree(&inner.fs_dir(*whole), &inner.fs_dir(dir), Content::Copy)?
            }
            (Driver::Overlay { .. }, Some(top)) => inner.copy_root_attributes(*top, dir)?,
            (_, None) => {}
        }
        Ok(active)
    }
}

impl Inner {
    /// Makes `snapshots/<n>/fs` with a number that was never used since the start.
    pub(crate) fn make_dir(&self) -> Result<u64> {
        let dir = self.next_dir();
        let fs_dir = self.fs_dir(dir);
        let make = || {
            fs::create_dir(self.snapshots.join(dir.to_string()))?;
            fs::create_dir(&fs_dir)?;
            fs::set_permissions(&fs_dir, fs::Permissions::from_mode(0o755))
        };
        make().map_err(|e| SnapshotError::io("make snapshot directory", fs_dir.display(), e))?;
        Ok(dir)
    }

    /// The root of an overlay has the attributes of its topmost directory, so a new one takes them over.
    fn copy_root_attributes(&self, from: u64, to: u64) -> Result<()> {
        let (from, to) = (self.fs_dir(from), self.fs_dir(to));
        let copy = || {
            let meta = fs::metadata(&from)?;
            if (meta.uid(), meta.gid()) != (0, 0) {
                chown(&to, Some(meta.uid()), Some(meta.gid()))?;
            }
            if meta.mode() & 0o7777 != 0o755 {
                fs::set_permissions(&to, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
            }
            Ok(())
        };
        copy().map_err(|e: std::io::Error| SnapshotError::io("prepare", to.display(), e))
    }
}

impl ActiveSnapshot {
    /// The id that the snapshot will have.
    pub fn id(&self) -> &SnapshotId {
        &self.id
    }

    /// What this is built on.
    pub fn parent(&self) -> Option<&Snapshot> {
        self.parent.as_ref()
    }

    /// Mounts it for writing. One mount at a time: overlayfs does not allow a second on the same directory.
    pub fn mount(&self) -> Result<Mounted> {
        let below = self.parent.as_ref().map(|p| self.store.dirs(&p.record)).transpose()?.unwrap_or_default();
        let below = self.store.collapse(below, self.parent.as_ref())?;
        self.store.mount_active(&below, self.dir, self.parent.clone())
    }

    /// Makes it a snapshot. All [`Mounted`] of it must be gone and no process may write to it any more.
    pub fn commit(self) -> Result<Snapshot> {
        self.commit_under(&[])
    }

    /// As [`commit`](Self::commit), found again under `key` by [`Snapshots::find_by_key`].
    pub fn commit_with_key(self, key: &str) -> Result<Snapshot> {
        self.commit_under(&[key])
    }

    pub(crate) fn commit_under(mut self, keys: &[&str]) -> Result<Snapshot> {
        let shape = Shape::Layer(self.parent.as_ref().map(|p| p.record.clone()));
        let record = Arc::new(self.record(shape));
        let inner = self.store.clone();
        // Overlayfs' scratch space is of no use any more; nobody waits for its removal.
        if self.parent.is_some() {
            inner.discard(inner.work_dir(self.dir));
        }
        let snapshot = inner.publish(record, keys)?;
        self.settled = true;
        Ok(snapshot)
    }

    pub(crate) fn record(&self, shape: Shape) -> Record {
        let meta = Meta {
            dir: Some(self.dir),
            kind: self.new.kind,
            description: self.new.description.clone(),
            // Files written straight into a directory have no overlay marks.
            marks: matches!(&shape, Shape::Layer(None)).then_some(false),
            ..Meta::default()
        };
        let created = self.new.created_at.unwrap_or_else(SystemTime::now);
        Record::new(self.id.clone(), shape, created, meta)
    }
}

impl Inner {
    /// Writes the row of a new record and makes the record known, held by the returned handle.
    pub(crate) fn publish(self: &Arc<Self>, record: Arc<Record>, keys: &[&str]) -> Result<Snapshot> {
        let boot = self.db.boot();
        // The catalog is locked around both, so that no reader sees a row without a record or the other way round.
        let mut catalog = self.catalog();
        self.db.write(|tx| {
            catalog::insert_row(tx, &record, boot)?;
            keys.iter().try_for_each(|key| catalog::insert_key(tx, key, &record.id))
        })?;
        catalog.insert(record.clone());
        for key in keys {
            catalog.set_key(key, &record.id);
        }
        self.note_unsynced();
        Ok(Snapshot::new(record, self.clone()))
    }
}

impl Drop for ActiveSnapshot {
    fn drop(&mut self) {
        if !self.settled {
            self.store.discard_dir(self.dir);
        }
    }
}
