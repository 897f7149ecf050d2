//! Parser directives: `# name=value` in the first lines (spec dockerfile.md section 2).

use crate::ast::Range;

/// A directive found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// `syntax`, `escape` or `check`.
    pub name: String,
    /// The whole value; for `syntax` this is the `cmdline`.
    pub value: String,
    /// Its line.
    pub range: Range,
}

impl Directive {
    /// The value up to its first space: for `syntax` the image reference.
    pub fn first_word(&self) -> &str {
        self.value.split(' ').next().unwrap_or_default()
    }
}

const NAMES: [&str; 3] = ["syntax", "escape", "check"];

/// Splits `name = value`; None when the text is not a known directive.
fn parse_pair(text: &str) -> Option<(String, String)> {
    const BLANKS: [char; 5] = ['\t', '\n', '\u{c}', '\r', ' '];
    let (name, value) = text.split_once('=')?;
    let name = name.trim_end_matches(BLANKS);
    let mut letters = name.chars();
    if !letters.next()?.is_ascii_alphabetic() || !letters.all(|c| c.is_ascii_alphanumeric()) {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let value = value.trim_matches(BLANKS);
    (NAMES.contains(&name.as_str()) && !value.is_empty()).then(|| (name, value.to_owned()))
}

/// The value of `check=...` in a comment, up to its first space.
pub(crate) fn check_comment(comment: &str) -> Option<&str> {
    let (name, value) = comment.split_once('=')?;
    let is_check = name.trim_end().eq_ignore_ascii_case("check");
    let value = value.trim();
    (is_check && !value.is_empty()).then(|| value.split(' ').next().unwrap_or_default())
}

/// Reads directives line by line until the first line that is none.
#[derive(Debug)]
pub(crate) struct Reader {
    comment: &'static str,
    done: bool,
    seen: Vec<String>,
}

/// A directive name that was given twice.
#[derive(Debug)]
pub(crate) struct Repeated(pub(crate) String);

impl Reader {
    pub(crate) fn new(comment: &'static str) -> Self {
        Self { comment, done: false, seen: Vec::new() }
    }

    pub(crate) fn line(&mut self, line: &str, number: u32) -> Result<Option<Directive>, Repeated> {
        if self.done {
            return Ok(None);
        }
        let Some((name, value)) = line.strip_prefix(self.comment).and_then(|l| parse_pair(l.trim_start()))
        else {
            self.done = true;
            return Ok(None);
        };
        if self.seen.contains(&name) {
            return Err(Repeated(name));
        }
        self.seen.push(name.clone());
        Ok(Some(Directive { name, value, range: Range { start: number, end: number } }))
    }
}

/// Finds the frontend that a file asks for: `# syntax=`, else `// syntax=`, else the JSON key `syntax`.
/// A byte order mark and a `#!` line are skipped. The file need not be a Dockerfile.
pub fn detect_syntax(text: &[u8]) -> Option<Directive> {
    let (text, line) = skip_head(text);
    scan(text, line, "#", "syntax").or_else(|| scan(text, line, "//", "syntax")).or_else(|| {
        let value: serde_json::Value = serde_json::from_slice(text).ok()?;
        let value = value.as_object()?.get("syntax")?.as_str()?.to_owned();
        Some(Directive { name: "syntax".into(), value, range: Range { start: line, end: line } })
    })
}

/// Finds a `# name=value` directive. A byte order mark and a `#!` line are skipped.
pub fn detect(name: &str, text: &[u8]) -> Option<Directive> {
    let (text, line) = skip_head(text);
    scan(text, line, "#", name)
}

/// The text after BOM and shebang, and the number of its first line.
fn skip_head(text: &[u8]) -> (&[u8], u32) {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    if !text.starts_with(b"#!") {
        return (text, 1);
    }
    let end = text.iter().position(|b| *b == b'\n').map_or(text.len(), |at| at + 1);
    (&text[end..], 2)
}

fn scan(text: &[u8], first: u32, comment: &'static str, name: &str) -> Option<Directive> {
    let mut reader = Reader::new(comment);
    for (line, number) in text.split(|b| *b == b'\n').zip(first..) {
        let line = String::from_utf8_lossy(line);
        match reader.line(line.strip_suffix('\r').unwrap_or(&line), number) {
            Ok(Some(found)) if found.name == name => return Some(found),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    }
    None
}
