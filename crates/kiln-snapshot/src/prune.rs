//! Removing what is not needed (spec daemon-and-cli.md, "Prune algorithm").

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::snapshots::Inner;
use crate::{Filter, RecordKind, SnapshotError, SnapshotId, Snapshots, UsageRecord};

/// What to remove. Space values are bytes; 0 means not given.
#[derive(Clone, Debug, Default)]
pub struct PruneOpts {
    /// Only records that match.
    pub filter: Filter,
    /// Also internal and frontend records, and those shared with images.
    pub all: bool,
    /// Keep what was used within this time; zero keeps nothing for its age.
    pub keep_duration: Duration,
    /// Never go below this.
    pub reserved: u64,
    /// Go below this.
    pub max_used: u64,
    /// Make this much of the disk free.
    pub min_free: u64,
}

impl PruneOpts {
    fn has_budget(&self) -> bool {
        self.reserved != 0 || self.max_used != 0 || self.min_free != 0
    }
}

/// How many bytes may stay when `used` bytes are used by unshared records and `free` bytes of the disk are free.
/// 0 means no budget: everything that matches goes.
pub fn keep_budget(opts: &PruneOpts, used: u64, free: u64) -> u64 {
    if !opts.has_budget() {
        return 0;
    }
    let mut keep = opts.max_used;
    if opts.min_free > free {
        let target = used.saturating_sub(opts.min_free - free);
        keep = if keep == 0 { target } else { keep.min(target) };
    } else if opts.min_free != 0 && keep == 0 {
        keep = used;
    }
    // A budget that ends at zero would read as "no budget"; one byte keeps the least-used-first order.
    keep.max(opts.reserved).max(1)
}

/// How many records go per round without a budget, so that locks are short.
const BATCH: usize = 64;

impl Snapshots {
    /// Removes records, least used first where there is a budget, and calls `removed` for each after its files are
    /// gone. Records in use, and parents of what stays, are never removed. Blobs that were kept by a removed record
    /// go with the next `ContentStore::gc`. Stops soon after `cancel`.
    pub async fn prune(
        &self,
        opts: &PruneOpts,
        cancel: &CancellationToken,
        removed: impl FnMut(UsageRecord) + Send + 'static,
    ) -> Result<()> {
        let (inner, opts, cancel) = (self.0.clone(), opts.clone(), cancel.clone());
        let run = move || inner.prune(&opts, &cancel, removed);
        tokio::task::spawn_blocking(run).await.unwrap_or(Err(SnapshotError::Cancelled))
    }
}

impl Inner {
    fn prune(
        &self,
        opts: &PruneOpts,
        cancel: &CancellationToken,
        mut removed: impl FnMut(UsageRecord),
    ) -> Result<()> {
        let mut sizes: HashMap<SnapshotId, u64> = HashMap::new();
        let mut used = 0;
        if opts.has_budget() {
            for record in self.list(&Filter::default())? {
                if !record.shared {
                    used += record.size;
                }
                sizes.insert(record.id, record.size);
            }
        }
        let budget = keep_budget(opts, used, self.free_space()?);
        loop {
            if cancel.is_cancelled() {
                return Err(SnapshotError::Cancelled);
            }
            if budget != 0 && used < budget {
                return Ok(());
            }
            let gone = self.prune_round(opts, budget != 0, &sizes)?;
            if gone.is_empty() {
                return Ok(());
            }
            self.tell_removed(&gone.iter().map(|record| record.id.clone()).collect::<Vec<_>>());
            for record in gone {
                used = used.saturating_sub(record.size);
                removed(record);
            }
        }
    }

    fn prune_round(
        &self,
        opts: &PruneOpts,
        one: bool,
        sizes: &HashMap<SnapshotId, u64>,
    ) -> Result<Vec<UsageRecord>> {
        let mut dirs = Vec::new();
        let mut gone = Vec::new();
        {
            let records: Vec<_> = self.catalog().all().cloned().collect();
            let shared = self.shared(&records);
            let mut catalog = self.catalog();
            let mut candidates: Vec<UsageRecord> = catalog
                .all()
                .filter(|record| !record.held() && !catalog.has_children(&record.id))
                .map(|record| self.usage(record, false, shared.contains(&record.id)))
                .filter(|record| allowed(opts, record))
                .collect();
            if one {
                sort_least_used(&mut candidates);
                candidates.truncate(1);
            } else {
                candidates.truncate(BATCH);
            }
            for mut usage in candidates {
                let Some(record) = catalog.get(&usage.id).cloned() else { continue };
                usage.size = sizes.get(&usage.id).copied().or(record.meta().size).unwrap_or(0);
                let measure = !sizes.contains_key(&usage.id) && record.meta().size.is_none();
                let own = self.remove_record(&mut catalog, &record)?;
                gone.push((usage, measure));
                dirs.push(own);
            }
        }
        // The rows are gone, so the files are nobody's; measuring and removing them needs no lock.
        for ((usage, measure), own) in gone.iter_mut().zip(dirs) {
            for dir in own {
                if *measure {
                    usage.size += crate::usage::disk_usage(&self.fs_dir(dir));
                }
                self.remove_dir(dir);
            }
        }
        Ok(gone.into_iter().map(|(usage, _)| usage).collect())
    }

    fn free_space(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(&self.snapshots)
            .map_err(|e| SnapshotError::io("ask free space of", self.snapshots.display(), e))?;
        Ok(stat.f_bavail * stat.f_frsize)
    }
}

fn allowed(opts: &PruneOpts, record: &UsageRecord) -> bool {
    let protected = matches!(record.kind, RecordKind::Internal | RecordKind::Frontend) || record.shared;
    if protected && !opts.all {
        return false;
    }
    let cut = SystemTime::now().checked_sub(opts.keep_duration).unwrap_or(SystemTime::UNIX_EPOCH);
    if !opts.keep_duration.is_zero() && record.last_used_at.is_some_and(|at| at > cut) {
        return false;
    }
    opts.filter.matches(record)
}

/// Sorts by the sum of two ranks, each scaled to 1: how long ago it was used and how seldom.
fn sort_least_used(records: &mut [UsageRecord]) {
    // Places begin at 1 for "never" and count the distinct values, as in the reference.
    let rank = |keys: &mut dyn Iterator<Item = u128>| {
        let mut distinct: Vec<u128> = keys.filter(|key| *key != 0).collect();
        distinct.sort_unstable();
        distinct.dedup();
        distinct
    };
    let used = |record: &UsageRecord| {
        record
            .last_used_at
            .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok())
            .map_or(0, |d| d.as_nanos() + 1)
    };
    let times = rank(&mut records.iter().map(used));
    let counts = rank(&mut records.iter().map(|record| u128::from(record.usage_count)));
    let place = |ranks: &[u128], value: u128| {
        let at = if value == 0 { 1 } else { ranks.partition_point(|have| *have <= value) + 1 };
        at as f64 / (ranks.len() + 1) as f64
    };
    let score =
        |record: &UsageRecord| place(&times, used(record)) + place(&counts, u128::from(record.usage_count));
    records.sort_by(|a, b| score(a).total_cmp(&score(b)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_follows_the_reference() {
        let opts =
            |max_used, reserved, min_free| PruneOpts { max_used, reserved, min_free, ..PruneOpts::default() };
        assert_eq!(keep_budget(&opts(0, 0, 0), 100, 10), 0);
        assert_eq!(keep_budget(&opts(50, 0, 0), 100, 10), 50);
        assert_eq!(keep_budget(&opts(50, 80, 0), 100, 10), 80, "never below reserved");
        assert_eq!(keep_budget(&opts(0, 0, 30), 100, 10), 80, "20 are missing");
        assert_eq!(keep_budget(&opts(90, 0, 30), 100, 10), 80);
        assert_eq!(keep_budget(&opts(50, 0, 30), 100, 10), 50);
        assert_eq!(keep_budget(&opts(0, 0, 5), 100, 10), 100, "enough is free: keep everything");
        assert_eq!(keep_budget(&opts(0, 70, 90), 100, 10), 70);
        assert_eq!(keep_budget(&opts(0, 0, 500), 100, 10), 1);
    }
}
