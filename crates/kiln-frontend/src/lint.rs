//! Build checks (spec dockerfile.md section 13): rules, their configuration, and what they found.

mod checks;
mod rules;

pub(crate) use checks::{
    from_platform, instructions, secret_key, undefined_in_from, whole, wrong_instruction,
};
pub(crate) use rules::Rule;

use crate::fail::{Fail, Result};
use kiln_dockerfile::Range;
use kiln_go::{parse_bool, quote};
use std::collections::BTreeSet;

/// A set of rules, or all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleSet {
    all: bool,
    names: BTreeSet<String>,
}

impl RuleSet {
    fn parse(value: &str) -> Self {
        let value = value.trim();
        if value == "all" {
            return RuleSet { all: true, names: BTreeSet::new() };
        }
        RuleSet { all: false, names: value.split(',').map(|r| r.trim().to_string()).collect() }
    }

    fn has(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }

    fn add(&mut self, other: &RuleSet) {
        self.all |= other.all;
        self.names.extend(other.names.iter().cloned());
    }
}

/// The value of a `check` directive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    skip: RuleSet,
    experimental: RuleSet,
    error: bool,
}

impl Config {
    pub(crate) fn parse(text: &str) -> std::result::Result<Config, String> {
        let mut config = Config::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(config);
        }
        for part in text.splitn(3, ';') {
            let (key, value) =
                part.split_once('=').ok_or_else(|| format!("invalid check option {}", quote(part)))?;
            match key.trim() {
                "skip" => config.skip = RuleSet::parse(value),
                "experimental" => config.experimental = RuleSet::parse(value),
                "error" => {
                    let bad = || format!("failed to parse check option {}: invalid syntax", quote(part));
                    config.error = parse_bool(value.trim()).ok_or_else(bad)?;
                }
                key => return Err(format!("invalid check option {}", quote(key))),
            }
        }
        Ok(config)
    }
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) rule: Rule,
    pub(crate) at: Option<Range>,
}

/// Collects findings. The configuration of the file holds; comments above an instruction add to it.
#[derive(Debug)]
pub(crate) struct Linter {
    config: Config,
    /// With the comments of the present instruction.
    present: Config,
    enabled: bool,
    pub(crate) findings: Vec<Finding>,
}

impl Linter {
    pub(crate) fn new(config: Config) -> Self {
        Linter { present: config.clone(), config, enabled: true, findings: Vec::new() }
    }

    /// Finds nothing: for all platforms but the first.
    pub(crate) fn silent() -> Self {
        Linter { enabled: false, ..Linter::new(Config::default()) }
    }

    /// Begins an instruction with this `check` comment; `None` ends it.
    pub(crate) fn scope(&mut self, check: Option<&str>) {
        self.present = self.config.clone();
        if let Some(Ok(extra)) = check.map(Config::parse) {
            self.present.skip.add(&extra.skip);
            self.present.experimental.add(&extra.experimental);
        }
    }

    pub(crate) fn report(&mut self, rule: Rule, at: Option<Range>) {
        let name = rule.name();
        let on = if rule.is_experimental() {
            self.present.experimental.has(name)
        } else {
            !self.present.skip.has(name)
        };
        if self.enabled && on {
            self.findings.push(Finding { rule, at });
        }
    }

    /// The error that `error=true` asks for.
    pub(crate) fn verdict(&self) -> Result<()> {
        if !self.config.error || self.findings.is_empty() {
            return Ok(());
        }
        let names: BTreeSet<&str> = self.findings.iter().map(|f| f.rule.name()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        Err(Fail::msg(format!("lint violation found for rules: {}", names.join(", "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration() {
        let c = Config::parse("skip=A, B;error=true;experimental=all").unwrap();
        assert!(c.error && c.skip.has("B") && !c.skip.has("C") && c.experimental.has("X"));
        assert_eq!(Config::parse("x=1").unwrap_err(), "invalid check option \"x\"");
        assert_eq!(Config::parse("x").unwrap_err(), "invalid check option \"x\"");
        assert!(Config::parse("error=maybe").is_err());
    }

    #[test]
    fn comments_hold_for_one_instruction() {
        let mut l = Linter::new(Config::default());
        l.scope(Some("skip=MaintainerDeprecated"));
        l.report(Rule::MaintainerDeprecated, None);
        l.scope(None);
        assert_eq!(l.findings.len(), 0);
        l.report(Rule::MaintainerDeprecated, None);
        assert_eq!(l.findings.len(), 1);
        assert!(l.verdict().is_ok());
        l.config.error = true;
        assert_eq!(
            l.verdict().unwrap_err().to_string(),
            "lint violation found for rules: MaintainerDeprecated"
        );
    }
}
