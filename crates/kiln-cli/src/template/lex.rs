//! Texts and actions of a template, and the words of actions.

use super::{MAX_DEPTH, Place};

/// The text of a template, for where something is in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a>(pub(super) &'a str);

impl<'a> Source<'a> {
    /// A message of what is wrong there.
    pub(super) fn failed(self, at: usize, why: impl std::fmt::Display) -> String {
        format!("template: :{}: {why}", self.line(at))
    }

    fn line(self, at: usize) -> usize {
        1 + self.0[..at].matches('\n').count()
    }

    /// The place of what stands from `begin` to `end`, with `at` as its position.
    pub(super) fn place(self, at: usize, begin: usize, end: usize) -> Place {
        let column = at - self.0[..at].rfind('\n').map_or(0, |newline| newline + 1);
        Place { line: self.line(at), column, text: self.0[begin..end].to_owned() }
    }
}

/// Text outside, or the words inside, of `{{` and `}}`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Text(String),
    Action { at: usize, tokens: Vec<Token> },
}

/// A word of an action, and where it begins and ends.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: usize,
    pub(super) end: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Dot,
    /// `.A.B`
    Fields(Vec<String>),
    Word(String),
    Text(String),
    Number(i64),
    Pipe,
    Open,
    Close,
}

/// Longest template, in bytes.
const MAX_LENGTH: usize = 64 << 10;

/// Cuts a template; `{{- ` and ` -}}` take the blanks beside them away, `{{/* */}}` is nothing.
pub(super) fn pieces(source: Source<'_>) -> Result<Vec<Piece>, String> {
    let text = source.0;
    if text.len() > MAX_LENGTH {
        return Err(source.failed(0, "too long"));
    }
    let trims_here = |at: usize| text[at..].starts_with('-') && text[at + 1..].starts_with([' ', '\t', '\n']);
    let mut pieces = Vec::new();
    let (mut at, mut trims) = (0, false);
    let push = |text: &str, trims: (bool, bool)| {
        let text = if trims.0 { text.trim_start() } else { text };
        let text = if trims.1 { text.trim_end() } else { text };
        (!text.is_empty()).then(|| Piece::Text(text.to_owned()))
    };
    while let Some(found) = text[at..].find("{{") {
        let open = at + found;
        let trims_before = trims_here(open + 2);
        pieces.extend(push(&text[at..open], (trims, trims_before)));
        let begin = open + 2 + usize::from(trims_before);
        let end =
            begin + end_of_action(&text[begin..]).ok_or_else(|| source.failed(open, "unclosed action"))?;
        let action = &text[begin..end];
        trims = action.strip_suffix('-').is_some_and(|a| a.ends_with([' ', '\t', '\n']));
        let last = end - usize::from(trims);
        at = end + 2;
        let inside = text[begin..last].trim();
        if !(inside.starts_with("/*") && inside.ends_with("*/")) {
            pieces.push(Piece::Action { at: open, tokens: Lexer { source, at: begin, end: last }.tokens()? });
        }
    }
    pieces.extend(push(&text[at..], (trims, false)));
    Ok(pieces)
}

/// The `}}` that is not inside of quotes.
fn end_of_action(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut quote) = (0, None);
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(b'"'), b'\\') => at += 1,
            (Some(q), b) if q == b => quote = None,
            (None, b @ (b'"' | b'`')) => quote = Some(b),
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

struct Lexer<'a> {
    source: Source<'a>,
    at: usize,
    end: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.source.0[self.at..self.end]
    }

    fn tokens(mut self) -> Result<Vec<Token>, String> {
        let mut tokens = Vec::new();
        let mut open = 0_usize;
        loop {
            self.at = self.end - self.rest().trim_start().len();
            let Some(c) = self.rest().chars().next() else { return Ok(tokens) };
            let (kind, len) = self.token(c).map_err(|why| self.source.failed(self.at, why))?;
            open += usize::from(kind == Kind::Open);
            open -= usize::from(kind == Kind::Close).min(open);
            if open > MAX_DEPTH {
                return Err(self.source.failed(self.at, "nested too deeply"));
            }
            tokens.push(Token { kind, at: self.at, end: self.at + len });
            self.at += len;
        }
    }

    /// The word here and its length.
    fn token(&self, c: char) -> Result<(Kind, usize), String> {
        let rest = self.rest();
        Ok(match c {
            '|' => (Kind::Pipe, 1),
            '(' => (Kind::Open, 1),
            ')' => (Kind::Close, 1),
            '"' => quoted(rest)?,
            '`' => {
                let (raw, _) = rest[1..].split_once('`').ok_or("unterminated raw quoted string")?;
                (Kind::Text(raw.to_owned()), raw.len() + 2)
            }
            '.' => fields(rest),
            '-' | '+' | '0'..='9' => {
                let word = word(rest);
                let number = word.parse().map_err(|_| format!("bad number syntax: {word:?}"))?;
                (Kind::Number(number), word.len())
            }
            c if c.is_alphabetic() || c == '_' => {
                let word = word(rest);
                (Kind::Word(word.to_owned()), word.len())
            }
            '$' => return Err("variables are not supported".into()),
            c => return Err(format!("unexpected {c:?} in command")),
        })
    }
}

fn word(text: &str) -> &str {
    let is_inside = |(at, c): (usize, char)| c.is_alphanumeric() || c == '_' || (at == 0 && "+-".contains(c));
    &text[..text.char_indices().find(|p| !is_inside(*p)).map_or(text.len(), |(at, _)| at)]
}

fn fields(text: &str) -> (Kind, usize) {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(after) = rest.strip_prefix('.') {
        let name = word(after);
        if name.is_empty() {
            break;
        }
        names.push(name.to_owned());
        rest = &after[name.len()..];
    }
    if names.is_empty() { (Kind::Dot, 1) } else { (Kind::Fields(names), text.len() - rest.len()) }
}

/// A text in double quotes at the beginning; escapes are those that Go and JSON share.
fn quoted(text: &str) -> Result<(Kind, usize), String> {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    let literal = text.get(..=at).ok_or("unterminated quoted string")?;
    let value = serde_json::from_str(literal).map_err(|_| format!("invalid syntax: {literal}"))?;
    Ok((Kind::Text(value), literal.len()))
}
