//! Checking the flags of an instruction (spec dockerfile.md section 2, builder flags).

use crate::error::{ErrorKind, Hint};
use crate::suggest::nearest;

/// What values a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlagType {
    Bool,
    Text,
    /// May be repeated.
    List,
}

/// Flags with their values, in the order given.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    values: Vec<(&'static str, String)>,
}

impl Flags {
    /// Checks flags against those that the instruction knows.
    pub(crate) fn parse(given: &[String], known: &[(&'static str, FlagType)]) -> Result<Self, ErrorKind> {
        let mut flags = Self::default();
        for flag in given {
            let body = flag.strip_prefix("--").unwrap_or(flag);
            let (name, value) = body.split_once('=').map_or((body, None), |(n, v)| (n, Some(v)));
            let Some((name, kind)) = known.iter().find(|(k, _)| *k == name) else {
                let names: Vec<&str> = known.iter().map(|(k, _)| *k).collect();
                let hint = Hint(nearest(name, &names, false));
                return Err(ErrorKind::UnknownFlag { name: name.to_owned(), hint });
            };
            if *kind != FlagType::List && flags.has(name) {
                return Err(ErrorKind::DuplicateFlag((*name).to_owned()));
            }
            flags.values.push((name, check(name, *kind, value)?));
        }
        Ok(flags)
    }

    fn has(&self, name: &str) -> bool {
        self.values.iter().any(|(n, _)| *n == name)
    }

    /// The value of a text flag; an empty one counts as not given.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.values.iter().find(|(n, v)| *n == name && !v.is_empty()).map(|(_, v)| v.clone())
    }

    /// The value of a boolean flag, when it was given.
    pub(crate) fn bool(&self, name: &str) -> Option<bool> {
        self.values.iter().find(|(n, _)| *n == name).map(|(_, v)| v == "true")
    }

    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        self.values.iter().filter(|(n, _)| *n == name).map(|(_, v)| v.clone()).collect()
    }
}

fn check(name: &str, kind: FlagType, value: Option<&str>) -> Result<String, ErrorKind> {
    let missing = || ErrorKind::FlagValue(name.to_owned());
    if kind != FlagType::Bool {
        return value.map(str::to_owned).ok_or_else(missing);
    }
    let Some(value) = value else { return Ok("true".into()) };
    match value.to_lowercase().as_str() {
        "" => Err(missing()),
        known @ ("true" | "false") => Ok(known.to_owned()),
        _ => Err(ErrorKind::FlagBool { name: name.to_owned(), value: value.to_owned() }),
    }
}

/// The names of the flags used, each once.
pub(crate) fn names(given: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for flag in given {
        let body = flag.strip_prefix("--").unwrap_or(flag);
        let name = body.split_once('=').map_or(body, |(n, _)| n);
        if !names.iter().any(|n| n == name) {
            names.push(name.to_owned());
        }
    }
    names
}
