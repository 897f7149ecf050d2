//! The lexer.

use super::pattern::{Length, Pattern};
use super::{Env, ExpandError, ExpandReason as Reason};
use std::collections::BTreeSet;

/// Nesting of `${a:-${b:-...}}`: lines are of any length, the stack is not.
const MAX_DEPTH: usize = 100;
/// A result larger than this is refused: doubling a variable forty times is forty short lines.
const MAX_RESULT: usize = 16 << 20;
/// What a missing character looks like in messages.
const END: char = '\u{fffd}';

/// Expands `$name` and `${...}` and processes quotes, like a shell.
#[derive(Clone, Copy, Debug)]
pub struct Lex {
    escape: char,
    raw_quotes: bool,
    raw_escapes: bool,
    skip_quotes: bool,
    skip_unset: bool,
}

/// A processed word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The text.
    pub text: String,
    /// The text split at unquoted blanks; splitting happens after substitution.
    pub words: Vec<String>,
    /// Names that were looked up and found.
    pub matched: BTreeSet<String>,
    /// Names that were looked up and not found, also where the value did not matter.
    pub unmatched: BTreeSet<String>,
}

impl Lex {
    /// A lexer with the file's escape character.
    pub fn new(escape: char) -> Self {
        Self { escape, raw_quotes: false, raw_escapes: false, skip_quotes: false, skip_unset: false }
    }

    /// Quotes still quote but stay in the result.
    pub fn raw_quotes(self, on: bool) -> Self {
        Self { raw_quotes: on, ..self }
    }

    /// Escape characters still escape but stay in the result.
    pub fn raw_escapes(self, on: bool) -> Self {
        Self { raw_escapes: on, ..self }
    }

    /// Quotes are ordinary characters (heredoc bodies).
    pub fn skip_quotes(self, on: bool) -> Self {
        Self { skip_quotes: on, ..self }
    }

    /// Substitutions of unset variables stay as they are written (displayed names).
    pub fn skip_unset(self, on: bool) -> Self {
        Self { skip_unset: on, ..self }
    }

    /// Expands a word; blanks stay.
    ///
    /// # Errors
    /// The text does not follow the rules, or a `${name:?text}` fails.
    pub fn process_word<E: Env + ?Sized>(&self, word: &str, env: &E) -> Result<Expansion, ExpandError> {
        let mut run = Run {
            lex: *self,
            rest: word.chars(),
            env: &|name| env.get(name).map(str::to_owned),
            raw_escapes: self.raw_escapes,
            depth: 0,
            out: Expansion::default(),
        };
        match run.until(None, self.raw_escapes) {
            Ok((text, words)) => Ok(Expansion { text, words, ..run.out }),
            Err(reason) => Err(ExpandError { word: word.to_owned(), reason, unmatched: run.out.unmatched }),
        }
    }

    /// Expands a word and splits it at unquoted blanks.
    ///
    /// # Errors
    /// As [`Lex::process_word`].
    pub fn process_words<E: Env + ?Sized>(&self, word: &str, env: &E) -> Result<Vec<String>, ExpandError> {
        self.process_word(word, env).map(|e| e.words)
    }
}

struct Run<'a> {
    lex: Lex,
    rest: std::str::Chars<'a>,
    env: &'a dyn Fn(&str) -> Option<String>,
    raw_escapes: bool,
    depth: usize,
    out: Expansion,
}

/// Collects words while text is added.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    fn add(&mut self, c: char) {
        if !c.is_whitespace() {
            self.current.push(c);
        } else if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

impl Run<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn next(&mut self) -> Option<char> {
        self.rest.next()
    }

    fn next_if(&mut self, wanted: impl Fn(char) -> bool) -> Option<char> {
        let c = self.peek().filter(|c| wanted(*c))?;
        self.rest.next();
        Some(c)
    }

    /// Processes up to the end of the text or behind `stop`.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Vec<String>), Reason> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Reason::Nesting(MAX_DEPTH));
        }
        let outer = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        let result = self.until_inner(stop);
        self.raw_escapes = outer;
        self.depth -= 1;
        result
    }

    fn until_inner(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), Reason> {
        let (mut text, mut words) = (String::new(), Words::default());
        while let Some(c) = self.peek() {
            if stop == Some(c) {
                self.next();
                return Ok((text, words.finish()));
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    text.push_str(&value);
                    value.chars().for_each(|c| words.add(c));
                }
                '<' | '\'' | '"' if c == '<' || !self.lex.skip_quotes => {
                    let part = match c {
                        '<' => self.possible_heredoc(),
                        '"' => self.double_quoted()?,
                        _ => self.single_quoted()?,
                    };
                    text.push_str(&part);
                    words.current.push_str(&part);
                }
                _ => self.plain(&mut text, &mut words),
            }
            if text.len() > MAX_RESULT {
                return Err(Reason::TooLarge(MAX_RESULT));
            }
        }
        // The caller turns this into its own error: only substitutions have a stop.
        if stop.is_some() { Err(Reason::MissingBrace) } else { Ok((text, words.finish())) }
    }

    fn plain(&mut self, text: &mut String, words: &mut Words) {
        let Some(c) = self.next() else { return };
        if c != self.lex.escape {
            words.add(c);
            text.push(c);
            return;
        }
        if self.raw_escapes {
            words.current.push(c);
            text.push(c);
        }
        // An escape character at the end escapes nothing and is dropped.
        if let Some(c) = self.next() {
            words.current.push(c);
            text.push(c);
        }
    }

    fn single_quoted(&mut self) -> Result<String, Reason> {
        let mut out = String::new();
        let quote = self.next().filter(|_| self.lex.raw_quotes);
        out.extend(quote);
        loop {
            match self.next().ok_or(Reason::SingleQuote)? {
                '\'' => {
                    out.extend(quote);
                    return Ok(out);
                }
                c => out.push(c),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, Reason> {
        let mut out = String::new();
        let quote = self.next().filter(|_| self.lex.raw_quotes);
        out.extend(quote);
        loop {
            match self.peek().ok_or(Reason::DoubleQuote)? {
                '"' => {
                    self.next();
                    out.extend(quote);
                    return Ok(out);
                }
                '$' => out.push_str(&self.dollar()?),
                c if c == self.lex.escape => {
                    self.next();
                    if self.raw_escapes {
                        out.push(c);
                    }
                    match self.peek() {
                        None => {}
                        Some(n) if n == '"' || n == '$' || n == self.lex.escape => out.extend(self.next()),
                        Some(_) => out.push(c),
                    }
                }
                c => {
                    self.next();
                    out.push(c);
                }
            }
            if out.len() > MAX_RESULT {
                return Err(Reason::TooLarge(MAX_RESULT));
            }
        }
    }

    /// `<`, or `<<` with the blanks after it, which belong to the heredoc word.
    fn possible_heredoc(&mut self) -> String {
        self.next();
        if self.next_if(|c| c == '<').is_none() {
            return "<".into();
        }
        let mut out = String::from("<<");
        while let Some(c) = self.next_if(|c| matches!(c, '\t' | '\r' | ' ')) {
            out.push(c);
        }
        out
    }

    fn lookup(&mut self, name: &str) -> Option<String> {
        let value = (self.env)(name);
        let names = if value.is_some() { &mut self.out.matched } else { &mut self.out.unmatched };
        names.insert(name.to_owned());
        value
    }

    fn dollar(&mut self) -> Result<String, Reason> {
        self.next();
        if self.next_if(|c| c == '{').is_some() {
            return self.braces();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".into());
        }
        match self.lookup(&name) {
            Some(value) => Ok(value),
            None if self.lex.skip_unset => Ok(format!("${name}")),
            None => Ok(String::new()),
        }
    }

    fn braces(&mut self) -> Result<String, Reason> {
        match self.peek() {
            None => return Err(Reason::MissingBrace),
            Some('{' | '}' | ':') => return Err(Reason::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        let modifier = self.next();
        match modifier {
            Some('}') => match self.lookup(&name) {
                Some(value) => Ok(value),
                None if self.lex.skip_unset => Ok(format!("${{{name}}}")),
                None => Ok(String::new()),
            },
            Some(':') => {
                let c = self.next();
                self.with_word(&name, c, true)
            }
            Some('+' | '-' | '?' | '#' | '%') => self.with_word(&name, modifier, false),
            Some('/') => self.replace(&name),
            other => Err(Reason::Modifier(other.unwrap_or(END).to_string())),
        }
    }

    /// `${name-w}` and its relatives; `colon`: the empty value counts as unset.
    fn with_word(&mut self, name: &str, modifier: Option<char>, colon: bool) -> Result<String, Reason> {
        let c = modifier.unwrap_or(END);
        let shown = if colon { format!(":{c}") } else { c.to_string() };
        let is_pattern = matches!(c, '#' | '%');
        if colon && is_pattern {
            return Err(Reason::Modifier(shown));
        }
        let word = match self.until(Some('}'), is_pattern) {
            Ok((word, _)) => word,
            Err(_) if self.peek().is_none() => return Err(Reason::MissingBrace),
            Err(e) => return Err(e),
        };
        let value = self.lookup(name);
        if value.is_none() && self.lex.skip_unset {
            return Ok(format!("${{{name}{shown}{word}}}"));
        }
        let present = value.clone().filter(|v| !(colon && v.is_empty()));
        match c {
            '-' => Ok(present.unwrap_or(word)),
            '+' => Ok(present.map(|_| word).unwrap_or_default()),
            '?' => present.ok_or_else(|| {
                let state = if value.is_some() { "empty" } else { "unset" };
                let message = if word.is_empty() { format!("is not allowed to be {state}") } else { word };
                Reason::Required { name: name.to_owned(), message }
            }),
            '#' | '%' => trim(c, &word, &value.unwrap_or_default()),
            _ => Err(Reason::Modifier(shown)),
        }
    }

    /// `${name/p/r}` and `${name//p/r}`.
    fn replace(&mut self, name: &str) -> Result<String, Reason> {
        let all = self.next_if(|c| c == '/').is_some();
        let pattern = match self.until(Some('/'), true) {
            Ok((word, _)) => word,
            Err(_) if self.peek().is_none() => return Err(Reason::MissingSlash),
            Err(e) => return Err(e),
        };
        let replacement = match self.until(Some('}'), true) {
            Ok((word, _)) => word,
            Err(_) if self.peek().is_none() => return Err(Reason::MissingBrace),
            Err(e) => return Err(e),
        };
        let value = self.lookup(name);
        if value.is_none() && self.lex.skip_unset {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let value = value.unwrap_or_default();
        if all && replacement.len().saturating_mul(value.len() + 1) > MAX_RESULT {
            return Err(Reason::TooLarge(MAX_RESULT));
        }
        parse_pattern(&pattern)?.replace(&value, &replacement, all).map_err(|_| Reason::TooLarge(MAX_RESULT))
    }

    /// Digits only, one special parameter, or letters, digits and `_`; may be empty.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            // `0` is a digit first, so that `$0` and `$001` are read alike.
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.next_if(|c| c.is_ascii_digit()) {
                    name.push(c);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.next()),
            _ => {
                while let Some(c) = self.next_if(|c| c.is_alphanumeric() || c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }
}

fn trim(side: char, word: &str, value: &str) -> Result<String, Reason> {
    let (word, length) = match word.strip_prefix(side) {
        Some(rest) => (rest, Length::Longest),
        None => (word, Length::Shortest),
    };
    let pattern = parse_pattern(word)?;
    let result =
        if side == '#' { pattern.trim_prefix(value, length) } else { pattern.trim_suffix(value, length) };
    result.map_err(|_| Reason::TooLarge(MAX_RESULT))
}

fn parse_pattern(text: &str) -> Result<Pattern, Reason> {
    Pattern::parse(text).map_err(|escaped| Reason::Pattern { pattern: text.to_owned(), escaped })
}
