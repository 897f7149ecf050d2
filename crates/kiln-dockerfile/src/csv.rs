//! One line of comma-separated values, with `"` quoting as in RFC 4180: how flag values hold several fields.

/// A value that is not one CSV line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum CsvError {
    #[error("EOF")]
    Empty,
    #[error("parse error on line 1, column {0}: bare \" in non-quoted-field")]
    BareQuote(usize),
    #[error("parse error on line 1, column {0}: extraneous or missing \" in quoted-field")]
    Quote(usize),
}

/// The fields of a line; a line end at its end is allowed.
///
/// # Errors
/// The line is empty or its quotes are wrong; columns are 1-based bytes.
pub fn fields(line: &str) -> Result<Vec<String>, CsvError> {
    let line = line.strip_suffix('\n').map_or(line, |l| l.strip_suffix('\r').unwrap_or(l));
    if line.is_empty() {
        return Err(CsvError::Empty);
    }
    let mut out = Vec::new();
    let mut rest = line;
    loop {
        let at = line.len() - rest.len();
        if let Some(quoted) = rest.strip_prefix('"') {
            let (field, after) = quoted_field(line, quoted)?;
            out.push(field);
            match after {
                Some(next) => rest = next,
                None => return Ok(out),
            }
            continue;
        }
        let (field, next) = rest.split_once(',').map_or((rest, None), |(f, n)| (f, Some(n)));
        if let Some(quote) = field.find('"') {
            return Err(CsvError::BareQuote(at + quote + 1));
        }
        out.push(field.to_owned());
        match next {
            Some(next) => rest = next,
            None => return Ok(out),
        }
    }
}

/// Reads after the opening quote; gives the field and what follows the comma.
fn quoted_field<'a>(line: &str, mut rest: &'a str) -> Result<(String, Option<&'a str>), CsvError> {
    let mut field = String::new();
    loop {
        let Some(end) = rest.find('"') else {
            return Err(CsvError::Quote(line.len() - rest.len() + 1));
        };
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.chars().next() {
            None => return Ok((field, None)),
            Some(',') => return Ok((field, Some(&rest[1..]))),
            Some('"') => {
                field.push('"');
                rest = &rest[1..];
            }
            Some(_) => return Err(CsvError::Quote(line.len() - rest.len())),
        }
    }
}

/// Reads a boolean as flag values have it: `1 t T TRUE true True 0 f F FALSE false False`.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Reads a size with binary units (`64m`, `1.5GiB`, `100`), in bytes.
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
