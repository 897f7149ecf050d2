//! One line of comma-separated values, with `"` quoting as in RFC 4180: how flag values hold several fields. The rules
//! and messages are those of `encoding/csv` without lazy quotes.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_what_is_wrong_with_them() {
        let list = |text| fields(text).unwrap();
        assert_eq!(list("a,b=c,"), ["a", "b=c", ""]);
        assert_eq!(list("\"a,b\",c\n"), ["a,b", "c"]);
        assert_eq!(list("\"a\"\"b\""), ["a\"b"]);
        assert_eq!(fields(""), Err(CsvError::Empty));
        assert_eq!(fields("a,b\"c"), Err(CsvError::BareQuote(4)));
        assert_eq!(fields("\"a\"b"), Err(CsvError::Quote(3)));
        assert_eq!(
            fields("\"a").unwrap_err().to_string(),
            "parse error on line 1, column 2: extraneous or missing \" in quoted-field"
        );
    }
}
