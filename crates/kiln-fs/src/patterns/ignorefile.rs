//! Reading `.dockerignore`.

use super::PatternError;

/// Go's line scanner refuses longer lines.
const MAX_LINE: usize = 64 << 10;

/// The patterns of an ignore file: a byte order mark is dropped, lines with `#` in the first column are comments, the
/// rest is trimmed, cleaned as a path and made relative; `!` is kept in front (spec dockerfile.md section 11).
pub fn read_ignore_file(content: &[u8]) -> Result<Vec<String>, PatternError> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut patterns = Vec::new();
    for (i, line) in content.split(|&b| b == b'\n').enumerate() {
        if line.len() >= MAX_LINE {
            return Err(PatternError::LineTooLong(i + 1));
        }
        if line.first() == Some(&b'#') {
            continue;
        }
        let line = String::from_utf8_lossy(line);
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        match line.strip_prefix('!') {
            Some(rest) => patterns.push(format!("!{}", relative(rest.trim()))),
            None => patterns.push(relative(line)),
        }
    }
    Ok(patterns)
}

fn relative(pattern: &str) -> String {
    if pattern.is_empty() {
        return String::new();
    }
    let clean = kiln_go::path::clean(pattern);
    match clean.strip_prefix('/') {
        Some(rest) if !rest.is_empty() => rest.to_string(),
        _ => clean,
    }
}
