//! Texts in quotes.

use std::fmt::Write as _;

/// Puts a text in double quotes and escapes what cannot be shown, as `strconv.Quote` and `%q`.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if is_printed(c) => out.push(c),
            c if (c as u32) < 0x10000 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => {
                let _ = write!(out, "\\U{:08x}", c as u32);
            }
        }
    }
    out.push('"');
    out
}

/// Whether a character stands for itself, as `unicode.IsPrint`: no control, no space but ASCII's, and assigned.
fn is_printed(c: char) -> bool {
    // The standard library has the same rule for its own escapes, where a mark that follows something is printed.
    c.is_ascii()
        || c.escape_debug().len() == 1
        || ['x', c].iter().collect::<String>().escape_debug().nth(1) == Some(c)
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn what_cannot_be_shown_is_escaped() {
        for (text, want) in [
            ("a\"\\\n\r\t", r#""a\"\\\n\r\t""#),
            ("\u{7}\u{8}\u{b}\u{c}\0\u{1b}\u{7f}", r#""\a\b\v\f\x00\x1b\x7f""#),
            ("é ß 日本 e\u{301} \u{301}", "\"é ß 日本 e\u{301} \u{301}\""),
            ("\u{85}\u{a0}\u{200b}\u{2028}\u{feff}\u{e000}", r#""\u0085\u00a0\u200b\u2028\ufeff\ue000""#),
            ("😀\u{e0001}\u{10ffff}", r#""😀\U000e0001\U0010ffff""#),
        ] {
            assert_eq!(quote(text), want);
        }
    }
}
