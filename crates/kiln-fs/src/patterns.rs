//! The pattern languages of `.dockerignore`, `--exclude` and COPY sources.
//!
//! [`Matcher`] decides as Docker's pattern matcher does (ordered patterns, `!` exceptions, `**`, a matching parent
//! matches its content); [`go_match`] is Go's `filepath.Match`. Paths are bytes: names need not be UTF-8.

mod expression;
mod glob;
mod ignorefile;
mod program;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub use self::glob::go_match;
pub use self::ignorefile::read_ignore_file;
use self::program::Program;

/// A pattern or a list of patterns that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Malformed, e.g. an open `[`.
    #[error("syntax error in pattern")]
    Syntax,
    /// `!` with nothing behind it.
    #[error("illegal exclusion pattern: \"!\"")]
    LoneExclusion,
    /// A line of an ignore file beyond 64 KiB.
    #[error("line {0} of the ignore file is too long")]
    LineTooLong(usize),
}

/// One pattern of a [`Matcher`].
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    exclusion: bool,
    rule: Rule,
}

/// How a pattern is compared; the cheap forms cover most ignore files.
#[derive(Debug, Clone)]
enum Rule {
    Exact,
    /// `text**` at the end.
    Prefix(usize),
    /// `**text` at the start.
    Suffix,
    Program(Program),
    /// Passes the first check but cannot be compiled: an error when it is used.
    Bad,
}

impl Pattern {
    fn parse(text: &str) -> Result<Option<Pattern>, PatternError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let text = kiln_go::path::clean(text);
        let (exclusion, text) = match text.strip_prefix('!') {
            Some("") => return Err(PatternError::LoneExclusion),
            Some(rest) => (true, rest.to_string()),
            None => (false, text),
        };
        // Cleaning happens before `!` is cut off, as in the original: "!./x" keeps its dot.
        go_match(text.as_bytes(), b".")?;
        let rule = expression::compile(&text);
        Ok(Some(Pattern { text, exclusion, rule }))
    }

    /// The pattern, cleaned, without `!`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is an exception (`!`).
    pub fn is_exclusion(&self) -> bool {
        self.exclusion
    }

    fn matches(&self, path: &[u8]) -> Result<bool, PatternError> {
        let text = self.text.as_bytes();
        match &self.rule {
            Rule::Exact => Ok(path == text),
            Rule::Prefix(len) => Ok(path.starts_with(&text[..*len])),
            Rule::Suffix => {
                let suffix = &text[2..];
                Ok(path.ends_with(suffix) || (suffix.first() == Some(&b'/') && path == &suffix[1..]))
            }
            Rule::Program(p) => Ok(p.matches(path)),
            Rule::Bad => Err(PatternError::Syntax),
        }
    }

    /// Whether something below a directory could match; errs on the side of yes.
    fn may_match_below(&self, dir: &[u8]) -> bool {
        // A class can match a slash, an escape can be anything: elements cannot be told apart then.
        if self.text.contains(['[', '\\', '^']) {
            return true;
        }
        let mut wanted = self.text.as_bytes().split(|&b| b == b'/');
        for element in dir.split(|&b| b == b'/') {
            match wanted.next() {
                // It ends at or above the directory: what it matches, it has matched already.
                None => return false,
                Some(w) if w.windows(2).any(|pair| pair == b"**") => return true,
                Some(w) if go_match(w, element) == Ok(false) => return false,
                Some(_) => {}
            }
        }
        wanted.next().is_some()
    }

    /// Whether the path or one of its parent directories matches.
    fn matches_or_parent(&self, path: &[u8]) -> Result<bool, PatternError> {
        if self.matches(path)? {
            return Ok(true);
        }
        for (at, _) in path.iter().enumerate().filter(|&(at, &b)| b == b'/' && at > 0) {
            if self.matches(&path[..at])? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Which patterns matched a directory; handed down to its entries so that they need not look at parents again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MatchInfo {
    matched: Vec<bool>,
}

/// An ordered list of patterns; the last one that applies decides.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    patterns: Vec<Pattern>,
    exclusions: bool,
}

impl Matcher {
    /// Parses patterns. Blank ones are skipped; `!pattern` takes back what earlier patterns matched.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Matcher, PatternError> {
        let mut matcher = Matcher::default();
        for text in patterns {
            if let Some(p) = Pattern::parse(text.as_ref())? {
                matcher.exclusions |= p.exclusion;
                matcher.patterns.push(p);
            }
        }
        Ok(matcher)
    }

    /// Whether there is any `!` pattern: only then can something below a matching directory be left unmatched.
    pub fn has_exclusions(&self) -> bool {
        self.exclusions
    }

    /// Whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The patterns in order.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Whether a directory that does not match may hold something that does. A walk need not enter it if not.
    pub fn may_match_below(&self, dir: impl AsRef<Path>) -> bool {
        let dir = dir.as_ref().as_os_str().as_bytes();
        self.patterns.iter().any(|p| !p.exclusion && p.may_match_below(dir))
    }

    /// Whether a directory that matches may hold something that does not, because of a `!` pattern.
    pub fn may_except_below(&self, dir: impl AsRef<Path>) -> bool {
        let dir = dir.as_ref().as_os_str().as_bytes();
        self.exclusions && self.patterns.iter().any(|p| p.exclusion && p.may_match_below(dir))
    }

    /// Whether the path (relative, clean) matches, its parents considered.
    pub fn matches(&self, path: impl AsRef<Path>) -> Result<bool, PatternError> {
        let path = path.as_ref().as_os_str().as_bytes();
        let mut matched = false;
        for p in &self.patterns {
            // An inclusion cannot change a match, an exception cannot change a miss.
            if p.exclusion == matched && p.matches_or_parent(path)? {
                matched = !p.exclusion;
            }
        }
        Ok(matched)
    }

    /// [`Matcher::matches`] for a walk: `parent` is what this returned for the directory, and `None` at the top, where
    /// the parents are looked at once.
    pub fn matches_below(
        &self,
        path: impl AsRef<Path>,
        parent: Option<&MatchInfo>,
    ) -> Result<(bool, MatchInfo), PatternError> {
        let path: &OsStr = path.as_ref().as_os_str();
        let path = path.as_bytes();
        let known = parent.map(|p| p.matched.as_slice()).filter(|m| m.len() == self.patterns.len());
        let mut info = MatchInfo { matched: vec![false; self.patterns.len()] };
        let mut matched = false;
        for (i, p) in self.patterns.iter().enumerate() {
            let hit = match known {
                Some(known) if known[i] => true,
                _ if p.exclusion != matched => continue,
                Some(_) => p.matches(path)?,
                None => p.matches_or_parent(path)?,
            };
            info.matched[i] = hit;
            if hit {
                matched = !p.exclusion;
            }
        }
        Ok((matched, info))
    }
}

#[cfg(test)]
mod tests;
