//! HTTP dates (RFC 9110 section 5.6.7).

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;

/// The preferred form, and the two obsolete ones that are to be understood.
const FORMATS: [&str; 3] = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// Reads a date.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    // The name of the zone that some servers use.
    let text = text.trim().replace(" UTC", " GMT");
    let parsed = FORMATS.iter().find_map(|f| strtime::parse(f, &text).ok()?.to_datetime().ok());
    parsed.and_then(|t: DateTime| t.to_zoned(TimeZone::UTC).ok()).map(|z| z.timestamp())
}

/// Prints a date in the preferred form.
pub(super) fn format(t: Timestamp) -> String {
    t.strftime(FORMATS[0]).to_string()
}

/// For file times.
pub(super) fn system_time(t: Timestamp) -> SystemTime {
    t.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_forms_one_time() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sunday, 06-Nov-94 08:49:37 UTC",
        ] {
            let t = parse(text).unwrap();
            assert_eq!(t.as_second(), 784_111_777, "{text}");
            assert_eq!(format(t), "Sun, 06 Nov 1994 08:49:37 GMT");
        }
        for bad in ["", "yesterday", "Sun, 06 Nov 1994 08:49:37 +0100"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
