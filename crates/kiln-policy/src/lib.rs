//! Source policies: which sources a build may use, and what it uses instead of some (spec llb-and-solver.md section 2).
//!
//! Pure: rules and a source in, a decision out. Rules are read once; every expression is compiled then, with a limit.

mod read;
mod selector;
#[cfg(test)]
mod tests;

use kiln_llb::SourceOp;
use kiln_proto::sourcepolicy;
use selector::Selector;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How often one source may be replaced before its rules are taken for a circle (BuildKit's limit).
const MAX_CONVERSIONS: usize = 20;

/// Policies in the order in which they are asked. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Policies(Vec<Arc<Policy>>);

/// Rules that are decided together: the last that allows or denies a source counts.
#[derive(Debug)]
struct Policy(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    selector: Selector,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Allow,
    Deny,
    /// The identifier may name what the selector caught; attributes are added.
    Convert {
        identifier: String,
        attrs: BTreeMap<String, String>,
    },
}

/// Why there is no decision for a source, or a bad one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A rule says no.
    #[error("source {0:?} denied by policy: source denied by policy")]
    Denied(String),
    /// Replacements do not end.
    #[error("too many mutations on a single source: too many operations")]
    Circle,
    /// What was sent is no policy.
    #[error("{0}")]
    Invalid(String),
}

/// What a policy did to a source.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Kept,
    Replaced,
}

impl Policies {
    /// Reads what came over the wire.
    ///
    /// # Errors
    /// [`PolicyError::Invalid`] for missing parts, unknown numbers, and expressions that are none or too large.
    pub fn read<'a>(
        policies: impl IntoIterator<Item = &'a sourcepolicy::Policy>,
    ) -> Result<Self, PolicyError> {
        read::policies(policies)
    }

    /// Whether no source is touched.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These, then those.
    #[must_use]
    pub fn then(&self, others: &Self) -> Self {
        Self(self.0.iter().chain(&others.0).cloned().collect())
    }

    /// Decides about a source. It is replaced until no rule replaces it any more.
    ///
    /// # Errors
    /// If it is denied, or replaced without end.
    pub fn apply(&self, source: &mut SourceOp) -> Result<(), PolicyError> {
        for _ in 0..=MAX_CONVERSIONS {
            if self.pass(source)? == Step::Kept {
                return Ok(());
            }
        }
        Err(PolicyError::Circle)
    }

    /// After a replacement all policies are asked again.
    fn pass(&self, source: &mut SourceOp) -> Result<Step, PolicyError> {
        for policy in &self.0 {
            if policy.pass(source)? == Step::Replaced {
                return Ok(Step::Replaced);
            }
        }
        Ok(Step::Kept)
    }
}

impl Policy {
    fn pass(&self, source: &mut SourceOp) -> Result<Step, PolicyError> {
        let mut denied = false;
        for rule in &self.0 {
            if !rule.selector.matches(source) {
                continue;
            }
            match &rule.action {
                Action::Allow => denied = false,
                Action::Deny => denied = true,
                Action::Convert { identifier, attrs } => {
                    let identifier = rule.selector.fill(&source.identifier, identifier);
                    if replace(source, identifier, attrs) == Step::Replaced {
                        return Ok(Step::Replaced);
                    }
                }
            }
        }
        if denied { Err(PolicyError::Denied(source.identifier.clone())) } else { Ok(Step::Kept) }
    }
}

fn replace(source: &mut SourceOp, identifier: String, attrs: &BTreeMap<String, String>) -> Step {
    let mut step = Step::Kept;
    if !identifier.is_empty() && identifier != source.identifier {
        source.identifier = identifier;
        step = Step::Replaced;
    }
    for (key, value) in attrs {
        // As in maps of Go programs, no value is an empty one.
        if source.attrs.get(key).map_or("", String::as_str) != value {
            source.attrs.insert(key.clone(), value.clone());
            step = Step::Replaced;
        }
    }
    step
}
