//! What a target can be given: arguments, secrets, ssh agents (spec dockerfile.md section 14, `frontend.outline`).

use crate::stages::{StageId, Stages};
use kiln_dockerfile::{ArgPair, Range};
use std::collections::{BTreeMap, BTreeSet};

/// Arguments by name; the last declaration counts.
pub(crate) type Declared = BTreeMap<String, Parameter>;

/// An argument.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    /// Empty without one.
    pub(crate) value: String,
    /// The comment above the instruction.
    pub(crate) description: String,
    pub(crate) at: Range,
    /// Arguments that its default names.
    pub(crate) needs: BTreeSet<String>,
}

impl Parameter {
    pub(crate) fn new(pair: &ArgPair, at: Range) -> Self {
        Parameter {
            name: pair.key.clone(),
            value: String::new(),
            description: pair.doc_comment.clone().unwrap_or_default(),
            at,
            needs: BTreeSet::new(),
        }
    }
}

/// A secret or an agent, as the first step that asks for it has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mounted {
    pub(crate) required: bool,
    pub(crate) at: Range,
}

/// What one stage asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters {
    pub(crate) declared: Declared,
    pub(crate) used: BTreeSet<String>,
    pub(crate) secrets: BTreeMap<String, Mounted>,
    pub(crate) ssh: BTreeMap<String, Mounted>,
}

impl Parameters {
    /// The used arguments and those that their defaults name.
    fn used(&self) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        let mut open: Vec<&str> = self.used.iter().map(String::as_str).collect();
        while let Some(name) = open.pop() {
            if found.insert(name) {
                let needs = self.declared.get(name).into_iter().flat_map(|p| &p.needs);
                open.extend(needs.map(String::as_str));
            }
        }
        found
    }
}

/// What a target can be given, all its stages together, in the order of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outline {
    /// Of the target; empty without one.
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) args: Vec<Parameter>,
    pub(crate) secrets: Vec<(String, Mounted)>,
    pub(crate) ssh: Vec<(String, Mounted)>,
}

impl Outline {
    /// Of names that several stages ask for, the one nearest to the target is shown.
    pub(crate) fn of(stages: &Stages, target: StageId) -> Outline {
        let mut out = Outline {
            name: stages.list[target].name.clone(),
            description: stages.list[target].description.clone(),
            ..Default::default()
        };
        let mut names = BTreeSet::new();
        for id in stages.outwards(target) {
            let p = &stages.list[id].parameters;
            let args = p.used().into_iter().filter_map(|name| p.declared.get(name));
            out.args.extend(args.filter(|a| names.insert(a.name.clone())).cloned());
            add_new(&mut out.secrets, &p.secrets);
            add_new(&mut out.ssh, &p.ssh);
        }
        out.args.sort_by_key(|a| a.at.start);
        out.secrets.sort_by_key(|(_, m)| m.at.start);
        out.ssh.sort_by_key(|(_, m)| m.at.start);
        out
    }
}

fn add_new(list: &mut Vec<(String, Mounted)>, more: &BTreeMap<String, Mounted>) {
    for (name, mounted) in more {
        if !list.iter().any(|(known, _)| known == name) {
            list.push((name.clone(), *mounted));
        }
    }
}
