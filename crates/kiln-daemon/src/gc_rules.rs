//! Garbage collection: the rules of the file, or the default ones (spec daemon-and-cli.md, "Default GC policy").

use crate::config::{DiskSpace, GcPolicy, Worker};
use kiln_engine::GcRule;
use kiln_snapshot::{Filter, FilterError, PruneOpts};
use std::time::Duration;

/// The rules for a disk of `disk` bytes (0: unknown), applied in order.
///
/// # Errors
/// If a filter does not parse.
pub(crate) fn gc_rules(oci: &Worker, disk: u64) -> Result<Vec<GcRule>, FilterError> {
    if oci.gc == Some(false) {
        return Ok(Vec::new());
    }
    if !oci.gcpolicy.is_empty() {
        return oci.gcpolicy.iter().map(|p| rule(p, disk)).collect();
    }
    let (reserved, max_used, min_free) = space(oci, disk);
    let days = |n: u64| Duration::from_secs(n * 24 * 3600);
    let first = ["type==source.local", "type==exec.cachemount", "type==source.git.checkout"]
        .map(String::from)
        .to_vec();
    let rest = |all, keep_duration| PruneOpts {
        all,
        keep_duration,
        reserved,
        max_used,
        min_free,
        ..PruneOpts::default()
    };
    Ok(vec![
        GcRule {
            opts: PruneOpts {
                filter: Filter::parse_all(&first)?,
                keep_duration: days(2),
                max_used: 512_000_000,
                ..PruneOpts::default()
            },
            filters: first,
        },
        GcRule { opts: rest(false, days(60)), filters: Vec::new() },
        GcRule { opts: rest(false, Duration::ZERO), filters: Vec::new() },
        GcRule { opts: rest(true, Duration::ZERO), filters: Vec::new() },
    ])
}

/// Reserved, maximum and free bytes. As soon as one is set, those that are not set stay 0.
fn space(oci: &Worker, disk: u64) -> (u64, u64, u64) {
    let set = |s: Option<DiskSpace>| s.filter(|s| !s.is_nothing());
    let bytes = |s: Option<DiskSpace>| s.map_or(0, |s| s.bytes(disk));
    match (set(oci.reserved_space), set(oci.max_used_space), set(oci.min_free_space), set(oci.gckeepstorage))
    {
        (None, None, None, Some(keep)) => (keep.bytes(disk), 0, 0),
        (None, None, None, None) => {
            let share = |percent, cap| DiskSpace::Percent(percent).bytes(disk).min(cap);
            (share(10, 10_000_000_000), share(80, 100_000_000_000), DiskSpace::Percent(20).bytes(disk))
        }
        (reserved, max_used, min_free, _) => (bytes(reserved), bytes(max_used), bytes(min_free)),
    }
}

fn rule(p: &GcPolicy, disk: u64) -> Result<GcRule, FilterError> {
    let given = |s: Option<DiskSpace>| s.map_or(0, |s| s.bytes(disk));
    let opts = PruneOpts {
        filter: Filter::parse_all(&p.filters)?,
        all: p.all,
        keep_duration: p.keep_duration.positive(),
        reserved: given(p.reserved_space.filter(|s| !s.is_nothing()).or(p.keep_bytes)),
        max_used: given(p.max_used_space),
        min_free: given(p.min_free_space),
    };
    Ok(GcRule { opts, filters: p.filters.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spaces(oci: &Worker, disk: u64) -> (u64, u64, u64) {
        let rules = gc_rules(oci, disk).unwrap();
        let o = &rules.last().unwrap().opts;
        (o.reserved, o.max_used, o.min_free)
    }

    #[test]
    fn the_default_rules_are_buildkits() {
        let rules = gc_rules(&Worker::default(), 500_000_000_000).unwrap();
        assert_eq!(rules.len(), 4);
        assert_eq!((rules[0].filters.len(), rules[0].opts.max_used), (3, 512_000_000));
        assert_eq!(rules[1].opts.keep_duration, Duration::from_secs(1440 * 3600));
        assert!(!rules[2].opts.all && rules[3].opts.all);
        let worker = Worker::default();
        assert_eq!(spaces(&worker, 500_000_000_000), (10_000_000_000, 100_000_000_000, 94_000_000_000));
        assert_eq!(spaces(&worker, 50_000_000_000), (5_000_000_000, 38_000_000_000, 10_000_000_000));
    }

    #[test]
    fn what_is_set_counts_alone() {
        let bytes = |n| Some(DiskSpace::Bytes(n));
        let legacy = Worker { gckeepstorage: bytes(7), reserved_space: bytes(0), ..Worker::default() };
        assert_eq!(spaces(&legacy, 1 << 40), (7, 0, 0));
        let max = Worker { gckeepstorage: bytes(7), max_used_space: bytes(9), ..Worker::default() };
        assert_eq!(spaces(&max, 1 << 40), (0, 9, 0));
        let off = Worker { gc: Some(false), ..Worker::default() };
        assert!(gc_rules(&off, 1).unwrap().is_empty());
        let policy = GcPolicy { keep_bytes: bytes(3), reserved_space: bytes(0), ..GcPolicy::default() };
        let own = Worker { gcpolicy: vec![policy], ..Worker::default() };
        assert_eq!((gc_rules(&own, 1).unwrap().len(), spaces(&own, 1)), (1, (3, 0, 0)));
    }
}
