//! Sizes and times, as Go's programs print them.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::time::Duration;

/// `1.234567kB`: all digits there are.
pub(crate) fn exact_size(bytes: i64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value.abs() >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value}{}", UNITS[unit])
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

/// A warning in the log, in the format of `--log-format`.
pub(crate) fn log_line(format: &str, message: &str, now: Timestamp) -> String {
    let time = local_time(now);
    match format {
        "json" => {
            let line = serde_json::json!({"level": "warning", "msg": message, "time": time});
            format!("{}\n", kiln_progress::escape_html(&line.to_string()))
        }
        _ => format!("time={time:?} level=warning msg={}\n", kiln_dockerfile::quote(message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_times_and_durations() {
        assert_eq!([512_000_000, 10_500_000_000].map(exact_size), ["512MB", "10.5GB"]);
        let now = Timestamp::UNIX_EPOCH;
        assert!(log_line("text", "a \"b\"", now).ends_with("level=warning msg=\"a \\\"b\\\"\"\n"));
        assert!(log_line("json", "a", now).starts_with("{\"level\":\"warning\",\"msg\":\"a\",\"time\":"));
        let at = |n| time(Timestamp::new(1_767_323_045, n).unwrap());
        assert_eq!(at(0), "2026-01-02 03:04:05 +0000 UTC");
        assert_eq!(at(6_000_000), "2026-01-02 03:04:05.006 +0000 UTC");
        let d = |ms| duration(Duration::from_millis(ms));
        assert_eq!([0, 15, 1500, 60_000].map(d), ["0s", "15ms", "1.5s", "1m0s"]);
        assert_eq!(duration(Duration::from_secs(172_800)), "48h0m0s");
    }
}
