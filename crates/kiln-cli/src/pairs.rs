//! Comma-separated `key=value` lists, as `--output` and `--secret` have them.

use crate::error::CliError;
use kiln_dockerfile::nearest;
use kiln_go::csv;

/// The fields of one flag value.
#[derive(Debug)]
pub struct Pairs<'a> {
    flag: &'static str,
    text: &'a str,
    pairs: Vec<(String, String)>,
}

impl<'a> Pairs<'a> {
    /// Splits a value; keys become lower case.
    pub fn parse(flag: &'static str, text: &'a str) -> Result<Self, CliError> {
        let wrong = |why: String| CliError::Value { flag, value: text.to_owned(), why };
        let fields = csv::fields(text).map_err(|e| wrong(e.to_string()))?;
        let pairs = fields.into_iter().map(|field| match field.split_once('=') {
            Some((key, value)) => Ok((key.trim().to_lowercase(), value.to_owned())),
            None => Err(wrong(format!("field '{field}' must be key=value"))),
        });
        Ok(Self { flag, text, pairs: pairs.collect::<Result<_, _>>()? })
    }

    /// Takes a key's last value out; several names may mean the same key.
    pub fn take(&mut self, names: &[&str]) -> Option<String> {
        let mut found = None;
        self.pairs.retain(|(key, value)| {
            let matches = names.contains(&key.as_str());
            if matches {
                found = Some(value.clone());
            }
            !matches
        });
        found
    }

    /// An error about this value.
    pub fn wrong(&self, why: impl Into<String>) -> CliError {
        CliError::Value { flag: self.flag, value: self.text.to_owned(), why: why.into() }
    }

    /// What is left, every key of which must be known, itself or by its prefix that ends in a dot.
    pub fn rest(self, known: &[&str], prefixes: &[&str]) -> Result<Vec<(String, String)>, CliError> {
        for (key, _) in &self.pairs {
            let is_known = known.contains(&key.as_str()) || prefixes.iter().any(|p| key.starts_with(p));
            if !is_known {
                return Err(self.wrong(unknown("key", key, known)));
            }
        }
        Ok(self.pairs)
    }
}

/// `unknown key 'x' (did you mean y?); known: a, b`.
pub fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    let hint = nearest(word, known, false).map(|n| format!(" (did you mean {n}?)")).unwrap_or_default();
    format!("unknown {what} '{word}'{hint}; known: {}", known.join(", "))
}
