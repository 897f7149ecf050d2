//! Sizes and times, as Go's programs print them.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::time::Duration;

const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

fn scale(bytes: i64) -> (f64, &'static str) {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value.abs() >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    (value, UNITS[unit])
}

/// `1.23kB`; whole bytes have no decimals.
pub(crate) fn size(bytes: i64) -> String {
    match scale(bytes) {
        (_, "B") => format!("{bytes}B"),
        (value, unit) => format!("{value:.2}{unit}"),
    }
}

/// `1.234567kB`: all digits there are.
pub(crate) fn exact_size(bytes: i64) -> String {
    match scale(bytes) {
        (_, "B") => format!("{bytes}B"),
        (value, unit) => format!("{value}{unit}"),
    }
}

/// `2026-01-02 03:04:05.006 +0000 UTC`
pub(crate) fn time(at: Timestamp) -> String {
    let seconds = at.strftime("%Y-%m-%d %H:%M:%S");
    let fraction = format!("{:09}", at.subsec_nanosecond().unsigned_abs());
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{seconds}{point}{fraction} +0000 UTC")
}

/// `2026-01-02T03:04:05+01:00`, in the zone of this machine.
pub(crate) fn local_time(at: Timestamp) -> String {
    let zoned = at.to_zoned(TimeZone::system());
    match zoned.offset().is_zero() {
        true => zoned.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        false => zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    }
}

/// `48h0m0s`
pub(crate) fn duration(d: Duration) -> String {
    let (total, nanos) = (d.as_secs(), d.subsec_nanos());
    let (hours, minutes, seconds) = (total / 3600, total / 60 % 60, total % 60);
    let fraction = format!("{nanos:09}");
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    match () {
        () if total == 0 && nanos == 0 => "0s".into(),
        () if total == 0 => {
            let (value, unit) = match nanos {
                1_000_000.. => (f64::from(nanos) / 1e6, "ms"),
                1000.. => (f64::from(nanos) / 1e3, "µs"),
                _ => (f64::from(nanos), "ns"),
            };
            format!("{value}{unit}")
        }
        () if hours > 0 => format!("{hours}h{minutes}m{seconds}{point}{fraction}s"),
        () if minutes > 0 => format!("{minutes}m{seconds}{point}{fraction}s"),
        () => format!("{seconds}{point}{fraction}s"),
    }
}

/// JSON as Go's encoder writes it: `<`, `>`, `&` and two line separators are escaped.
pub(crate) fn escape_html(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_times_and_durations() {
        assert_eq!([0, 999, 1234, -5_000_000].map(size), ["0B", "999B", "1.23kB", "-5.00MB"]);
        assert_eq!([512_000_000, 10_500_000_000].map(exact_size), ["512MB", "10.5GB"]);
        let at = |n| time(Timestamp::new(1_767_323_045, n).unwrap());
        assert_eq!(at(0), "2026-01-02 03:04:05 +0000 UTC");
        assert_eq!(at(6_000_000), "2026-01-02 03:04:05.006 +0000 UTC");
        let d = |ms| duration(Duration::from_millis(ms));
        assert_eq!([0, 15, 1500, 60_000].map(d), ["0s", "15ms", "1.5s", "1m0s"]);
        assert_eq!(duration(Duration::from_secs(172_800)), "48h0m0s");
        assert_eq!(escape_html("{\"a\":\"<b> & c\"}"), "{\"a\":\"\\u003cb\\u003e \\u0026 c\"}");
    }
}
