//! Source policies as they come over the wire. They are checked here; nothing applies them yet.

use kiln_proto::sourcepolicy::{AttrMatch, MatchType, Policy, PolicyAction, Rule};

/// Fails if a policy cannot be one: missing parts, and numbers that stand for nothing.
///
/// # Errors
/// What is wrong with it.
pub fn check(policy: &Policy) -> Result<(), String> {
    policy.rules.iter().try_for_each(check_rule)
}

fn check_rule(rule: &Rule) -> Result<(), String> {
    let selector = rule.selector.as_ref().ok_or("invalid nil selector in policy")?;
    if MatchType::try_from(selector.match_type).is_err() {
        return Err(format!("source policy: unknown match type {}", selector.match_type));
    }
    let unknown = selector.constraints.iter().find(|c| AttrMatch::try_from(c.condition).is_err());
    if let Some(constraint) = unknown {
        return Err(format!("source policy: unknown condition {}", constraint.condition));
    }
    match PolicyAction::try_from(rule.action) {
        Ok(PolicyAction::Convert) if rule.updates.is_none() => {
            Err("missing destination for convert rule".to_string())
        }
        Ok(_) => Ok(()),
        Err(_) => Err(format!("source policy: unknown type {}", rule.action)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_proto::sourcepolicy::{AttrConstraint, Selector, Update};

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let selector = || Some(Selector { identifier: "docker-image://*".into(), ..Selector::default() });
        let of = |rule: Rule| check(&Policy { rules: vec![rule], ..Policy::default() });
        assert_eq!(of(Rule::default()).unwrap_err(), "invalid nil selector in policy");
        let convert = Rule { action: PolicyAction::Convert.into(), selector: selector(), ..Rule::default() };
        assert_eq!(of(convert.clone()).unwrap_err(), "missing destination for convert rule");
        assert_eq!(of(Rule { updates: Some(Update::default()), ..convert }), Ok(()));
        let number = Rule { action: 9000, selector: selector(), ..Rule::default() };
        assert!(of(number).unwrap_err().contains("unknown type 9000"));
        let bad = Selector { match_type: 77, ..Selector::default() };
        assert!(of(Rule { selector: Some(bad), ..Rule::default() }).unwrap_err().contains("match type 77"));
        let constraints = vec![AttrConstraint { condition: -1, ..AttrConstraint::default() }];
        let bad = Selector { constraints, ..Selector::default() };
        assert!(of(Rule { selector: Some(bad), ..Rule::default() }).unwrap_err().contains("condition -1"));
        assert_eq!(check(&Policy::default()), Ok(()));
    }
}
