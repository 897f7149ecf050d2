//! Sizes with units, as `docker/go-units` reads them.

/// Reads a size with binary units (`64m`, `1.5GiB`, `100`), in bytes, as `RAMInBytes`; less than nothing is refused.
pub fn parse_bytes(text: &str) -> Option<i64> {
    let last = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')?;
    let number = if text.as_bytes()[last] == b' ' { &text[..last] } else { &text[..=last] };
    let number: f64 = number.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0)?;
    let suffix = text[last + 1..].to_ascii_lowercase();
    let mut letters = suffix.chars();
    let power = match letters.next() {
        None => 0,
        Some('b') => return letters.next().is_none().then_some(number as i64),
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some('p') => 5,
        Some(_) => return None,
    };
    matches!(letters.as_str(), "" | "b" | "ib").then_some((number * 1024f64.powi(power)) as i64)
}

#[cfg(test)]
mod tests {
    use super::parse_bytes;

    #[test]
    fn sizes() {
        let cases = [
            ("32", Some(32)),
            ("32b", Some(32)),
            ("32kb", Some(32 << 10)),
            ("32KiB", Some(32 << 10)),
            ("1.5 M", Some(3 << 19)),
            ("2g", Some(2 << 30)),
            ("", None),
            ("-1", None),
            ("1x", None),
            ("1kx", None),
            ("m", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse_bytes(text), want, "{text}");
        }
    }
}
