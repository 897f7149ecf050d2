//! Policies from the wire.

use crate::selector::{Constraint, Pattern, Selector, Test};
use crate::{Action, Policies, Policy, PolicyError, Rule};
use kiln_proto::sourcepolicy::{self as wire, AttrMatch, MatchType, PolicyAction};
use regex_lite::{Regex, RegexBuilder};
use std::sync::Arc;

/// Most rules together.
const MAX_RULES: usize = 100_000;
/// Most expressions together, wildcards included, and the bytes that one may take when compiled.
const MAX_EXPRESSIONS: usize = 1000;
const MAX_EXPRESSION: usize = 256 << 10;

/// Counts what has been read.
#[derive(Default)]
struct Reader {
    rules: usize,
    expressions: usize,
}

fn invalid(message: impl Into<String>) -> PolicyError {
    PolicyError::Invalid(message.into())
}

pub(crate) fn policies<'a>(
    policies: impl IntoIterator<Item = &'a wire::Policy>,
) -> Result<Policies, PolicyError> {
    let mut reader = Reader::default();
    let mut read = Vec::new();
    for policy in policies.into_iter().filter(|p| !p.rules.is_empty()) {
        let rules: Result<_, _> = policy.rules.iter().map(|rule| reader.rule(rule)).collect();
        read.push(Arc::new(Policy(rules?)));
    }
    Ok(Policies(read))
}

impl Reader {
    fn rule(&mut self, rule: &wire::Rule) -> Result<Rule, PolicyError> {
        self.rules += 1;
        if self.rules > MAX_RULES {
            return Err(invalid(format!("source policy: more than {MAX_RULES} rules")));
        }
        let selector = rule.selector.as_ref().ok_or_else(|| invalid("invalid nil selector in policy"))?;
        let action = match PolicyAction::try_from(rule.action) {
            Ok(PolicyAction::Allow) => Action::Allow,
            Ok(PolicyAction::Deny) => Action::Deny,
            Ok(PolicyAction::Convert) => convert(rule, selector)?,
            Err(_) => {
                let text = format!("source policy: rule {} {}", rule.action, selector.identifier);
                return Err(invalid(format!("{text}: unknown type")));
            }
        };
        Ok(Rule { selector: self.selector(selector)?, action })
    }

    fn selector(&mut self, selector: &wire::Selector) -> Result<Selector, PolicyError> {
        let identifier = selector.identifier.clone();
        let pattern = match MatchType::try_from(selector.match_type) {
            Ok(MatchType::Exact) => Pattern::Exact,
            Ok(MatchType::Regex) => Pattern::Regex(self.expression(&identifier)?),
            Ok(MatchType::Wildcard) => self.wildcard(&identifier)?,
            Err(_) => {
                return Err(invalid(format!("source policy: unknown match type {}", selector.match_type)));
            }
        };
        let constraints =
            selector.constraints.iter().map(|c| self.constraint(c)).collect::<Result<_, _>>()?;
        Ok(Selector { identifier, pattern, constraints })
    }

    /// Most are pins of complete names, which need no expression: but what they are replaced with is then taken as it is.
    fn wildcard(&mut self, text: &str) -> Result<Pattern, PolicyError> {
        if text.contains("**") {
            return Err(invalid(format!(
                "failed to translate wildcard {text:?} to regexp: invalid wildcard: \"**\""
            )));
        }
        if !text.contains('*') {
            return Ok(Pattern::Exact);
        }
        let parts: Vec<_> = text.split('*').map(regex_lite::escape).collect();
        self.expression(&format!("^{}$", parts.join("(.*)"))).map(Pattern::Wildcard)
    }

    fn constraint(&mut self, c: &wire::AttrConstraint) -> Result<Constraint, PolicyError> {
        let test = match AttrMatch::try_from(c.condition) {
            Ok(AttrMatch::Equal) => Test::Equal(c.value.clone()),
            Ok(AttrMatch::Notequal) => Test::NotEqual(c.value.clone()),
            Ok(AttrMatch::Matches) => Test::Matches(self.expression(&c.value)?),
            Err(_) => return Err(invalid(format!("unknown attr condition: {}", c.condition))),
        };
        Ok(Constraint { key: c.key.clone(), test })
    }

    fn expression(&mut self, text: &str) -> Result<Regex, PolicyError> {
        self.expressions += 1;
        if self.expressions > MAX_EXPRESSIONS {
            return Err(invalid(format!("source policy: more than {MAX_EXPRESSIONS} patterns")));
        }
        let read = RegexBuilder::new(text).size_limit(MAX_EXPRESSION).build();
        read.map_err(|e| invalid(format!("error matching source policy: invalid regex {text:?}: {e}")))
    }
}

fn convert(rule: &wire::Rule, selector: &wire::Selector) -> Result<Action, PolicyError> {
    let updates = rule.updates.as_ref();
    let updates = updates
        .ok_or_else(|| invalid("error mutating source policy: missing destination for convert rule"))?;
    let identifier = match updates.identifier.as_str() {
        "" => selector.identifier.clone(),
        text => text.to_string(),
    };
    let attrs = updates.attrs.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok(Action::Convert { identifier, attrs })
}
