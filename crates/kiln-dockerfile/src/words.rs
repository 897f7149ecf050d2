//! Splitting an instruction into its word, its flags and the rest; splitting the rest into words.

/// The blanks that separate words; a newline does not occur and other Unicode spaces do not count.
const BLANKS: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

/// An instruction line taken apart.
pub(crate) struct Split<'a> {
    pub(crate) keyword: &'a str,
    pub(crate) flags: Vec<String>,
    pub(crate) rest: &'a str,
}

/// Takes a joined line apart. Flags are the words with `--` up to the first other word or a lone `--`.
pub(crate) fn split_command(line: &str, escape: char) -> Split<'_> {
    let line = line.trim();
    match split_blank(line) {
        None => Split { keyword: line, flags: Vec::new(), rest: "" },
        Some((keyword, after)) => {
            let (flags, rest) = take_flags(after, escape);
            Split { keyword, flags, rest: rest.trim() }
        }
    }
}

/// The text before the first run of blanks and the text after it.
pub(crate) fn split_blank(text: &str) -> Option<(&str, &str)> {
    let (first, rest) = text.split_once(BLANKS)?;
    Some((first, rest.trim_start_matches(BLANKS)))
}

/// Splits at runs of blanks. A blank at either end gives an empty word there.
pub(crate) fn split_blanks(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((word, after)) = split_blank(rest) {
        out.push(word.to_owned());
        rest = after;
    }
    out.push(rest.to_owned());
    out
}

fn take_flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let (word, quoted, after) = take_flag(rest, escape);
        rest = after;
        if word == "--" {
            return (flags, rest);
        }
        if quoted || !word.is_empty() {
            flags.push(word);
        }
    }
}

/// Reads one flag: quotes are removed, the escape character is too, inside and outside of quotes.
fn take_flag(text: &str, escape: char) -> (String, bool, &str) {
    let (mut word, mut open, mut quoted) = (String::new(), None, false);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match open {
            None if c.is_whitespace() => return (word, quoted, &text[at..]),
            None if matches!(c, '\'' | '"') => {
                open = Some(c);
                quoted = true;
            }
            Some(quote) if c == quote => open = None,
            _ if c == escape => word.extend(chars.next().map(|(_, c)| c)),
            _ => word.push(c),
        }
    }
    (word, quoted, "")
}

/// Splits at unquoted blanks; quotes and escapes stay in the words.
pub(crate) fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut open) = (String::new(), None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match open {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if matches!(c, '\'' | '"') => open = Some(c),
            Some(quote) if c == quote => open = None,
            _ => {}
        }
        if c == escape && open != Some('\'') {
            // An escape character at the very end is dropped.
            if let Some(next) = chars.next() {
                word.push(c);
                word.push(next);
            }
        } else {
            word.push(c);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}
