//! All records, in memory and in the table. The table is changed first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_content::rusqlite::{self, Row, Transaction};
use kiln_content::{ContentStore, Db};
use kiln_digest::Digest;

use crate::error::Result;
use crate::record::{Meta, Record, Shape, StoredBlob};
use crate::{RecordKind, SnapshotId};

/// The records of one state directory.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    records: HashMap<SnapshotId, Arc<Record>>,
    children: HashMap<SnapshotId, usize>,
    chains: HashMap<Digest, Arc<Record>>,
    /// Oldest first.
    keys: BTreeMap<String, Vec<SnapshotId>>,
}

/// The owner name under which a snapshot keeps its blobs.
pub(crate) fn owner(id: &SnapshotId) -> String {
    format!("snapshot:{id}")
}

pub(crate) fn to_millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

pub(crate) fn from_millis(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis.max(0) as u64)
}

fn join(dirs: &[u64]) -> String {
    dirs.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

impl Catalog {
    pub(crate) fn get(&self, id: &SnapshotId) -> Option<&Arc<Record>> {
        self.records.get(id)
    }

    pub(crate) fn by_chain(&self, chain: &Digest) -> Option<&Arc<Record>> {
        self.chains.get(chain)
    }

    /// The records of a key, oldest first.
    pub(crate) fn by_key(&self, key: &str) -> Vec<Arc<Record>> {
        let ids = self.keys.get(key).map(Vec::as_slice).unwrap_or_default();
        ids.iter().filter_map(|id| self.records.get(id).cloned()).collect()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.records.values()
    }

    pub(crate) fn has_children(&self, id: &SnapshotId) -> bool {
        self.children.get(id).is_some_and(|n| *n > 0)
    }

    /// Adds a record that the table has.
    pub(crate) fn insert(&mut self, record: Arc<Record>) {
        for (_, parent) in record.shape.parents() {
            *self.children.entry(parent.id.clone()).or_default() += 1;
        }
        if let Some(chain) = record.meta().chain_id {
            self.chains.insert(chain, record.clone());
        }
        self.records.insert(record.id.clone(), record);
    }

    /// Takes out a record that the table no longer has.
    pub(crate) fn remove(&mut self, record: &Record) {
        if self.records.remove(&record.id).is_none() {
            return;
        }
        for (_, parent) in record.shape.parents() {
            if let Some(n) = self.children.get_mut(&parent.id) {
                *n -= 1;
                if *n == 0 {
                    self.children.remove(&parent.id);
                }
            }
        }
        if let Some(chain) = record.meta().chain_id {
            self.chains.remove(&chain);
        }
        self.keys.retain(|_, ids| {
            ids.retain(|id| *id != record.id);
            !ids.is_empty()
        });
    }

    pub(crate) fn set_key(&mut self, key: &str, id: &SnapshotId) {
        let ids = self.keys.entry(key.to_string()).or_default();
        ids.retain(|have| have != id);
        ids.push(id.clone());
    }

    pub(crate) fn remove_key(&mut self, key: &str, id: &SnapshotId) {
        if let Some(ids) = self.keys.get_mut(key) {
            ids.retain(|have| have != id);
        }
    }

    /// Keys that begin with a text.
    pub(crate) fn keys_with(&self, prefix: &str) -> Vec<String> {
        let from = self.keys.range(prefix.to_string()..);
        from.map(|(key, _)| key.clone()).take_while(|key| key.starts_with(prefix)).collect()
    }

    pub(crate) fn clear_key(&mut self, key: &str) {
        self.keys.remove(key);
    }
}

/// Writes the row of a new record.
pub(crate) fn insert_row(tx: &Transaction<'_>, record: &Record, boot: i64) -> rusqlite::Result<()> {
    let meta = record.meta();
    tx.prepare_cached(
        "INSERT INTO snapshots (id, shape, dir, kind, description, created, chain_id, diff_id, boot)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute((
        record.id.as_str(),
        record.shape.name(),
        meta.dir.map(|n| n as i64),
        meta.kind.as_str(),
        &meta.description,
        to_millis(record.created),
        meta.chain_id.map(|d| d.to_string()),
        meta.diff_id.map(|d| d.to_string()),
        boot,
    ))?;
    let mut parents =
        tx.prepare_cached("INSERT INTO snapshot_parents (id, position, parent) VALUES (?1, ?2, ?3)")?;
    for (position, parent) in record.shape.parents() {
        parents.execute((record.id.as_str(), position as i64, parent.id.as_str()))?;
    }
    for blob in &meta.blobs {
        insert_blob(tx, &record.id, blob)?;
    }
    Ok(())
}

/// Removes the row and all that hangs on it.
pub(crate) fn delete_row(tx: &Transaction<'_>, id: &SnapshotId) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM snapshots WHERE id = ?1")?.execute([id.as_str()])?;
    ContentStore::remove_owner_in(tx, &owner(id))
}

/// Notes a blob of a layer; a blob that is in the content store must be referred to separately.
pub(crate) fn insert_blob(tx: &Transaction<'_>, id: &SnapshotId, blob: &StoredBlob) -> rusqlite::Result<()> {
    let json = serde_json::to_string(&blob.descriptor)
        .map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    tx.prepare_cached(
        "INSERT OR REPLACE INTO snapshot_blobs (id, digest, variant, descriptor) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute((id.as_str(), blob.descriptor.digest.to_string(), &blob.variant, json))?;
    Ok(())
}

pub(crate) fn insert_key(tx: &Transaction<'_>, key: &str, id: &SnapshotId) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT OR IGNORE INTO snapshot_keys (key, id) VALUES (?1, ?2)")?
        .execute((key, id.as_str()))?;
    Ok(())
}

/// Writes the directory of a layer that was unpacked, or of a diff that was computed.
pub(crate) fn save_dir(tx: &Transaction<'_>, id: &SnapshotId, dir: u64, boot: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE snapshots SET dir = ?2, boot = ?3 WHERE id = ?1")?.execute((
        id.as_str(),
        dir as i64,
        boot,
    ))?;
    Ok(())
}

/// Writes how a merge or diff is mounted, and the directories made for it.
pub(crate) fn save_stack(
    tx: &Transaction<'_>,
    id: &SnapshotId,
    stack: &[u64],
    made: &[(u64, String)],
    boot: i64,
) -> rusqlite::Result<()> {
    tx.execute("UPDATE snapshots SET stack = ?2, boot = ?3 WHERE id = ?1", (id.as_str(), join(stack), boot))?;
    made.iter().try_for_each(|(dir, purpose)| insert_extra_dir(tx, id, *dir, purpose))
}

pub(crate) fn insert_extra_dir(
    tx: &Transaction<'_>,
    owner: &SnapshotId,
    dir: u64,
    purpose: &str,
) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO snapshot_dirs (dir, owner, purpose) VALUES (?1, ?2, ?3)",
        (dir as i64, owner.as_str(), purpose),
    )?;
    Ok(())
}

pub(crate) fn save_scan(
    tx: &Transaction<'_>,
    id: &SnapshotId,
    size: Option<u64>,
    marks: Option<bool>,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE snapshots SET size = coalesce(?2, size), marks = coalesce(?3, marks) WHERE id = ?1",
    )?
    .execute((id.as_str(), size.map(|n| n as i64), marks))?;
    Ok(())
}

pub(crate) fn save_diff_id(tx: &Transaction<'_>, id: &SnapshotId, diff_id: Digest) -> rusqlite::Result<()> {
    tx.execute("UPDATE snapshots SET diff_id = ?2 WHERE id = ?1", (id.as_str(), diff_id.to_string()))?;
    Ok(())
}

/// Writes last use and counts of the records where they changed.
pub(crate) fn save_usage(db: &Db, records: &[Arc<Record>]) -> Result<()> {
    let changed: Vec<_> = records
        .iter()
        .filter_map(|record| {
            let mut meta = record.meta();
            std::mem::take(&mut meta.usage_changed)
                .then(|| (record.clone(), meta.last_used, meta.usage_count))
        })
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    db.write(|tx| {
        let mut update =
            tx.prepare_cached("UPDATE snapshots SET last_used = ?2, usage_count = ?3 WHERE id = ?1")?;
        for (record, last_used, count) in &changed {
            update.execute((record.id.as_str(), last_used.map(to_millis), *count as i64))?;
        }
        Ok(())
    })?;
    Ok(())
}

/// A row, before its parents are known as records.
struct Loaded {
    id: SnapshotId,
    shape: String,
    created: SystemTime,
    meta: Meta,
    parents: BTreeMap<usize, SnapshotId>,
    boot: Option<i64>,
}

/// What was found at start.
pub(crate) struct Found {
    pub(crate) catalog: Catalog,
    /// Directories that no row names.
    pub(crate) orphans: Vec<u64>,
}

/// Loads all records. Rows whose files are missing, or may be torn by a power cut, go together with what was built on
/// them; image layers only become lazy again.
pub(crate) fn load(db: &Db, on_disk: &HashSet<u64>, has_blob: impl Fn(&Digest) -> bool) -> Result<Found> {
    let mut rows = read_rows(db)?;
    let mut lost = HashSet::new();
    let mut again = Again::default();
    let mut bad_dirs = HashSet::new();
    for row in rows.values_mut() {
        let in_doubt = row.boot.is_some_and(|boot| boot != db.boot());
        let bad = |dir: &u64| in_doubt || !on_disk.contains(dir);
        bad_dirs.extend(
            row.meta.dir.iter().chain(row.meta.extra_dirs.iter().map(|(dir, _)| dir)).copied().filter(bad),
        );
        if row.meta.dir.as_ref().is_some_and(bad) {
            // A diff can be computed again, an image layer fetched again, any layer unpacked from a blob of it.
            let blob_here = || row.meta.blobs.iter().any(|blob| has_blob(&blob.descriptor.digest));
            if row.shape == "diff" || row.meta.chain_id.is_some() || blob_here() {
                row.meta.dir = None;
                again.unpack.push(row.id.clone());
            } else {
                lost.insert(row.id.clone());
            }
        }
    }
    for row in rows.values_mut() {
        let bad = |dir: &u64| bad_dirs.contains(dir);
        let stale = row
            .meta
            .stack
            .as_ref()
            .is_some_and(|stack| row.meta.dir.is_none() && row.shape == "diff" || stack.iter().any(bad));
        if stale || row.meta.extra_dirs.iter().any(|(dir, _)| bad(dir)) {
            row.meta.stack = None;
            row.meta.extra_dirs.clear();
            again.stack.push(row.id.clone());
        }
    }
    let catalog = link(rows, &mut lost);
    forget_lost(db, &again, &lost)?;
    let mut named: HashSet<u64> = HashSet::new();
    for record in catalog.all() {
        let meta = record.meta();
        named.extend(meta.dir.iter().chain(meta.extra_dirs.iter().map(|(dir, _)| dir)));
    }
    let orphans = on_disk.difference(&named).copied().collect();
    let mut found = Found { catalog, orphans };
    load_keys(db, &mut found.catalog)?;
    Ok(found)
}

/// Records that stay and whose files are made again.
#[derive(Default)]
struct Again {
    unpack: Vec<SnapshotId>,
    stack: Vec<SnapshotId>,
}

fn forget_lost(db: &Db, again: &Again, lost: &HashSet<SnapshotId>) -> Result<()> {
    if again.unpack.is_empty() && again.stack.is_empty() && lost.is_empty() {
        return Ok(());
    }
    tracing::warn!(
        lost = lost.len(),
        lazy = again.unpack.len(),
        "snapshots whose files are missing or in doubt are dropped"
    );
    db.write(|tx| {
        // Children go in the same transaction, so the order does not matter.
        tx.execute_batch("PRAGMA defer_foreign_keys = ON")?;
        for id in &again.unpack {
            tx.execute("UPDATE snapshots SET dir = NULL WHERE id = ?1", [id.as_str()])?;
        }
        for id in &again.stack {
            tx.execute("UPDATE snapshots SET stack = NULL WHERE id = ?1", [id.as_str()])?;
            tx.execute("DELETE FROM snapshot_dirs WHERE owner = ?1", [id.as_str()])?;
        }
        lost.iter().try_for_each(|id| delete_row(tx, id))
    })?;
    Ok(())
}

/// Makes records of rows, parents first. What has a lost parent is lost.
fn link(mut rows: HashMap<SnapshotId, Loaded>, lost: &mut HashSet<SnapshotId>) -> Catalog {
    let mut catalog = Catalog::default();
    let mut todo: Vec<SnapshotId> = rows.keys().cloned().collect();
    while let Some(id) = todo.pop() {
        let Some(row) = rows.get(&id) else { continue };
        let waiting: Vec<_> = row.parents.values().filter(|p| rows.contains_key(*p)).cloned().collect();
        let gone = lost.contains(&id)
            || row.parents.values().any(|p| !rows.contains_key(p) && catalog.get(p).is_none());
        if gone {
            rows.remove(&id);
            lost.insert(id);
        } else if waiting.is_empty() {
            if let Some(row) = rows.remove(&id)
                && let Some(record) = to_record(row, &catalog)
            {
                catalog.insert(Arc::new(record));
            }
        } else {
            todo.push(id);
            todo.extend(waiting);
        }
    }
    catalog
}

fn to_record(row: Loaded, catalog: &Catalog) -> Option<Record> {
    let parent = |position: usize| row.parents.get(&position).and_then(|id| catalog.get(id)).cloned();
    let shape = match row.shape.as_str() {
        "layer" => Shape::Layer(parent(0)),
        "mutable" => Shape::Mutable(parent(0)),
        "merge" => Shape::Merge(row.parents.values().filter_map(|id| catalog.get(id)).cloned().collect()),
        "diff" => Shape::Diff { lower: parent(0), upper: parent(1) },
        _ => return None,
    };
    Some(Record::new(row.id, shape, row.created, row.meta))
}

fn read_rows(db: &Db) -> Result<HashMap<SnapshotId, Loaded>> {
    let rows = db.with(|c| {
        let mut rows: HashMap<SnapshotId, Loaded> = HashMap::new();
        let mut select = c.prepare(
            "SELECT id, shape, dir, stack, kind, description, created, last_used, usage_count, size, marks,
                    chain_id, diff_id, boot FROM snapshots",
        )?;
        for row in select.query_map([], read_row)? {
            if let Some(loaded) = row? {
                rows.insert(loaded.id.clone(), loaded);
            }
        }
        let mut each = |sql: &str, f: &mut dyn FnMut(&mut Loaded, &Row<'_>) -> rusqlite::Result<()>| {
            let mut select = c.prepare(sql)?;
            let mut found = select.query([])?;
            while let Some(row) = found.next()? {
                let id: String = row.get(0)?;
                if let Some(loaded) = id.parse().ok().and_then(|id: SnapshotId| rows.get_mut(&id)) {
                    f(loaded, row)?;
                }
            }
            Ok::<(), rusqlite::Error>(())
        };
        each("SELECT id, position, parent FROM snapshot_parents", &mut |loaded, row| {
            if let Ok(parent) = row.get::<_, String>(2)?.parse() {
                loaded.parents.insert(row.get::<_, i64>(1)? as usize, parent);
            }
            Ok(())
        })?;
        each("SELECT id, variant, descriptor FROM snapshot_blobs", &mut |loaded, row| {
            if let Ok(descriptor) = serde_json::from_str(&row.get::<_, String>(2)?) {
                loaded.meta.blobs.push(StoredBlob { variant: row.get(1)?, descriptor });
            }
            Ok(())
        })?;
        each("SELECT owner, dir, purpose FROM snapshot_dirs", &mut |loaded, row| {
            loaded.meta.extra_dirs.push((row.get::<_, i64>(1)? as u64, row.get(2)?));
            Ok(())
        })?;
        Ok(rows)
    })?;
    Ok(rows)
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<Option<Loaded>> {
    let Ok(id) = row.get::<_, String>(0)?.parse() else { return Ok(None) };
    let digest = |text: Option<String>| text.and_then(|text| text.parse().ok());
    let stack: Option<String> = row.get(3)?;
    let meta = Meta {
        dir: row.get::<_, Option<i64>>(2)?.map(|n| n as u64),
        stack: stack.map(|text| text.split(',').filter_map(|n| n.parse().ok()).collect()),
        kind: RecordKind::from_name(&row.get::<_, String>(4)?),
        description: row.get(5)?,
        last_used: row.get::<_, Option<i64>>(7)?.map(from_millis),
        usage_count: row.get::<_, i64>(8)? as u64,
        size: row.get::<_, Option<i64>>(9)?.map(|n| n as u64),
        marks: row.get(10)?,
        chain_id: digest(row.get(11)?),
        diff_id: digest(row.get(12)?),
        ..Meta::default()
    };
    let created = from_millis(row.get(6)?);
    Ok(Some(Loaded { id, shape: row.get(1)?, created, meta, parents: BTreeMap::new(), boot: row.get(13)? }))
}

fn load_keys(db: &Db, catalog: &mut Catalog) -> Result<()> {
    let keys: Vec<(String, String)> = db.with(|c| {
        c.prepare("SELECT k.key, k.id FROM snapshot_keys k JOIN snapshots s ON s.id = k.id ORDER BY s.created, s.rowid")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
    })?;
    for (key, id) in keys {
        if let Ok(id) = id.parse()
            && catalog.get(&id).is_some()
        {
            catalog.set_key(&key, &id);
        }
    }
    Ok(())
}
