//! Go's `time.ParseDuration`.

/// Nanoseconds of a text such as `1h30m`, `-1.5h` or `300ms`; `None` when it is none, or larger than Go can say.
pub(crate) fn nanos(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        total = total.checked_add(part(number, unit_nanos(unit)?)?)?;
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

fn unit_nanos(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

fn part(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || whole.len() > 19 {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Digits beyond the ninth are less than a nanosecond of a second; of larger units they are not missed either.
    let digits = &fraction[..fraction.len().min(12)];
    let scale = 10_i128.checked_pow(u32::try_from(digits.len()).ok()?)?;
    let fraction: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    whole.checked_mul(unit)?.checked_add(fraction.checked_mul(unit)? / scale)
}

#[cfg(test)]
mod tests {
    use super::nanos;

    #[test]
    fn as_go_reads_them() {
        let h = 3_600_000_000_000;
        for (text, want) in [
            ("0", Some(0)),
            ("24h", Some(24 * h)),
            ("1h30m", Some(h + h / 2)),
            ("-1.5h", Some(-h - h / 2)),
            ("+.5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("2µs3ns", Some(2003)),
            ("", None),
            ("-", None),
            ("5", None),
            ("h", None),
            (".s", None),
            ("1.2.3s", None),
            ("1d", None),
            ("99999999999999999999h", None),
            ("9999999h", None),
            ("1 h", None),
        ] {
            assert_eq!(nanos(text), want, "{text}");
        }
    }
}
