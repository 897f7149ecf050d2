use super::*;
use kiln_proto::sourcepolicy::{
    self as wire, AttrConstraint, AttrMatch, MatchType, PolicyAction, Selector, Update,
};

fn rule(action: PolicyAction, kind: MatchType, identifier: &str) -> wire::Rule {
    let selector = Selector { identifier: identifier.into(), match_type: kind.into(), ..Selector::default() };
    wire::Rule { action: action.into(), selector: Some(selector), ..wire::Rule::default() }
}

fn convert(kind: MatchType, from: &str, to: &str) -> wire::Rule {
    let updates = Some(Update { identifier: to.into(), ..Update::default() });
    wire::Rule { updates, ..rule(PolicyAction::Convert, kind, from) }
}

fn read(policies: &[&[wire::Rule]]) -> Result<Policies, PolicyError> {
    let wire: Vec<_> =
        policies.iter().map(|rules| wire::Policy { rules: rules.to_vec(), ..Default::default() }).collect();
    Policies::read(&wire)
}

fn source(identifier: &str) -> SourceOp {
    SourceOp { identifier: identifier.into(), attrs: BTreeMap::new() }
}

fn applied(policies: &[&[wire::Rule]], identifier: &str) -> Result<String, PolicyError> {
    let mut op = source(identifier);
    read(policies)?.apply(&mut op)?;
    Ok(op.identifier)
}

const ALLOW: PolicyAction = PolicyAction::Allow;
const DENY: PolicyAction = PolicyAction::Deny;
const WILD: MatchType = MatchType::Wildcard;
const EXACT: MatchType = MatchType::Exact;
const REGEX: MatchType = MatchType::Regex;

#[test]
fn the_last_rule_of_a_policy_decides_and_every_policy_may_deny() {
    let (allow, deny) = (rule(ALLOW, WILD, "docker-image://a:*"), rule(DENY, WILD, "docker-image://*"));
    let x = "docker-image://a:1";
    assert_eq!(applied(&[&[deny.clone(), allow.clone()]], x).unwrap(), x);
    let denial = PolicyError::Denied(x.into());
    let denied = Err(denial.clone());
    assert_eq!(applied(&[&[allow.clone(), deny.clone()]], x), denied);
    assert_eq!(applied(&[&[deny], &[allow]], x), denied);
    assert_eq!(applied(&[&[rule(DENY, EXACT, x)]], "docker-image://a:2").unwrap(), "docker-image://a:2");
    assert_eq!(denial.to_string(), "source \"docker-image://a:1\" denied by policy: source denied by policy");
}

#[test]
fn a_replacement_may_use_what_was_caught() {
    let wild = convert(WILD, "docker-image://docker.io/*/*:*", "docker-image://mirror/${1}/$2:${3}-x");
    assert_eq!(
        applied(&[&[wild]], "docker-image://docker.io/library/a:1").unwrap(),
        "docker-image://mirror/library/a:1-x"
    );
    let regex = convert(REGEX, r"^https://([^/]+)/(\d+)$", "https://m/$1/$2/");
    assert_eq!(applied(&[&[regex]], "https://h.example/12").unwrap(), "https://m/h.example/12/");
    // A dot in a wildcard is a dot; without a star it is the whole name.
    let dots = convert(WILD, "https://a.b/", "https://c/");
    assert_eq!(applied(&[&[dots]], "https://aXb/").unwrap(), "https://aXb/");
    // An exact name takes the text as it is.
    assert_eq!(
        applied(&[&[convert(EXACT, "https://a", "https://b/$1")]], "https://a").unwrap(),
        "https://b/$1"
    );
}

#[test]
fn what_was_replaced_is_asked_about_again() {
    let rules = [convert(EXACT, "https://a", "https://b"), rule(DENY, EXACT, "https://b")];
    assert_eq!(applied(&[&rules], "https://a"), Err(PolicyError::Denied("https://b".into())));
    let circle = [convert(EXACT, "https://a", "https://b"), convert(EXACT, "https://b", "https://a")];
    assert_eq!(applied(&[&circle], "https://a"), Err(PolicyError::Circle));
    // A replacement with itself is none, and does not end the search.
    let same = [convert(EXACT, "https://a", "https://a"), rule(DENY, EXACT, "https://a")];
    assert!(applied(&[&same], "https://a").is_err());
}

#[test]
fn attributes_are_asked_for_and_added() {
    let constrained = |condition: AttrMatch, value: &str| {
        let mut r = rule(DENY, WILD, "git://*");
        let constraint = AttrConstraint { key: "k".into(), value: value.into(), condition: condition.into() };
        r.selector.as_mut().unwrap().constraints.push(constraint);
        let mut op = source("git://h/r");
        op.attrs.insert("k".into(), "value".into());
        read(&[&[r]]).unwrap().apply(&mut op).is_err()
    };
    assert!(constrained(AttrMatch::Equal, "value") && !constrained(AttrMatch::Equal, "v"));
    assert!(!constrained(AttrMatch::Notequal, "value") && constrained(AttrMatch::Notequal, "v"));
    assert!(constrained(AttrMatch::Matches, "^v.l") && !constrained(AttrMatch::Matches, "^a"));
    let attrs = [("http.checksum".to_string(), "sha256:1".to_string())].into();
    let pin = wire::Rule {
        updates: Some(Update { attrs, ..Update::default() }),
        ..rule(PolicyAction::Convert, EXACT, "https://a")
    };
    let mut op = source("https://a");
    read(&[&[pin]]).unwrap().apply(&mut op).unwrap();
    assert_eq!((op.identifier.as_str(), op.attrs["http.checksum"].as_str()), ("https://a", "sha256:1"));
}

#[test]
fn what_is_missing_or_unknown_is_named() {
    let wrong = |rule: wire::Rule| read(&[&[rule]]).unwrap_err().to_string();
    assert_eq!(wrong(wire::Rule::default()), "invalid nil selector in policy");
    assert!(wrong(rule(PolicyAction::Convert, EXACT, "x")).contains("missing destination for convert rule"));
    let mut unknown = rule(ALLOW, EXACT, "x");
    unknown.action = 9000;
    assert!(wrong(unknown).contains("unknown type"));
    let mut unknown = rule(ALLOW, EXACT, "x");
    unknown.selector.as_mut().unwrap().match_type = 77;
    assert!(wrong(unknown).contains("unknown match type 77"));
    let mut unknown = rule(ALLOW, EXACT, "x");
    let constraint = AttrConstraint { condition: -1, ..AttrConstraint::default() };
    unknown.selector.as_mut().unwrap().constraints.push(constraint);
    assert!(wrong(unknown).contains("unknown attr condition: -1"));
    assert!(wrong(rule(DENY, WILD, "a**")).contains("invalid wildcard"));
    assert!(wrong(rule(DENY, REGEX, "(")).contains("invalid regex \"(\""));
    assert!(wrong(rule(DENY, REGEX, "(x{900}){900}")).contains("invalid regex"));
    assert!(read(&[&vec![rule(DENY, REGEX, "a"); 1001]]).is_err());
    assert!(read(&[&[]]).unwrap().is_empty());
}

#[test]
fn a_replacement_does_not_reach_what_is_denied() {
    let deny = rule(DENY, EXACT, "https://denied/x");
    let to_denied = convert(EXACT, "https://a/x", "https://denied/x");
    let denied = Err(PolicyError::Denied("https://denied/x".into()));
    assert_eq!(applied(&[&[deny.clone(), to_denied.clone()]], "https://a/x"), denied);
    assert_eq!(applied(&[&[to_denied], &[deny]], "https://a/x"), denied);
}
