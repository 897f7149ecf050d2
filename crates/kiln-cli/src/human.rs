//! Sizes and times for people, as Docker's tools print them.

use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// A size with decimal units and up to four digits: `2.746MB`.
pub fn size(bytes: i64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], short)
}

/// A size with binary units and up to four digits: `488.3MiB`.
pub fn binary_size(bytes: i64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], short)
}

/// A size with decimal units and all digits there are: `1.234567kB`.
pub fn exact_size(bytes: i64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], |value| value.to_string())
}

fn scaled(bytes: i64, base: f64, units: &[&str; 7], digits: impl Fn(f64) -> String) -> String {
    let (mut value, mut unit) = (bytes as f64, 0);
    while value.abs() >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", digits(value), units[unit])
}

/// Up to four digits.
fn short(value: f64) -> String {
    let decimals = match value.abs() {
        v if v < 10.0 => 3,
        v if v < 100.0 => 2,
        v if v < 1000.0 => 1,
        _ => 0,
    };
    let digits = format!("{value:.decimals$}");
    match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => digits,
    }
}

/// A time as Go prints it: `2026-01-02 03:04:05.006 +0000 UTC`.
pub fn go_time(at: Timestamp) -> String {
    let fraction = format!("{:09}", at.subsec_nanosecond().unsigned_abs());
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{point}{fraction} +0000 UTC", at.strftime("%Y-%m-%d %H:%M:%S"))
}

/// A duration as Go prints it: `48h0m0s`.
pub fn go_duration(duration: Duration) -> String {
    kiln_go::duration::format(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

/// How long ago something was: `4 hours ago`.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", about(now.duration_since(then)))
}

fn about(d: SignedDuration) -> String {
    let seconds = d.as_secs().max(0);
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 14 => format!("{} days", hours / 24),
        () if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// Reads a duration of Go (`24h`, `1h30m`, `1.5m`), with days before it if there are any (`2d`, `1d12h`).
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (days, rest) = match text.split_once('d') {
        Some((days, rest)) => (days.parse::<u32>().ok()?, if rest.is_empty() { "0" } else { rest }),
        None => (0, text),
    };
    let nanos = u64::try_from(kiln_go::duration::parse(rest).ok()?).ok()?;
    Duration::from_secs(86_400 * u64::from(days)).checked_add(Duration::from_nanos(nanos))
}

/// Rows with columns as wide as their widest cell, two blanks between them.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, w)| format!("{cell:w$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_times_and_durations_as_go_prints_them() {
        assert_eq!([512_000_000, 10_500_000_000].map(exact_size), ["512MB", "10.5GB"]);
        assert_eq!([2048, 512_000_000, 10_000_000_000].map(binary_size), ["2KiB", "488.3MiB", "9.313GiB"]);
        let at = |n| go_time(Timestamp::new(1_767_323_045, n).unwrap());
        assert_eq!(at(0), "2026-01-02 03:04:05 +0000 UTC");
        assert_eq!(at(6_000_000), "2026-01-02 03:04:05.006 +0000 UTC");
        assert_eq!(go_duration(Duration::from_secs(172_800)), "48h0m0s");
    }
}
