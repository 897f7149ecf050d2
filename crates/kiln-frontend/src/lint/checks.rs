//! Checks that need only the text or one word.

use super::{Linter, Rule};
use crate::outline::Declared;
use kiln_dockerfile::shell::Expansion;
use kiln_dockerfile::{Dockerfile, Instruction, Kind, Range, Source, Stage, Warning, Wrong, nearest};
use kiln_llb::builder::EnvList;
use kiln_oci::Platform;
use std::collections::BTreeSet;

/// Checks of the instructions as they stand, one by one.
pub(crate) fn instructions(file: &Dockerfile, lint: &mut Linter) {
    for Warning::EmptyContinuation { at, .. } in &file.warnings {
        lint.report(Rule::NoEmptyContinuation, Some(*at));
    }
    for (source, arg) in file.global_arg_pairs() {
        lint.scope(source.check());
        description("ARG", arg.args.iter().map(|a| a.key.as_str()).collect(), source, lint);
    }
    for stage in &file.stages {
        lint.scope(stage.source.check());
        from_line(stage, lint);
        for i in &stage.instructions {
            lint.scope(i.source.check());
            instruction(i, lint);
        }
    }
    lint.scope(None);
}

/// Checks of the file as a whole.
pub(crate) fn whole(file: &Dockerfile, lint: &mut Linter) {
    stage_names(file, lint);
    casing(file, lint);
}

/// What is remarked on in an instruction that is wrong in other ways.
pub(crate) fn wrong_instruction(wrong: &Wrong, lint: &mut Linter) {
    let Some(source) = &wrong.source else { return };
    lint.scope(source.check());
    match &wrong.words[..] {
        [] if source.keyword.eq_ignore_ascii_case("MAINTAINER") => {
            lint.report(Rule::MaintainerDeprecated, Some(source.range));
        }
        [_, as_word, names @ ..] => {
            if let [name] = names {
                stage_name_casing(name, source.range, lint);
            }
            if !names.is_empty() {
                as_casing(&source.keyword, as_word, source.range, lint);
            }
        }
        _ => {}
    }
    lint.scope(None);
}

fn from_line(stage: &Stage, lint: &mut Linter) {
    let (from, at) = (&stage.from, stage.source.range);
    if let Some(name) = &from.written_name {
        stage_name_casing(name, at, lint);
    }
    if let Some(as_word) = &from.as_word {
        as_casing(&stage.source.keyword, as_word, at, lint);
    }
    if let Some(name) = &from.name {
        description("FROM", vec![name], &stage.source, lint);
    }
}

fn stage_name_casing(name: &str, at: Range, lint: &mut Linter) {
    if name.to_lowercase() != name {
        lint.report(Rule::StageNameCasing(name.to_string()), Some(at));
    }
}

fn as_casing(keyword: &str, as_word: &str, at: Range, lint: &mut Linter) {
    let differs = if keyword == keyword.to_lowercase() {
        as_word != as_word.to_lowercase()
    } else {
        keyword == keyword.to_uppercase() && as_word != as_word.to_uppercase()
    };
    if differs {
        lint.report(Rule::FromAsCasing { from: keyword.to_string(), as_word: as_word.to_string() }, Some(at));
    }
}

fn instruction(i: &Instruction, lint: &mut Linter) {
    match &i.kind {
        Kind::Maintainer(_) => lint.report(Rule::MaintainerDeprecated, Some(i.source.range)),
        Kind::Arg(arg) => {
            description("ARG", arg.args.iter().map(|a| a.key.as_str()).collect(), &i.source, lint)
        }
        _ => {}
    }
}

fn description(instruction: &'static str, names: Vec<&str>, source: &Source, lint: &mut Linter) {
    let Some(comment) = source.comments.last() else { return };
    let first = comment.split(' ').next().unwrap_or_default();
    if names.is_empty() || names.contains(&first) {
        return;
    }
    let name = if names.len() > 1 { "<arg_key>" } else { names[0] };
    lint.report(
        Rule::InvalidDefinitionDescription { instruction, name: name.to_string() },
        Some(source.range),
    );
}

fn stage_names(file: &Dockerfile, lint: &mut Linter) {
    let mut seen = BTreeSet::new();
    for stage in &file.stages {
        let Some(name) = &stage.from.name else { continue };
        let at = Some(stage.source.range);
        if matches!(name.as_str(), "context" | "scratch") {
            lint.report(Rule::ReservedStageName(name.clone()), at);
        }
        if !seen.insert(name) {
            lint.report(Rule::DuplicateStageName(name.clone()), at);
        }
    }
}

fn casing(file: &Dockerfile, lint: &mut Linter) {
    let words: Vec<(&str, Range)> = file
        .stages
        .iter()
        .flat_map(|s| std::iter::once(&s.source).chain(s.instructions.iter().map(|i| &i.source)))
        .map(|s| (s.keyword.as_str(), s.range))
        .collect();
    let lower = words.iter().filter(|(w, _)| *w == w.to_lowercase()).count();
    let upper = words.iter().filter(|(w, _)| *w != w.to_lowercase() && *w == w.to_uppercase()).count();
    let casing = if lower > upper { "lowercase" } else { "uppercase" };
    for (word, at) in words {
        let right = if lower > upper { word.to_lowercase() } else { word.to_uppercase() };
        if right != word {
            lint.report(Rule::ConsistentInstructionCasing { command: word.to_string(), casing }, Some(at));
        }
    }
}

/// Names in FROM that no global ARG has.
pub(crate) fn undefined_in_from(
    unmatched: &BTreeSet<String>,
    env: &EnvList,
    declared: &Declared,
    at: Range,
    lint: &mut Linter,
) {
    let known: Vec<&str> = declared.keys().map(String::as_str).chain(env.iter().map(|(k, _)| k)).collect();
    for name in unmatched.iter().filter(|n| !known.contains(&n.as_str())) {
        let hint = nearest(name, &known, false);
        lint.report(Rule::UndefinedArgInFrom { name: name.clone(), hint }, Some(at));
    }
}

/// What is said of `--platform` in FROM.
pub(crate) fn from_platform(
    written: &str,
    found: &Expansion,
    stage: &str,
    env: &EnvList,
    at: Range,
    lint: &mut Linter,
) {
    const TARGET: &str = "TARGETPLATFORM";
    let only_target =
        found.matched.len() == 1 && found.unmatched.is_empty() && found.matched.contains(TARGET);
    if only_target && env.get(TARGET) == Some(found.text.as_str()) {
        lint.report(Rule::RedundantTargetPlatform(written.to_string()), Some(at));
    }
    if !found.matched.is_empty() || !found.unmatched.is_empty() {
        return;
    }
    if let Ok(p) = Platform::parse(&found.text)
        && !stage.contains(&p.os)
        && !stage.contains(&p.architecture)
    {
        lint.report(Rule::FromPlatformFlagConstDisallowed(found.text.clone()), Some(at));
    }
}

/// Whether a name sounds like a secret.
pub(crate) fn secret_key(instruction: &'static str, key: &str, at: Range, lint: &mut Linter) {
    const DENY: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    const ALLOW: [&str; 3] = ["public", "file", "version"];
    let lower = key.to_lowercase();
    let has = |list: &[&str]| lower.split('_').any(|w| list.contains(&w));
    if has(&DENY) && !has(&ALLOW) {
        lint.report(Rule::SecretsUsedInArgOrEnv { instruction, key: key.to_string() }, Some(at));
    }
}
