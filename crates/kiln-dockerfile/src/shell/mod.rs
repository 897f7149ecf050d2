//! Variable expansion and word splitting (spec dockerfile.md section 3).

mod lex;
mod pattern;

pub use lex::{Expansion, Lex};

use kiln_go::quote;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Where values of variables come from.
pub trait Env {
    /// The value, or None when the variable is not set.
    fn get(&self, name: &str) -> Option<&str>;
}

/// An environment with nothing in it.
#[derive(Clone, Copy, Debug)]
pub struct NoEnv;

impl Env for NoEnv {
    fn get(&self, _: &str) -> Option<&str> {
        None
    }
}

impl<S: std::hash::BuildHasher> Env for HashMap<String, String, S> {
    fn get(&self, name: &str) -> Option<&str> {
        HashMap::get(self, name).map(String::as_str)
    }
}

impl Env for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).map(String::as_str)
    }
}

/// Pairs in order; the last one of a name counts.
impl Env for [(String, String)] {
    fn get(&self, name: &str) -> Option<&str> {
        self.iter().rev().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}

/// Pairs in order; the last one of a name counts.
impl Env for Vec<(String, String)> {
    fn get(&self, name: &str) -> Option<&str> {
        Env::get(self.as_slice(), name)
    }
}

impl<E: Env + ?Sized> Env for &E {
    fn get(&self, name: &str) -> Option<&str> {
        (**self).get(name)
    }
}

/// A word that cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {}: {reason}", quote(.word))]
pub struct ExpandError {
    /// The word as written.
    pub word: String,
    /// What is wrong with it.
    pub reason: ExpandReason,
    /// Names that were looked up and not found before that.
    pub unmatched: BTreeSet<String>,
}

/// Why a word cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum ExpandReason {
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    #[error("{name}: {message}")]
    Required { name: String, message: String },
    #[error("invalid pattern ({pattern}) in substitution: invalid escape '\\{escaped}'")]
    Pattern { pattern: String, escaped: char },
    #[error("unexpected end of statement while looking for matching double-quote")]
    DoubleQuote,
    #[error("unexpected end of statement while looking for matching single-quote")]
    SingleQuote,
    #[error("substitutions are nested more than {0} deep")]
    Nesting(usize),
    #[error("result is larger than {0} bytes")]
    TooLarge(usize),
}
