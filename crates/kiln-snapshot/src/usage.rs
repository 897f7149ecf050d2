//! Disk usage.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use kiln_fs::walk::{Step, walk};
use kiln_fs::{Metadata, Root};

use crate::error::Result;
use crate::record::{Record, Shape};
use crate::snapshots::Inner;
use crate::{Filter, SnapshotError, SnapshotId, Snapshots, UsageRecord, catalog};

impl Snapshots {
    /// All records that match. Sizes that nobody asked for before are measured now.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<UsageRecord>> {
        let (inner, filter) = (self.0.clone(), filter.clone());
        let list = move || inner.list(&filter);
        tokio::task::spawn_blocking(list).await.unwrap_or(Err(SnapshotError::Cancelled))
    }
}

impl Inner {
    pub(crate) fn list(&self, filter: &Filter) -> Result<Vec<UsageRecord>> {
        let records: Vec<Arc<Record>> = self.catalog().all().cloned().collect();
        let in_use = in_use(&records);
        let shared = self.shared(&records);
        let mut list = Vec::with_capacity(records.len());
        for record in &records {
            let mut usage = self.usage(record, in_use.contains(&record.id), shared.contains(&record.id));
            if filter.matches(&usage) {
                usage.size = self.size(record);
                list.push(usage);
            }
        }
        list.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Ok(list)
    }

    /// The record's line, with size 0.
    pub(crate) fn usage(&self, record: &Record, in_use: bool, shared: bool) -> UsageRecord {
        let meta = record.meta();
        UsageRecord {
            id: record.id.clone(),
            mutable: matches!(record.shape, Shape::Mutable(_)),
            in_use,
            size: 0,
            created_at: record.created,
            last_used_at: meta.last_used,
            usage_count: meta.usage_count,
            description: meta.description.clone(),
            kind: meta.kind,
            shared,
            parents: record.shape.parents().into_iter().map(|(_, parent)| parent.id.clone()).collect(),
        }
    }

    /// Records that an image outside the build cache needs, with their parents.
    pub(crate) fn shared(&self, records: &[Arc<Record>]) -> HashSet<SnapshotId> {
        let mut shared = HashSet::new();
        let mut todo: Vec<&Arc<Record>> =
            records.iter().filter(|record| self.is_shared(&record.id)).collect();
        while let Some(record) = todo.pop() {
            if shared.insert(record.id.clone()) {
                todo.extend(record.shape.parents().into_iter().map(|(_, parent)| parent));
            }
        }
        shared
    }

    /// Bytes on disk of the record's own directories and blobs. What can change is measured each time, the rest once.
    pub(crate) fn size(&self, record: &Record) -> u64 {
        let (known, dirs, blobs) = {
            let meta = record.meta();
            let dirs: Vec<u64> =
                meta.dir.into_iter().chain(meta.extra_dirs.iter().map(|(dir, _)| *dir)).collect();
            let blobs: Vec<_> = meta.blobs.iter().map(|blob| blob.descriptor.digest).collect();
            (meta.size, dirs, blobs)
        };
        let files = known.unwrap_or_else(|| {
            let bytes = dirs.iter().map(|dir| disk_usage(&self.fs_dir(*dir))).sum();
            if !matches!(record.shape, Shape::Mutable(_)) {
                record.meta().size = Some(bytes);
                if let Err(error) = self.db.write(|tx| catalog::save_scan(tx, &record.id, Some(bytes), None))
                {
                    tracing::warn!(%error, id = %record.id, "size is not kept");
                }
            }
            bytes
        });
        let blob_size = |digest| self.content.info(digest).ok().flatten().unwrap_or(0);
        files + blobs.iter().map(blob_size).sum::<u64>()
    }
}

/// Records that are held, or that something held is made from.
pub(crate) fn in_use(records: &[Arc<Record>]) -> HashSet<SnapshotId> {
    let mut used: HashMap<SnapshotId, ()> = HashMap::new();
    let mut todo: Vec<&Arc<Record>> = records.iter().filter(|record| record.held()).collect();
    while let Some(record) = todo.pop() {
        if used.insert(record.id.clone(), ()).is_none() {
            todo.extend(record.shape.parents().into_iter().map(|(_, parent)| parent));
        }
    }
    used.into_keys().collect()
}

/// Blocks of everything in a directory of ours, hard links once. What cannot be read, or vanishes meanwhile, does not
/// count.
pub(crate) fn disk_usage(dir: &Path) -> u64 {
    let mut seen = HashSet::new();
    let mut bytes = 0;
    let mut add = |meta: &Metadata| {
        if meta.is_dir() || meta.nlink <= 1 || seen.insert((meta.dev, meta.ino)) {
            bytes += meta.blocks * 512;
        }
    };
    let walked = Root::open(dir).and_then(|root| {
        add(&root.metadata("", false)?);
        walk(&root, "", |entry| {
            if let Ok(meta) = entry.metadata() {
                add(meta);
            }
            Ok::<_, kiln_fs::Error>(Step::Continue)
        })
    });
    if let Err(error) = walked {
        tracing::debug!(%error, dir = %dir.display(), "measure disk usage");
    }
    bytes
}
