//! Times and lines of the log, as buildctl prints them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `2026-01-02T03:04:05+01:00`, in the zone of this machine.
pub(crate) fn local_time(at: Timestamp) -> String {
    let zoned = at.to_zoned(TimeZone::system());
    match zoned.offset().is_zero() {
        true => zoned.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        false => zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    }
}

/// A warning in the log, in the format of `--log-format`.
pub(crate) fn log_line(format: &str, message: &str, now: Timestamp) -> String {
    let time = local_time(now);
    match format {
        "json" => {
            let line = serde_json::json!({"level": "warning", "msg": message, "time": time});
            format!("{}\n", kiln_go::json::escape_html(&line.to_string()))
        }
        _ => format!("time={time:?} level=warning msg={}\n", kiln_go::quote(message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_log() {
        let now = Timestamp::UNIX_EPOCH;
        assert!(log_line("text", "a \"b\"", now).ends_with("level=warning msg=\"a \\\"b\\\"\"\n"));
        assert!(log_line("json", "a", now).starts_with("{\"level\":\"warning\",\"msg\":\"a\",\"time\":"));
    }
}
