//! Directories that stay between builds: cache mounts, shared git repositories.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::oneshot;

use crate::catalog::Catalog;
use crate::error::Result;
use crate::record::{Record, Shape};
use crate::snapshots::Inner;
use crate::{Mounted, NewRef, RecordKind, Snapshot, SnapshotId, Snapshots, stack};

/// What happens when a cache mount is wanted that is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// All shared users work in one directory at the same time.
    #[default]
    Shared,
    /// A busy one is left alone; another directory is used, and kept for later.
    Private,
    /// Wait until it is free, first come first served.
    Locked,
}

/// Which directory is wanted.
#[derive(Clone, Debug)]
pub struct CacheMountSpec<'a> {
    /// Any text; names the directory across builds and restarts. Never used as a path.
    pub key: &'a str,
    /// What a new directory starts with; part of the name.
    pub base: Option<&'a Snapshot>,
    /// See [`Sharing`].
    pub sharing: Sharing,
    /// Shown in disk usage for a new one.
    pub description: String,
    /// [`RecordKind::CacheMount`], or that of the source that keeps the directory.
    pub kind: RecordKind,
}

/// A kept directory in use; clones share it, and the last one gives it back. A step that mounts the same key twice
/// must clone, not ask again: a locked one would wait for itself.
#[derive(Clone, Debug)]
pub struct CacheMount(Arc<InUse>);

struct InUse {
    store: Arc<Inner>,
    record: Arc<Record>,
    key: String,
    /// Keeps the base on disk.
    _base: Option<Snapshot>,
    mounted: Mutex<Option<Mounted>>,
}

impl fmt::Debug for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record.fmt(f)
    }
}

/// Who uses and who waits, by key. Locked before the catalog, where both are needed.
#[derive(Debug, Default)]
pub(crate) struct CacheMounts(Mutex<HashMap<String, Busy>>);

#[derive(Debug, Default)]
struct Busy {
    /// Directories in use.
    records: Vec<SnapshotId>,
    /// The one that shared users share.
    shared: Option<std::sync::Weak<InUse>>,
    waiting: VecDeque<oneshot::Sender<CacheMount>>,
}

impl CacheMounts {
    /// How many wait for a directory that others have.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.lock().values().flat_map(|busy| &busy.waiting).filter(|who| !who.is_closed()).count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Busy>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key under which a directory is found: as in BuildKit, the base is part of it.
fn full_key(spec: &CacheMountSpec<'_>) -> String {
    match spec.base {
        Some(base) => format!("cache-dir:{}:{}", spec.key, base.id()),
        None => format!("cache-dir:{}", spec.key),
    }
}

/// The keys of a directory, alone and with a base.
fn variants(catalog: &Catalog, key: &str) -> Vec<String> {
    let alone = format!("cache-dir:{key}");
    let mut found = catalog.keys_with(&alone);
    let has_base = |rest: &str| rest.strip_prefix(':').is_some_and(|base| base.parse::<SnapshotId>().is_ok());
    found.retain(|have| have.strip_prefix(&alone).is_some_and(|rest| rest.is_empty() || has_base(rest)));
    found
}

impl Snapshots {
    /// Takes a kept directory, a new one if there is none. Waits only for [`Sharing::Locked`]; dropping the future
    /// gives up the place in the queue.
    pub async fn cache_mount(&self, spec: CacheMountSpec<'_>) -> Result<CacheMount> {
        let key = full_key(&spec);
        let waiting = {
            let mut all = self.0.cache_mounts.lock();
            let busy = all.entry(key.clone()).or_default();
            if spec.sharing == Sharing::Shared
                && let Some(shared) = busy.shared.as_ref().and_then(std::sync::Weak::upgrade)
            {
                return Ok(CacheMount(shared));
            }
            let queue =
                spec.sharing == Sharing::Locked && !(busy.records.is_empty() && busy.waiting.is_empty());
            if !queue {
                return self.0.take_directory(&spec, key, busy);
            }
            let (sender, receiver) = oneshot::channel();
            busy.waiting.push_back(sender);
            receiver
        };
        match waiting.await {
            Ok(mount) => Ok(mount),
            // The key was dropped while we waited, or the directory could not be handed on: start over.
            Err(_) => Box::pin(self.cache_mount(spec)).await,
        }
    }

    /// Forgets the directories of these keys, so that the next user starts with a new one (`--no-cache`). Those in use
    /// stay until they are given back, but are not found any more.
    pub fn drop_cache_mounts(&self, keys: &[&str]) -> Result<()> {
        let mut gone = Vec::new();
        let mut dirs = Vec::new();
        {
            let all = self.0.cache_mounts.lock();
            let mut catalog = self.0.catalog();
            for key in keys.iter().flat_map(|key| variants(&catalog, key)).collect::<Vec<_>>() {
                for record in catalog.by_key(&key) {
                    if record.held() || all.get(&key).is_some_and(|busy| busy.records.contains(&record.id)) {
                        continue;
                    }
                    dirs.extend(self.0.remove_record(&mut catalog, &record)?);
                    gone.push(record.id.clone());
                }
                self.0.db.write(|tx| tx.execute("DELETE FROM snapshot_keys WHERE key = ?1", [&key]))?;
                catalog.clear_key(&key);
            }
        }
        dirs.into_iter().for_each(|dir| self.0.discard_dir(dir));
        self.0.tell_removed(&gone);
        Ok(())
    }
}

impl Inner {
    /// Takes a free directory of the key, or makes one. The table of users is locked.
    fn take_directory(
        self: &Arc<Self>,
        spec: &CacheMountSpec<'_>,
        key: String,
        busy: &mut Busy,
    ) -> Result<CacheMount> {
        let free = {
            let catalog = self.catalog();
            let free = catalog.by_key(&key).into_iter().rfind(|record| !busy.records.contains(&record.id));
            // Held under the catalog's lock: not pruned from here on.
            free.inspect(|record| {
                record.hold();
                record.used();
            })
        };
        let record = match free {
            Some(record) => record,
            None => self.make_directory(spec, &key)?,
        };
        busy.records.push(record.id.clone());
        let mount = CacheMount(Arc::new(InUse {
            store: self.clone(),
            record,
            key,
            _base: spec.base.cloned(),
            mounted: Mutex::new(None),
        }));
        if spec.sharing == Sharing::Shared {
            busy.shared = Some(Arc::downgrade(&mount.0));
        }
        Ok(mount)
    }

    fn make_directory(self: &Arc<Self>, spec: &CacheMountSpec<'_>, key: &str) -> Result<Arc<Record>> {
        let new = NewRef {
            description: spec.description.clone(),
            kind: spec.kind,
            created_at: Some(SystemTime::now()),
        };
        let mut active = Snapshots(self.clone()).new_active(spec.base, new)?;
        let record = Arc::new(active.record(Shape::Mutable(spec.base.map(|base| base.record.clone()))));
        record.hold();
        record.used();
        // The handle goes at once; the hold above stays.
        drop(self.publish(record.clone(), &[key])?);
        active.settled = true;
        Ok(record)
    }
}

impl CacheMount {
    /// The record's name in disk usage.
    pub fn id(&self) -> &SnapshotId {
        &self.0.record.id
    }

    /// The directory, for writing. Mounted once for all users; stays mounted until it is given back.
    pub fn mount(&self) -> Result<Mounted> {
        let mut mounted = self.0.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mounted) = &*mounted {
            return Ok(mounted.clone());
        }
        let base = match &self.0.record.shape {
            Shape::Mutable(Some(base)) => self.0.store.dirs(base)?,
            _ => Vec::new(),
        };
        let dir = stack::own_dir(&self.0.record)?;
        let below = self.0.store.collapse(base, self.0._base.as_ref())?;
        Ok(mounted.insert(self.0.store.mount_active(&below, dir, self.0._base.clone())?).clone())
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        *self.mounted.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.hand_on();
        self.record.release();
        self.remove_if_forgotten();
    }
}

impl InUse {
    /// Gives the directory to who waits longest, or marks it free.
    fn hand_on(&mut self) {
        let mut undelivered = None;
        {
            let mut all = self.store.cache_mounts.lock();
            let Some(busy) = all.get_mut(&self.key) else { return };
            busy.shared = busy.shared.take().filter(|shared| shared.strong_count() > 0);
            while let Some(next) = busy.waiting.pop_front() {
                if next.is_closed() {
                    continue;
                }
                self.record.hold();
                self.record.used();
                let mount = CacheMount(Arc::new(InUse {
                    store: self.store.clone(),
                    record: self.record.clone(),
                    key: self.key.clone(),
                    _base: self._base.clone(),
                    mounted: Mutex::new(None),
                }));
                // Who gave up in between gives it back; dropped below, where the table is not locked.
                match next.send(mount) {
                    Ok(()) => return,
                    Err(mount) => {
                        undelivered = Some(mount);
                        break;
                    }
                }
            }
            if undelivered.is_none() {
                busy.records.retain(|id| *id != self.record.id);
                if busy.records.is_empty() && busy.waiting.is_empty() {
                    all.remove(&self.key);
                }
            }
        }
        drop(undelivered);
    }

    /// A directory that lost its key while it was in use has no further use.
    fn remove_if_forgotten(&self) {
        let dirs = {
            let mut catalog = self.store.catalog();
            let known = catalog.by_key(&self.key).iter().any(|record| record.id == self.record.id);
            if known || self.record.held() || catalog.get(&self.record.id).is_none() {
                return;
            }
            self.store.remove_record(&mut catalog, &self.record)
        };
        match dirs {
            Ok(dirs) => dirs.into_iter().for_each(|dir| self.store.discard_dir(dir)),
            Err(error) => tracing::warn!(%error, id = %self.record.id, "remove cache mount"),
        }
    }
}
