//! Text for people: sizes, safe characters, columns.

use unicode_width::UnicodeWidthChar as _;

/// A size with decimal units: `123B`, `1.23kB`.
pub fn format_bytes(n: i64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = n as f64;
    let mut unit = "B";
    for next in UNITS {
        if value.abs() < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if unit == "B" { format!("{n}B") } else { format!("{value:.2}{unit}") }
}

/// ` 1.00MB / 2.00MB`, ` 1.00MB`, or nothing.
pub(crate) fn amount(current: i64, total: i64) -> String {
    if total != 0 {
        format!(" {} / {}", format_bytes(current), format_bytes(total))
    } else if current != 0 {
        format!(" {}", format_bytes(current))
    } else {
        String::new()
    }
}

/// The text without characters that steer a terminal. Names and messages come from others.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c == '\t' || c == '\n' { ' ' } else { c }).filter(|c| !c.is_control()).collect()
}

/// As [`printable`], of a text that may have several lines.
pub fn printable_lines(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

/// Columns that a text takes.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// The beginning of a text that fits into `width` columns.
pub(crate) fn cut(text: &str, width: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > width {
            return &text[..at];
        }
    }
    text
}

/// `left` and `right` at the two ends of a line of `width` columns.
pub(crate) fn align(left: &str, right: &str, width: usize) -> String {
    let gap = width.saturating_sub(columns(left) + columns(right));
    format!("{left}{}{right}", " ".repeat(gap))
}
