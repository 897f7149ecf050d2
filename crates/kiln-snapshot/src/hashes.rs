//! The hash trees of snapshots: a few in memory, all in `hashes/<id>`.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_digest::Digest;

use crate::contenthash::{self, ChecksumOpts, HashTree};
use crate::error::Result;
use crate::{Snapshot, SnapshotError, SnapshotId, Snapshots};

/// How many trees are kept in memory; one of 50,000 files takes about 10 MB.
const KEPT: usize = 12;

pub(crate) type Shared = Arc<Mutex<HashTree>>;

#[derive(Debug)]
pub(crate) struct Hashes {
    dir: PathBuf,
    /// Least recently used first.
    kept: Mutex<Vec<(SnapshotId, Shared)>>,
}

impl Hashes {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, kept: Mutex::new(Vec::new()) }
    }

    /// The tree of a snapshot: from memory, from its file, or one that knows nothing.
    pub(crate) fn get(&self, id: &SnapshotId) -> Shared {
        if let Some(tree) = self.cached(id) {
            return tree;
        }
        let loaded = fs::read(self.dir.join(id.as_str())).ok().and_then(|bytes| HashTree::from_bytes(&bytes));
        self.keep(id, Arc::new(Mutex::new(loaded.unwrap_or_default())))
    }

    fn cached(&self, id: &SnapshotId) -> Option<Shared> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(have, _)| have == id)?;
        let entry = kept.remove(at);
        let tree = entry.1.clone();
        kept.push(entry);
        Some(tree)
    }

    /// Keeps a tree, unless somebody else loaded one meanwhile, which then wins.
    fn keep(&self, id: &SnapshotId, tree: Shared) -> Shared {
        if let Some(tree) = self.cached(id) {
            return tree;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push((id.clone(), tree.clone()));
        tree
    }

    /// Gives a snapshot the tree that was filled while it was written.
    pub(crate) fn set(&self, id: &SnapshotId, mut tree: HashTree) {
        self.save(id, &mut tree);
        self.keep(id, Arc::new(Mutex::new(tree)));
    }

    /// A copy of a tree, for a version that starts with the same files. Waits for a checksum that goes on, so the
    /// catalog must not be locked: a checksum asks it.
    pub(crate) fn copy(tree: &Shared) -> HashTree {
        let mut copy = tree.lock().unwrap_or_else(PoisonError::into_inner).clone();
        copy.start_update();
        copy.changed = true;
        copy
    }

    pub(crate) fn remove(&self, id: &SnapshotId) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).retain(|(have, _)| have != id);
        let _ = fs::remove_file(self.dir.join(id.as_str()));
    }

    /// Writes the tree if it changed. Not synced: a torn file does not pass its checksum, and everything in it can be
    /// computed again.
    pub(crate) fn save(&self, id: &SnapshotId, tree: &mut HashTree) {
        if tree.too_deep || !std::mem::take(&mut tree.changed) {
            return;
        }
        let temporary = self.dir.join(format!("{id}.new"));
        let written = fs::write(&temporary, tree.to_bytes())
            .and_then(|()| fs::rename(&temporary, self.dir.join(id.as_str())));
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            tracing::warn!(%error, %id, "file hashes are not kept");
        }
    }

    /// Removes files that belong to no snapshot.
    pub(crate) fn sweep(&self, known: impl Fn(&SnapshotId) -> bool) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if !id.is_some_and(|id| known(&id)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl Snapshots {
    /// The content checksum of a path in a snapshot (see [`contenthash::checksum`]). The digests of all files that
    /// were read are remembered with the snapshot. It must not be lazy. Of no snapshot, only `/` exists.
    pub async fn checksum(
        &self,
        snapshot: Option<&Snapshot>,
        path: &str,
        opts: &ChecksumOpts,
    ) -> Result<Digest> {
        let Some(snapshot) = snapshot else { return contenthash::checksum_of_nothing(path) };
        let (store, snapshot, path, opts) = (self.clone(), snapshot.clone(), path.to_string(), opts.clone());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let hashes = &store.0.hashes;
            let id = snapshot.id().clone();
            let shared = hashes.get(&id);
            let mut tree = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let result = store
                .mount_view(&snapshot)
                .and_then(|mounted| contenthash::checksum(mounted.root(), &mut tree, &path, &opts));
            // Nobody waits for the file to be written, and the snapshot is not in use meanwhile.
            drop(snapshot);
            let _ = sender.send(result);
            hashes.save(&id, &mut tree);
            drop(tree);
            if !store.contains(&id) {
                hashes.remove(&id);
            }
        });
        receiver.await.unwrap_or(Err(SnapshotError::Cancelled))
    }
}
