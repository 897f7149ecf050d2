//! `du` and `prune`.

use crate::human::{ago, parse_duration, size};
use crate::usage::{filters, json_lines, summary, table, verbose};
use jiff::{SignedDuration, Timestamp};
use kiln_client::UsageRecord;
use std::time::Duration;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn records() -> Vec<UsageRecord> {
    let ago = |hours| Some(NOW - SignedDuration::from_hours(hours));
    vec![
        UsageRecord {
            id: "abc".into(),
            mutable: true,
            size: 2_746_000,
            last_used_at: ago(4),
            created_at: ago(72),
            usage_count: 3,
            description: "mount / from exec /bin/sh -c make".into(),
            record_type: "regular".into(),
            parents: vec!["p1".into(), "p2".into()],
            ..UsageRecord::default()
        },
        UsageRecord { id: "defgh".into(), in_use: true, shared: true, size: 1000, ..UsageRecord::default() },
    ]
}

#[test]
fn tables() {
    assert_eq!(
        table(&records(), NOW),
        "ID     RECLAIMABLE  SIZE     LAST ACCESSED\n\
         abc*   true         2.746MB  4 hours ago\n\
         defgh  false        1kB*\n"
    );
    assert_eq!(
        summary(&records()),
        "Shared:       1kB\nPrivate:      2.746MB\nReclaimable:  2.746MB\nTotal:        2.747MB\n"
    );
    assert_eq!(summary(&records()[..1]), "Reclaimable:  2.746MB\nTotal:        2.746MB\n");
}

#[test]
fn blocks() {
    assert_eq!(
        verbose(&records()[..1], NOW),
        "ID:           abc\nParents:      p1, p2\nCreated at:   1969-12-29T00:00:00Z\nMutable:      true\n\
         Reclaimable:  true\nShared:       false\nSize:         2.746MB\n\
         Description:  mount / from exec /bin/sh -c make\nUsage count:  3\nLast used:    4 hours ago\n\
         Type:         regular\n\n"
    );
    let lines = json_lines(&records());
    assert_eq!(lines.lines().count(), 2);
    assert!(lines.starts_with("{\"ID\":\"abc\",\"Parents\":[\"p1\",\"p2\"],"), "{lines}");
}

#[test]
fn filter_language() {
    let entry =
        |values: &[&str]| filters(&values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>()).unwrap();
    assert_eq!(entry(&["until=24h"]).keep_duration, Duration::from_secs(86400));
    assert_eq!(entry(&["unused-for=1h30m"]).keep_duration, Duration::from_secs(5400));
    assert_eq!(entry(&["id=abc", "type=regular"]).entry, "id~=abc,type==regular");
    assert_eq!(
        entry(&["private", "type!=internal", "description~=make"]).entry,
        "private,type!=internal,description~=make"
    );
    assert_eq!(entry(&["type==regular"]).entry, "type==regular");
    assert_eq!(entry(&[]).entry, "");
    let error = |value: &str| filters(&[value.to_owned()]).unwrap_err().to_string();
    assert!(error("until=yesterday").contains("\"until\" filter expects a duration (e.g., '24h')"));
    assert!(error("typ=regular").contains("unknown filter 'typ' (did you mean type?)"));
    assert!(filters(&["until=1h".into(), "until=2h".into()]).is_err());
}

#[test]
fn numbers_for_people() {
    let cases = [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (1234, "1.234kB"),
        (12_345, "12.35kB"),
        (1_500_000_000, "1.5GB"),
    ];
    for (n, want) in cases {
        assert_eq!(size(n), want);
    }
    let then = |s| NOW - SignedDuration::from_secs(s);
    let cases = [
        (0, "Less than a second ago"),
        (1, "1 second ago"),
        (59, "59 seconds ago"),
        (60, "About a minute ago"),
        (600, "10 minutes ago"),
        (3600, "About an hour ago"),
        (86_400, "24 hours ago"),
        (86_400 * 3, "3 days ago"),
        (86_400 * 21, "3 weeks ago"),
        (86_400 * 100, "3 months ago"),
        (86_400 * 1000, "2 years ago"),
    ];
    for (seconds, want) in cases {
        assert_eq!(ago(then(seconds), NOW), want, "{seconds}");
    }
    assert_eq!(parse_duration("1h30m5s"), Some(Duration::from_secs(5405)));
    assert_eq!(parse_duration("2d"), Some(Duration::from_secs(172_800)));
    assert_eq!(parse_duration("1.5m"), Some(Duration::from_secs(90)));
    for wrong in ["", "5", "h", "5x", "-5h", "1e9h"] {
        assert_eq!(parse_duration(wrong), None, "{wrong}");
    }
}
