//! Physical lines to joined instructions: comments, continuations, heredoc bodies.

use crate::ast::{Range, Warning};
use crate::directive::{Directive, Reader};
use crate::error::{ErrorKind, ParseError};
use crate::heredoc;
use crate::node::{self, Node};
use std::borrow::Cow;

/// The longest line without its line end.
const MAX_LINE: usize = 65535;

/// What a file consists of.
pub(crate) struct Lines {
    pub(crate) escape: char,
    pub(crate) directives: Vec<Directive>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) warnings: Vec<Warning>,
}

/// Reads a whole file into instructions that are not yet understood.
pub(crate) fn read(text: &[u8]) -> Result<Lines, ParseError> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut file = File { rest: text, number: 0 };
    let mut lines = Lines { escape: '\\', directives: Vec::new(), nodes: Vec::new(), warnings: Vec::new() };
    let mut reader = Reader::new("#");
    let mut comments = Vec::new();
    while let Some(raw) = file.next()? {
        let line = raw.trim_start();
        if let Some(found) = directive(&mut reader, line, file.number)? {
            if found.name == "escape" {
                lines.escape = escape(&found)?;
            }
            lines.directives.push(found);
            continue;
        }
        if let Some(comment) = line.strip_prefix('#') {
            match comment.trim() {
                "" => comments.clear(),
                text => comments.push(text.to_owned()),
            }
            continue;
        }
        if line.is_empty() {
            continue;
        }
        let node = file.instruction(line, &mut lines, std::mem::take(&mut comments))?;
        lines.nodes.push(node);
    }
    if lines.nodes.is_empty() {
        return Err(ParseError::at(ErrorKind::NoInstructions, file.range_from(file.number.max(1))));
    }
    Ok(lines)
}

fn directive(reader: &mut Reader, line: &str, number: u32) -> Result<Option<Directive>, ParseError> {
    reader.line(line, number).map_err(|repeated| {
        ParseError::at(ErrorKind::RepeatedDirective(repeated.0), Range { start: number, end: number })
    })
}

fn escape(found: &Directive) -> Result<char, ParseError> {
    match found.value.as_str() {
        "\\" => Ok('\\'),
        "`" => Ok('`'),
        other => Err(ParseError::at(ErrorKind::EscapeToken(other.to_owned()), found.range)),
    }
}

/// The line without its continuation mark, or None when it has none. The mark is the escape character as the
/// last non-blank one, not directly after another escape character.
fn continued(line: &str, escape: char) -> Option<&str> {
    let text = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!text.ends_with(escape)).then_some(text)
}

struct File<'a> {
    rest: &'a [u8],
    /// Number of the line read last.
    number: u32,
}

impl<'a> File<'a> {
    /// The next line with its line end.
    fn next_raw(&mut self) -> Result<Option<&'a [u8]>, ParseError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let end = self.rest.iter().position(|b| *b == b'\n').map_or(self.rest.len(), |at| at + 1);
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.number += 1;
        if line.strip_suffix(b"\n").unwrap_or(line).len() > MAX_LINE {
            return Err(self.error(ErrorKind::LineTooLong));
        }
        Ok(Some(line))
    }

    /// The next line without its line end. In comments any bytes are tolerated.
    fn next(&mut self) -> Result<Option<Cow<'a, str>>, ParseError> {
        let Some(raw) = self.next_raw()? else { return Ok(None) };
        let end = raw.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(0, |at| at + 1);
        let line = String::from_utf8_lossy(&raw[..end]);
        if matches!(line, Cow::Owned(_)) && !line.trim_start().starts_with('#') {
            return Err(self.error(ErrorKind::NotUtf8));
        }
        Ok(Some(line))
    }

    fn error(&self, kind: ErrorKind) -> ParseError {
        ParseError::at(kind, Range { start: self.number, end: self.number })
    }

    fn range_from(&self, start: u32) -> Range {
        Range { start, end: self.number.max(start) }
    }

    /// Reads the rest of an instruction that begins with `first`.
    fn instruction(
        &mut self,
        first: &str,
        lines: &mut Lines,
        comments: Vec<String>,
    ) -> Result<Node, ParseError> {
        let start = self.number;
        let (text, had_empty) = self.join(first, lines.escape)?;
        if had_empty {
            let at = Range { start: self.number, end: self.number };
            lines.warnings.push(Warning::EmptyContinuation { line: text.clone(), at });
        }
        let range = self.range_from(start);
        let mut node = node::parse(&text, lines.escape).map_err(|kind| ParseError::at(kind, range))?;
        if node.can_have_heredocs() && text.contains("<<") {
            let words = heredoc::words_of_line(&text)
                .map_err(|e| ParseError::at(ErrorKind::HeredocWord(e), range))?;
            for word in words {
                let content = self.body(&word, start)?;
                node.heredocs.push(word.with_content(content));
            }
        }
        node.range = self.range_from(start);
        node.comments = comments;
        Ok(node)
    }

    /// Joins continuation lines; also says whether blank ones were among them.
    fn join(&mut self, first: &str, escape: char) -> Result<(String, bool), ParseError> {
        let Some(head) = continued(first, escape) else { return Ok((first.to_owned(), false)) };
        let (mut text, mut had_empty) = (head.to_owned(), false);
        while let Some(line) = self.next()? {
            if line.trim_start().starts_with('#') {
                continue;
            }
            if line.trim_start().is_empty() {
                had_empty = true;
                continue;
            }
            match continued(&line, escape) {
                Some(part) => text.push_str(part),
                None => {
                    text.push_str(&line);
                    break;
                }
            }
        }
        Ok((text, had_empty))
    }

    /// Reads a heredoc body up to its terminator.
    fn body(&mut self, word: &heredoc::HeredocWord, start: u32) -> Result<String, ParseError> {
        let mut content = String::new();
        while let Some(raw) = self.next_raw()? {
            let line = std::str::from_utf8(raw).map_err(|_| self.error(ErrorKind::NotUtf8))?;
            let end = line.trim_end_matches(['\r', '\n']);
            let end = if word.chomp { end.trim_start_matches('\t') } else { end };
            if end == word.name {
                return Ok(content);
            }
            content.push_str(line);
        }
        Err(ParseError::at(ErrorKind::UnterminatedHeredoc, self.range_from(start)))
    }
}
