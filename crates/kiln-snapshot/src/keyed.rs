//! Build contexts: a directory that is brought up to date by transferring what changed.

use std::sync::Arc;

use crate::contenthash::HashTree;
use crate::driver::Driver;
use crate::error::Result;
use crate::hashes::Hashes;
use crate::record::{Record, Shape};
use crate::{ActiveSnapshot, NewRef, Snapshot, SnapshotId, Snapshots};

/// Updates that find the last version in use are stacked on it; this many, then everything is transferred again.
const MAX_STACKED: usize = 16;

/// A build context that is being updated. Dropped, it leaves nothing: the next update transfers everything.
#[derive(Debug)]
pub struct KeyedUpdate {
    /// The files of the last update, to be changed. Mount it and compare.
    pub active: ActiveSnapshot,
    /// The digests of these files; every change must be reported to it.
    pub hashes: HashTree,
    /// Whether there was an earlier update.
    pub incremental: bool,
    key: String,
}

impl Snapshots {
    /// Starts an update of the files kept under `key` (any text, such as `name:hint:sharedkey`). When the last version
    /// is not in use its directory is taken over, and that version ceases to exist; otherwise the new version is
    /// stacked on it.
    pub fn update_keyed(&self, key: &str, new: NewRef) -> Result<KeyedUpdate> {
        let key = format!("keyed:{key}");
        let Some(last) = self.0.catalog().by_key(&key).pop() else { return self.fresh(key, new) };
        if let Some((dir, hashes)) = self.take_over(&last)? {
            let store = self.0.clone();
            let active =
                ActiveSnapshot { store, id: SnapshotId::random(), dir, parent: None, new, settled: false };
            return Ok(KeyedUpdate { active, hashes, incremental: true, key });
        }
        let stacked = {
            // The lock keeps the record from being pruned before it is held.
            let catalog = self.0.catalog();
            catalog.get(&last.id).map(|record| Snapshot::new(record.clone(), self.0.clone()))
        };
        match stacked {
            Some(last) if self.0.dirs(&last.record)?.len() < MAX_STACKED => {
                let hashes = Hashes::copy(&self.0.hashes.get(last.id()));
                let active = self.new_active(Some(&last), new)?;
                Ok(KeyedUpdate { active, hashes, incremental: true, key })
            }
            _ => self.fresh(key, new),
        }
    }

    fn fresh(&self, key: String, new: NewRef) -> Result<KeyedUpdate> {
        let active = self.new_active(None, new)?;
        Ok(KeyedUpdate { active, hashes: HashTree::received(), incremental: false, key })
    }

    /// Takes the directory of a version that nobody uses. Its row goes first: should the process die while the files
    /// are changed, there is no row that calls them good.
    fn take_over(&self, last: &Arc<Record>) -> Result<Option<(u64, HashTree)>> {
        let mut catalog = self.0.catalog();
        let whole = matches!(last.shape, Shape::Layer(None)) || self.0.driver == Driver::Native;
        let free = catalog.get(&last.id).is_some() && !last.held() && !catalog.has_children(&last.id);
        if !whole || !free {
            return Ok(None);
        }
        let tree = self.0.hashes.get(&last.id);
        let dirs = self.0.remove_record(&mut catalog, last)?;
        drop(catalog);
        self.0.tell_removed(std::slice::from_ref(&last.id));
        Ok(dirs.first().map(|dir| (*dir, Hashes::copy(&tree))))
    }
}

impl KeyedUpdate {
    /// Makes the files a snapshot and keeps them for the next update. All mounts must be gone.
    pub fn commit(self) -> Result<Snapshot> {
        let Self { active, hashes, key, .. } = self;
        let inner = active.store.clone();
        // Before the row: a version is never seen without its digests.
        inner.hashes.set(active.id(), hashes);
        let id = active.id().clone();
        let older = inner.catalog().by_key(&key);
        let committed = active.commit_under(&[&key]);
        match &committed {
            Ok(_) => older.iter().for_each(|record| inner.drop_key(&key, record)),
            Err(_) => inner.hashes.remove(&id),
        }
        committed
    }
}

impl crate::snapshots::Inner {
    /// Only the newest version of a key is of use to the next update.
    fn drop_key(&self, key: &str, record: &Record) {
        let mut catalog = self.catalog();
        let sql = "DELETE FROM snapshot_keys WHERE key = ?1 AND id = ?2";
        match self.db.write(|tx| tx.execute(sql, (key, record.id.as_str()))) {
            Ok(_) => catalog.remove_key(key, &record.id),
            Err(error) => tracing::warn!(%error, key, "older version stays under its key"),
        }
    }
}
