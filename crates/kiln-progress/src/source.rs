//! An excerpt of a source file with lines marked (spec dockerfile.md section 16).

use crate::update::{LineRange, SourceFile};
use std::io::{self, Write};

/// Prints `name:line`, dashes, numbered lines with `>>>` at the marked ones, dashes. Prints nothing when there are no
/// ranges, or when they lie outside of the file.
///
/// # Errors
/// `out` cannot be written.
pub fn print_source_excerpt(
    source: &SourceFile,
    ranges: &[LineRange],
    out: &mut dyn Write,
) -> io::Result<()> {
    let text = String::from_utf8_lossy(&source.data);
    let lines: Vec<&str> = text.split('\n').collect();
    let count = i32::try_from(lines.len()).unwrap_or(i32::MAX);
    let Some(first) = ranges.iter().map(|r| r.start).min() else { return Ok(()) };
    let Some(last) = ranges.iter().map(|r| r.end.max(r.start)).max() else { return Ok(()) };
    if first < 1 || first > count {
        return Ok(());
    }
    let (start, end) = pad(first, last.min(count), count);
    writeln!(out, "{}:{first}\n--------------------", crate::text::printable(&source.filename))?;
    for number in start..=end {
        let marked = ranges.iter().any(|r| r.start <= number && number <= r.end.max(r.start));
        let mark = if marked { ">>>" } else { "   " };
        let line = usize::try_from(number - 1).ok().and_then(|i| lines.get(i)).copied().unwrap_or_default();
        let line: String = line.chars().filter(|c| *c == '\t' || !c.is_control()).collect();
        writeln!(out, " {number:3} | {mark} {line}")?;
    }
    writeln!(out, "--------------------")
}

/// Adds two lines of surroundings to a range and four to a single line, on both sides as far as there are any.
fn pad(mut start: i32, mut end: i32, count: i32) -> (i32, i32) {
    let wanted = if start == end { 4 } else { 2 };
    let mut added = 0;
    while added < wanted {
        if start > 1 {
            start -= 1;
            added += 1;
        }
        if end != count {
            end += 1;
            added += 1;
        }
        added += 1;
    }
    (start, end)
}
