//! Source policies: which sources a build may use, and what it uses instead of some.

use std::collections::BTreeMap;

use kiln_proto::sourcepolicy::{
    AttrConstraint, AttrMatch, MatchType, Policy, PolicyAction, Rule, Selector, Update,
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A policy that goes with a build.
#[derive(Clone, Debug, PartialEq)]
pub struct SourcePolicy(Policy);

impl SourcePolicy {
    /// Reads the JSON form: `{"rules": [{"action": "DENY", "selector": {"identifier": ..}}]}`. A key that is not known
    /// is an error: a rule that is not understood must not be skipped.
    pub fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice::<PolicyJson>(text).map(|p| Self(p.into()))
    }

    pub(crate) fn wire(&self) -> &Policy {
        &self.0
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyJson {
    #[serde(default)]
    version: i64,
    #[serde(default)]
    rules: Vec<RuleJson>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleJson {
    #[serde(default, deserialize_with = "action")]
    action: i32,
    selector: Option<SelectorJson>,
    updates: Option<UpdateJson>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectorJson {
    #[serde(default)]
    identifier: String,
    #[serde(default, alias = "matchType", deserialize_with = "match_type")]
    match_type: i32,
    #[serde(default)]
    constraints: Vec<ConstraintJson>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConstraintJson {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default, deserialize_with = "condition")]
    condition: i32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateJson {
    #[serde(default)]
    identifier: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

/// A name or a number of an enumeration.
fn member<'de, D: Deserializer<'de>>(
    from: D,
    kind: &str,
    by_name: impl Fn(&str) -> Option<i32>,
    by_number: impl Fn(i32) -> bool,
) -> Result<i32, D::Error> {
    let value = Value::deserialize(from)?;
    let found = match &value {
        Value::String(name) => by_name(name),
        Value::Number(n) => n.as_i64().and_then(|n| i32::try_from(n).ok()).filter(|n| by_number(*n)),
        _ => None,
    };
    found.ok_or_else(|| serde::de::Error::custom(format!("invalid {kind} value: {value}")))
}

fn action<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    let name = |n: &str| PolicyAction::from_str_name(n).map(Into::into);
    member(from, "PolicyAction", name, |n| PolicyAction::try_from(n).is_ok())
}

fn match_type<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    let name = |n: &str| MatchType::from_str_name(n).map(Into::into);
    member(from, "MatchType", name, |n| MatchType::try_from(n).is_ok())
}

fn condition<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    let name = |n: &str| AttrMatch::from_str_name(n).map(Into::into);
    member(from, "AttrMatch", name, |n| AttrMatch::try_from(n).is_ok())
}

impl From<PolicyJson> for Policy {
    fn from(p: PolicyJson) -> Self {
        let constraint =
            |c: ConstraintJson| AttrConstraint { key: c.key, value: c.value, condition: c.condition };
        let selector = |s: SelectorJson| Selector {
            identifier: s.identifier,
            match_type: s.match_type,
            constraints: s.constraints.into_iter().map(constraint).collect(),
        };
        let update =
            |u: UpdateJson| Update { identifier: u.identifier, attrs: u.attrs.into_iter().collect() };
        let rule = |r: RuleJson| Rule {
            action: r.action,
            selector: r.selector.map(selector),
            updates: r.updates.map(update),
        };
        Self { version: p.version, rules: p.rules.into_iter().map(rule).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read_and_unknown_keys_refused() {
        let text =
            br#"{"rules":[{"action":"DENY","selector":{"identifier":"docker-image://*","match_type":1}},
            {"action":2,"selector":{"identifier":"a"},"updates":{"identifier":"b","attrs":{"k":"v"}}}]}"#;
        let SourcePolicy(policy) = SourcePolicy::from_json(text).unwrap();
        assert_eq!((policy.rules[0].action, policy.rules[1].action), (1, 2));
        assert_eq!(policy.rules[0].selector.as_ref().unwrap().match_type, 1);
        assert_eq!(policy.rules[1].updates.as_ref().unwrap().attrs["k"], "v");
        for text in [r#"{"rule":[]}"#, r#"{"rules":[{"action":"NO"}]}"#, r#"{"rules":[{"action":9}]}"#] {
            assert!(SourcePolicy::from_json(text.as_bytes()).is_err(), "{text}");
        }
    }
}
