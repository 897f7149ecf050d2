//! The arguments of an instruction in the form its keyword asks for, before they are checked.

use crate::ast::{CommandLine, Pair, Range};
use crate::error::ErrorKind;
use crate::heredoc::Heredoc;
use crate::words;

/// An instruction taken apart.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) keyword: String,
    pub(crate) flags: Vec<String>,
    pub(crate) args: Args,
    pub(crate) original: String,
    pub(crate) range: Range,
    pub(crate) comments: Vec<String>,
    pub(crate) heredocs: Vec<Heredoc>,
}

/// Arguments by form.
#[derive(Debug)]
pub(crate) enum Args {
    /// Words at blanks, or quoted words; empty when there are none.
    Words(Vec<String>),
    /// The strings of a JSON list, where words would do too.
    Json(Vec<String>),
    /// A command: text or JSON list.
    Command(CommandLine),
    /// The rest of the line.
    Text(String),
    /// ENV and LABEL.
    Pairs(Vec<Pair>),
    /// HEALTHCHECK: its type word and command; None when there is nothing.
    Health(Option<(String, CommandLine)>),
    /// ONBUILD: the instruction inside; None when there is nothing.
    Trigger(Option<Box<Node>>),
    /// The keyword is not known.
    Unknown,
}

impl Node {
    /// Heredocs are for RUN, COPY and ADD, also inside ONBUILD, and not with the JSON form.
    pub(crate) fn can_have_heredocs(&self) -> bool {
        match &self.args {
            Args::Trigger(Some(inner)) => inner.can_have_heredocs(),
            Args::Words(_) => matches!(self.keyword.to_ascii_uppercase().as_str(), "ADD" | "COPY"),
            Args::Command(CommandLine::Shell(_)) => self.keyword.eq_ignore_ascii_case("RUN"),
            _ => false,
        }
    }
}

/// Takes a joined line apart.
pub(crate) fn parse(line: &str, escape: char) -> Result<Node, ErrorKind> {
    parse_nested(line, escape, true)
}

fn parse_nested(line: &str, escape: char, outer: bool) -> Result<Node, ErrorKind> {
    let split = words::split_command(line, escape);
    let rest = split.rest;
    let args = match split.keyword.to_lowercase().as_str() {
        "add" | "copy" | "volume" => match json(rest)? {
            Some(list) => Args::Json(list),
            None => Args::Words(blank_words(rest)),
        },
        "arg" => Args::Words(words::quoted_words(rest, escape)),
        "cmd" | "entrypoint" | "run" | "shell" => Args::Command(command(rest)?),
        "env" => Args::Pairs(pairs(rest, "ENV", escape)?),
        "label" => Args::Pairs(pairs(rest, "LABEL", escape)?),
        "expose" | "from" => Args::Words(blank_words(rest)),
        "healthcheck" => Args::Health(health(rest)?),
        "maintainer" | "stopsignal" | "user" | "workdir" => Args::Text(rest.to_owned()),
        "onbuild" if rest.is_empty() => Args::Trigger(None),
        // A chain is refused later; not reading it deeper keeps the stack flat.
        "onbuild" if !outer => Args::Unknown,
        "onbuild" => Args::Trigger(Some(Box::new(parse_nested(rest, escape, false)?))),
        _ => Args::Unknown,
    };
    Ok(Node {
        keyword: split.keyword.to_owned(),
        flags: split.flags,
        args,
        original: line.to_owned(),
        range: Range { start: 0, end: 0 },
        comments: Vec::new(),
        heredocs: Vec::new(),
    })
}

fn blank_words(rest: &str) -> Vec<String> {
    if rest.is_empty() { Vec::new() } else { words::split_blanks(rest) }
}

/// A JSON list of strings; None when the text is not a JSON list, which then counts as plain text.
fn json(rest: &str) -> Result<Option<Vec<String>>, ErrorKind> {
    if !rest.starts_with('[') {
        return Ok(None);
    }
    let Ok(list) = serde_json::from_str::<Vec<serde_json::Value>>(rest) else { return Ok(None) };
    list.into_iter()
        .map(|v| match v {
            serde_json::Value::String(s) => Ok(s),
            _ => Err(ErrorKind::JsonNotStrings),
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

fn command(rest: &str) -> Result<CommandLine, ErrorKind> {
    Ok(match json(rest)? {
        Some(list) => CommandLine::Exec(list),
        None => CommandLine::Shell(rest.to_owned()),
    })
}

fn health(rest: &str) -> Result<Option<(String, CommandLine)>, ErrorKind> {
    if rest.is_empty() {
        return Ok(None);
    }
    let (kind, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    Ok(Some((kind.to_owned(), command(after.trim_start())?)))
}

/// `k=v ...`, or the old `k v` when the first word has no `=`.
fn pairs(rest: &str, keyword: &'static str, escape: char) -> Result<Vec<Pair>, ErrorKind> {
    let words = words::quoted_words(rest, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let (key, value) = words::split_blank(rest).ok_or(ErrorKind::TwoArguments(keyword))?;
        return Ok(vec![Pair { key: key.to_owned(), value: value.to_owned(), legacy: true }]);
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) => Ok(Pair { key: key.to_owned(), value: value.to_owned(), legacy: false }),
            None => Err(ErrorKind::MissingEquals(word)),
        })
        .collect()
}
