//! Which sources a rule is about.

use kiln_llb::SourceOp;
use regex_lite::Regex;

/// What a source must be for a rule to count.
#[derive(Debug)]
pub(crate) struct Selector {
    pub(crate) identifier: String,
    pub(crate) pattern: Pattern,
    pub(crate) constraints: Vec<Constraint>,
}

/// How the identifier is compared, when it is not the same text anyway.
#[derive(Debug)]
pub(crate) enum Pattern {
    /// Not at all.
    Exact,
    /// Anything in it; what is found is what is replaced.
    Regex(Regex),
    /// All of it; each `*` is a group.
    Wildcard(Regex),
}

/// What an attribute must be. One that is not there is empty.
#[derive(Debug)]
pub(crate) struct Constraint {
    pub(crate) key: String,
    pub(crate) test: Test,
}

#[derive(Debug)]
pub(crate) enum Test {
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Selector {
    pub(crate) fn matches(&self, source: &SourceOp) -> bool {
        let holds = |c: &Constraint| c.holds(source.attrs.get(&c.key).map_or("", String::as_str));
        if !self.constraints.iter().all(holds) {
            return false;
        }
        self.identifier == source.identifier
            || match &self.pattern {
                Pattern::Exact => false,
                Pattern::Regex(regex) | Pattern::Wildcard(regex) => regex.is_match(&source.identifier),
            }
    }

    /// The replacement of an identifier that matched: `$1` and `${1}` are what was caught.
    pub(crate) fn fill(&self, identifier: &str, replacement: &str) -> String {
        match &self.pattern {
            Pattern::Exact => replacement.to_string(),
            Pattern::Regex(regex) => regex.replace_all(identifier, replacement).into_owned(),
            Pattern::Wildcard(regex) => match regex.captures(identifier) {
                Some(caught) => {
                    let mut filled = String::new();
                    caught.expand(replacement, &mut filled);
                    filled
                }
                None => identifier.to_string(),
            },
        }
    }
}

impl Constraint {
    fn holds(&self, value: &str) -> bool {
        match &self.test {
            Test::Equal(wanted) => value == wanted,
            Test::NotEqual(unwanted) => value != unwanted,
            Test::Matches(regex) => regex.is_match(value),
        }
    }
}
