//! Texts and actions of a template, and the words of actions.

use super::{MAX_DEPTH, failed};
use std::fmt;

/// Text outside, or the words inside, of `{{` and `}}`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Text(String),
    Action(Vec<Token>),
}

/// A word of an action.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
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

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dot => f.write_str("<.>"),
            Self::Fields(fields) => write!(f, "<.{}>", fields.join(".")),
            Self::Word(word) => write!(f, "<{word}>"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Number(n) => write!(f, "<{n}>"),
            Self::Pipe => f.write_str("<|>"),
            Self::Open => f.write_str("<(>"),
            Self::Close => f.write_str("<)>"),
        }
    }
}

/// Longest template, in bytes.
const MAX_LENGTH: usize = 64 << 10;

/// Cuts a template; `{{- ` and ` -}}` take the blanks beside them away, `{{/* */}}` is nothing.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    if text.len() > MAX_LENGTH {
        return Err(failed("too long"));
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trims = false;
    while let Some((before, after)) = rest.split_once("{{") {
        let trimmed = after.strip_prefix("- ");
        let before = if trims { before.trim_start() } else { before };
        let before = if trimmed.is_some() { before.trim_end() } else { before };
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let inside = trimmed.unwrap_or(after);
        let end = end_of_action(inside).ok_or_else(|| failed("unclosed action"))?;
        let action = &inside[..end];
        rest = &inside[end + 2..];
        trims = action.ends_with(" -");
        let action = action.strip_suffix(" -").unwrap_or(action).trim();
        if !(action.starts_with("/*") && action.ends_with("*/")) {
            pieces.push(Piece::Action(tokens(action)?));
        }
    }
    let rest = if trims { rest.trim_start() } else { rest };
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
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

fn tokens(action: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut open = 0_usize;
    let mut rest = action.trim_start();
    while let Some(c) = rest.chars().next() {
        let (token, after) = match c {
            '|' => (Token::Pipe, &rest[1..]),
            '(' => (Token::Open, &rest[1..]),
            ')' => (Token::Close, &rest[1..]),
            '"' | '`' => text(rest, c)?,
            '.' => fields(rest),
            '-' | '+' | '0'..='9' => {
                let (word, after) = word(rest);
                let number = word.parse().map_err(|_| failed(format!("bad number syntax: {word:?}")))?;
                (Token::Number(number), after)
            }
            c if c.is_alphabetic() || c == '_' => {
                let (word, after) = word(rest);
                (Token::Word(word.to_owned()), after)
            }
            '$' => return Err(failed("variables are not supported")),
            c => return Err(failed(format!("unexpected {c:?} in command"))),
        };
        open += usize::from(token == Token::Open);
        open -= usize::from(token == Token::Close).min(open);
        if open > MAX_DEPTH {
            return Err(failed("nested too deeply"));
        }
        tokens.push(token);
        rest = after.trim_start();
    }
    Ok(tokens)
}

fn word(text: &str) -> (&str, &str) {
    let is_inside = |(at, c): (usize, char)| c.is_alphanumeric() || c == '_' || (at == 0 && "+-".contains(c));
    text.split_at(text.char_indices().find(|p| !is_inside(*p)).map_or(text.len(), |(at, _)| at))
}

fn fields(text: &str) -> (Token, &str) {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(after) = rest.strip_prefix('.') {
        let (name, after) = word(after);
        if name.is_empty() {
            break;
        }
        names.push(name.to_owned());
        rest = after;
    }
    if names.is_empty() { (Token::Dot, &text[1..]) } else { (Token::Fields(names), rest) }
}

/// A quoted text at the beginning.
fn text(rest: &str, quote: char) -> Result<(Token, &str), String> {
    let mut out = String::new();
    let mut chars = rest[1..].char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Ok((Token::Text(out), &rest[at + 2..])),
            '\\' if quote == '"' => match chars.next() {
                Some((_, 'n')) => out.push('\n'),
                Some((_, 't')) => out.push('\t'),
                Some((_, c @ ('"' | '\\'))) => out.push(c),
                _ => return Err(failed("escape in a quoted string is not supported")),
            },
            c => out.push(c),
        }
    }
    Err(failed("unterminated quoted string"))
}
