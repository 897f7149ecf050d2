//! All snapshots of one state directory.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use kiln_content::{ContentStore, Db};
use kiln_digest::Digest;

use crate::cache_mount::CacheMounts;
use crate::catalog::{self, Catalog};
use crate::driver::{self, Driver, DriverChoice};
use crate::error::Result;
use crate::hashes::Hashes;
use crate::mounts::WeakMounted;
use crate::reaper::{Reaper, remove_tree};
use crate::record::Record;
use crate::schema::SCHEMA;
use crate::{Mounted, Snapshot, SnapshotError, SnapshotId};

/// Told of every snapshot that is gone.
pub(crate) type RemovalListener = Arc<dyn Fn(&SnapshotId) + Send + Sync>;

/// Whether an image outside the build cache needs a snapshot.
pub(crate) type SharedCheck = Arc<dyn Fn(&SnapshotId) -> bool + Send + Sync>;

/// All snapshots of one state directory; clones share it.
///
/// Calls that are not `async` take well under a millisecond of file system work (mount, mkdir, a small transaction).
/// The process must have its own mount namespace (`kiln_sys::mountns::enter_private`) before the first mount.
#[derive(Clone, Debug)]
pub struct Snapshots(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) snapshots: PathBuf,
    pub(crate) mounts: PathBuf,
    /// A directory without entries: the view of no layers.
    pub(crate) empty: PathBuf,
    pub(crate) db: Db,
    pub(crate) content: ContentStore,
    pub(crate) driver: Driver,
    pub(crate) hashes: Hashes,
    pub(crate) cache_mounts: CacheMounts,
    catalog: Mutex<Catalog>,
    next_dir: AtomicU64,
    next_mount: AtomicU64,
    unsynced: AtomicBool,
    pub(crate) reaper: Arc<Reaper>,
    /// Views that somebody has mounted.
    views: Mutex<HashMap<SnapshotId, WeakMounted>>,
    listener: RwLock<Option<RemovalListener>>,
    shared: RwLock<Option<SharedCheck>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.snapshots.display())
    }
}

impl Snapshots {
    /// Opens or makes the snapshots below `root`. What an earlier process left unfinished is removed in the background.
    pub fn open(root: &Path, db: Db, content: ContentStore, choice: DriverChoice) -> Result<Self> {
        let dirs = ["snapshots", "mounts", "empty", "hashes"].map(|name| root.join(name));
        for dir in &dirs {
            fs::create_dir_all(dir).map_err(|e| SnapshotError::io("make directory", dir.display(), e))?;
        }
        let [snapshots, mounts, empty, hashes] = dirs;
        let driver = driver::choose(choice, root)?;
        db.migrate("snapshot", SCHEMA)?;
        let on_disk = numbers_in(&snapshots)?;
        let has_blob = |digest: &Digest| content.info(digest).is_ok_and(|size| size.is_some());
        let found = catalog::load(&db, &on_disk, has_blob)?;
        let inner = Inner {
            driver,
            hashes: Hashes::new(hashes),
            cache_mounts: CacheMounts::default(),
            next_dir: AtomicU64::new(on_disk.iter().max().map_or(1, |n| n + 1)),
            next_mount: AtomicU64::new(numbers_in(&mounts)?.iter().max().map_or(1, |n| n + 1)),
            unsynced: AtomicBool::new(true),
            reaper: Arc::default(),
            views: Mutex::default(),
            listener: RwLock::new(None),
            shared: RwLock::new(None),
            catalog: Mutex::new(found.catalog),
            snapshots,
            mounts,
            empty,
            db,
            content,
        };
        let store = Self(Arc::new(inner));
        store.0.sweep(&found.orphans);
        Ok(store)
    }

    /// Which driver is in use.
    pub fn driver(&self) -> Driver {
        self.0.driver
    }

    /// The content store that layers come from and go to.
    pub fn content(&self) -> &ContentStore {
        &self.0.content
    }

    /// The snapshot of that name, counted as a use. `None` when it is gone (or was never finished).
    pub fn get(&self, id: &SnapshotId) -> Option<Snapshot> {
        let catalog = self.0.catalog();
        let record = catalog.get(id).filter(|r| !matches!(r.shape, crate::record::Shape::Mutable(_)))?;
        record.used();
        Some(Snapshot::new(record.clone(), self.0.clone()))
    }

    /// Whether a snapshot of that name exists, without counting as a use.
    pub fn contains(&self, id: &SnapshotId) -> bool {
        self.0.catalog().get(id).is_some()
    }

    /// The snapshot's files for reading. It must not be lazy. Users at the same time share one mount.
    pub fn mount_view(&self, snapshot: &Snapshot) -> Result<Mounted> {
        let shared = self.0.views().get(snapshot.id()).and_then(WeakMounted::upgrade);
        if let Some(mounted) = shared {
            return Ok(mounted);
        }
        let dirs = self.0.dirs(&snapshot.record)?;
        let dirs = self.0.collapse(dirs, Some(snapshot))?;
        let mounted = self.0.mount_stack(&dirs, Some(snapshot.clone()))?;
        let mut views = self.0.views();
        views.retain(|_, view| view.is_alive());
        views.insert(snapshot.id().clone(), mounted.downgrade());
        Ok(mounted)
    }

    /// The files of the empty filesystem, for where a snapshot is optional.
    pub fn mount_empty(&self) -> Result<Mounted> {
        self.0.mount_stack(&[], None)
    }

    /// Sets who is told when a snapshot is removed, so that cached results that name it can be forgotten. Called
    /// without locks held, in the thread that removes.
    pub fn on_removed(&self, listener: impl Fn(&SnapshotId) + Send + Sync + 'static) {
        *self.0.listener.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(listener));
    }

    /// Sets who says that an image outside the build cache needs a snapshot (the `shared` column of disk usage).
    pub fn set_shared_check(&self, check: impl Fn(&SnapshotId) -> bool + Send + Sync + 'static) {
        *self.0.shared.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(check));
    }

    /// Snapshots that were given this key, newest last, each counted as a use. Keys are any text.
    pub fn find_by_key(&self, key: &str) -> Vec<Snapshot> {
        let catalog = self.0.catalog();
        let records =
            catalog.by_key(key).into_iter().filter(|r| !matches!(r.shape, crate::record::Shape::Mutable(_)));
        records
            .map(|record| {
                record.used();
                Snapshot::new(record, self.0.clone())
            })
            .collect()
    }

    /// Lets a snapshot be found under `key`, beside others.
    pub fn set_key(&self, key: &str, snapshot: &Snapshot) -> Result<()> {
        let mut catalog = self.0.catalog();
        self.0.db.write(|tx| catalog::insert_key(tx, key, snapshot.id()))?;
        catalog.set_key(key, snapshot.id());
        Ok(())
    }

    /// Writes last-used times, which are kept in memory between calls. For a timer and for shutdown.
    pub fn flush_usage(&self) -> Result<()> {
        let records: Vec<_> = self.0.catalog().all().cloned().collect();
        catalog::save_usage(&self.0.db, &records)
    }

    /// Makes everything committed so far survive a power cut, blobs included. Costs a `syncfs` when something was
    /// committed since the last call; for a timer (tens of seconds) and for shutdown. Blocks.
    pub fn sync(&self) -> Result<()> {
        self.flush_usage()?;
        if !self.0.unsynced.swap(false, Ordering::SeqCst) {
            return self.0.content.sync().map_err(SnapshotError::from);
        }
        let pending: Vec<String> = self.0.db.with(|c| {
            c.prepare_cached("SELECT id FROM snapshots WHERE boot IS NOT NULL")?
                .query_map([], |row| row.get(0))?
                .collect()
        })?;
        if !pending.is_empty() {
            let dir = File::open(&self.0.snapshots).and_then(|dir| Ok(rustix::fs::syncfs(&dir)?));
            dir.map_err(|e| SnapshotError::io("sync", self.0.snapshots.display(), e))?;
            self.0.db.write(|tx| {
                let mut mark = tx.prepare_cached("UPDATE snapshots SET boot = NULL WHERE id = ?1")?;
                pending.iter().try_for_each(|id| mark.execute([id]).map(drop))
            })?;
        }
        Ok(self.0.content.sync()?)
    }
}

impl Inner {
    pub(crate) fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn views(&self) -> MutexGuard<'_, HashMap<SnapshotId, WeakMounted>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn next_dir(&self) -> u64 {
        self.next_dir.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn next_mount(&self) -> u64 {
        self.next_mount.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn note_unsynced(&self) {
        self.unsynced.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_shared(&self, id: &SnapshotId) -> bool {
        let check = self.shared.read().unwrap_or_else(PoisonError::into_inner).clone();
        check.is_some_and(|check| check(id))
    }

    pub(crate) fn tell_removed(&self, ids: &[SnapshotId]) {
        let listener = self.listener.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(listener) = listener {
            ids.iter().for_each(|id| listener(id));
        }
    }

    /// Removes a record that nobody holds and that has no children: row, memory, files of hashes. Returns its
    /// directories, which the caller removes. The catalog must be locked since the check.
    pub(crate) fn remove_record(&self, catalog: &mut Catalog, record: &Record) -> Result<Vec<u64>> {
        self.db.write(|tx| catalog::delete_row(tx, &record.id))?;
        catalog.remove(record);
        self.hashes.remove(&record.id);
        let meta = record.meta();
        Ok(meta.dir.into_iter().chain(meta.extra_dirs.iter().map(|(dir, _)| *dir)).collect())
    }

    /// Removes `snapshots/<n>` now.
    pub(crate) fn remove_dir(&self, dir: u64) {
        remove_tree(&self.snapshots.join(dir.to_string()));
    }

    /// Removes `snapshots/<n>` in the background. A directory without a row is nothing to anybody, so a crash before
    /// that leaves only what the next start removes.
    pub(crate) fn discard_dir(&self, dir: u64) {
        self.discard(self.snapshots.join(dir.to_string()));
    }

    pub(crate) fn discard(&self, path: PathBuf) {
        self.reaper.remove(path);
    }

    /// Removes what an earlier process left.
    fn sweep(&self, orphans: &[u64]) {
        for dir in orphans {
            self.discard_dir(*dir);
        }
        self.hashes.sweep(|id| self.catalog().get(id).is_some());
        // Mounts died with the namespace of the process that made them; their points are empty directories.
        if let Ok(entries) = fs::read_dir(&self.mounts) {
            for entry in entries.flatten() {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

fn numbers_in(dir: &Path) -> Result<HashSet<u64>> {
    let read = || {
        let mut numbers = HashSet::new();
        for entry in fs::read_dir(dir)? {
            numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        Ok(numbers)
    };
    read().map_err(|e: std::io::Error| SnapshotError::io("read directory", dir.display(), e))
}
