//! SOURCE_DATE_EPOCH: a number, or the time of a source.

use crate::args;
use crate::context::{Context, is_http};
use crate::dispatch::file_name;
use crate::fail::{At, Fail, Result};
use crate::git_ref::{GitRef, Parsed};
use crate::host::SolveOpt;
use crate::named_context::NamedContext;
use crate::state::EnvOf;
use kiln_dockerfile::shell::Lex;
use kiln_dockerfile::{Add, Dockerfile, Kind, Stage};
use kiln_llb::builder::{Constraints, EnvList, GraphBuilder, HttpSpec, MarshalOptions, Output};
use kiln_llb::op::attr;
use kiln_llb::{Definition, Input, Op};
use std::collections::BTreeMap;

/// Seconds since 1970, when the value leads to any.
pub(crate) async fn resolve(
    cx: &Context<'_>,
    value: &str,
    file: &Dockerfile,
    build_args: &BTreeMap<String, String>,
    global_args: &EnvList,
    lex: &Lex,
) -> Result<Option<i64>> {
    if value.is_empty() {
        return Ok(None);
    }
    if let Ok(seconds) = value.parse() {
        return Ok(Some(seconds));
    }
    let mut graph = GraphBuilder::new();
    if value == "context" {
        let out = cx.main_source(&mut graph);
        return of_source(cx, &graph, out, "[internal] resolve main build context metadata").await;
    }
    if let Some(named) = NamedContext::find(cx, value, None)? {
        let (state, _, pending) = named.load(cx).await?.emit(&mut graph)?;
        let out = if pending.is_some() { None } else { state.output };
        return of_source(
            cx,
            &graph,
            out,
            &format!("[internal] resolve SOURCE_DATE_EPOCH named context {value}"),
        )
        .await;
    }
    let stage =
        file.stages.iter().find(|s| s.from.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(value)));
    let Some(stage) = stage else {
        return Err(Fail::msg(format!("invalid {}: {value}", args::SOURCE_DATE_EPOCH)));
    };
    let out = of_stage(stage, build_args, global_args, lex, &mut graph).at(stage.source.range)?;
    let name = stage.from.name.as_deref().unwrap_or_default();
    of_source(cx, &graph, Some(out), &format!("[internal] resolve SOURCE_DATE_EPOCH source stage {name}"))
        .await
}

async fn of_source(
    cx: &Context<'_>,
    graph: &GraphBuilder,
    out: Option<Output>,
    log_name: &str,
) -> Result<Option<i64>> {
    if out.is_none() {
        return Ok(None);
    }
    let def = graph.marshal(out, &MarshalOptions::default())?;
    let sources: Vec<_> = def
        .vertices()
        .iter()
        .filter_map(|v| match &v.op {
            Op::Source(s) => Some((v, s)),
            _ => None,
        })
        .collect();
    let [(vertex, source)] = sources[..] else { return Ok(None) };
    if let Some(time) = cx.host.source_time(source, log_name).await? {
        return Ok(Some(time));
    }
    // A download without a date: an archive has the dates of its files.
    match source.attrs.get(attr::HTTP_FILENAME).filter(|name| !name.is_empty()) {
        Some(name) if is_http(&source.identifier) => {
            let root = Input { digest: vertex.digest, index: 0 };
            let alone = Definition::from_vertices(vec![vertex.clone()], Some(root), None)
                .map_err(|e| Fail::msg(e.to_string()))?;
            let result = cx.host.solve(alone, SolveOpt::default()).await?;
            Ok(cx.host.archive_time(&result, name).await?)
        }
        _ => Ok(None),
    }
}

/// The one remote ADD of a stage that has nothing else.
fn of_stage(
    stage: &Stage,
    build_args: &BTreeMap<String, String>,
    global_args: &EnvList,
    lex: &Lex,
    graph: &mut GraphBuilder,
) -> Result<Output> {
    let mut env = global_args.clone();
    env.remove(args::SOURCE_DATE_EPOCH);
    let base = lex.process_word(&stage.from.base, &EnvOf(&env))?;
    if base.text != "scratch" {
        return Err(Fail::msg("SOURCE_DATE_EPOCH stage must use FROM scratch"));
    }
    let only_one = || Fail::msg("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD");
    let mut found = None;
    for instruction in &stage.instructions {
        match &instruction.kind {
            Kind::Arg(arg) => {
                let line = std::iter::once((&instruction.source, arg));
                env = args::global(env, lex, line, build_args)?.0;
            }
            Kind::Add(_) if found.is_some() => return Err(only_one()),
            Kind::Add(add) => found = Some(of_add(add, &env, lex, graph)?),
            other => {
                let name = other.name();
                return Err(Fail::msg(format!(
                    "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported {name} instruction"
                )));
            }
        }
    }
    found.ok_or_else(only_one)
}

fn of_add(add: &Add, env: &EnvList, lex: &Lex, graph: &mut GraphBuilder) -> Result<Output> {
    let ([source], []) = (&add.files.sources[..], &add.files.inline[..]) else {
        return Err(Fail::msg("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source"));
    };
    let expand = |word: &str| lex.process_word(word, &EnvOf(env)).map(|e| e.text);
    let source = expand(source)?;
    let checksum = add.checksum.as_deref().map(expand).transpose()?;
    match GitRef::parse(&source) {
        Parsed::Bad(e) => Err(Fail::msg(e)),
        Parsed::Git(git) if !git.like_local => {
            let mut spec = git.to_spec();
            spec.keep_git_dir |= add.keep_git_dir == Some(true);
            if let Some(checksum) = checksum {
                spec.checksum = checksum;
            }
            Ok(graph.git(&spec, Constraints::default()))
        }
        _ if is_http(&source) => {
            let spec = HttpSpec { filename: file_name(&source), url: source, checksum, perm: 0 };
            Ok(graph.http(&spec, Constraints::default()))
        }
        _ => Err(Fail::msg("SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD")),
    }
}
