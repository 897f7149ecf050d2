//! A whole build: read, convert for every platform, solve, describe the result.

use crate::context::Context;
use crate::convert::{Converted, Request, convert};
use crate::fail::{Fail, wire_ranges};
use crate::host::{Host, RefId, SolveOpt, Warning};
use crate::image_config;
use crate::lint::{self, Finding, Linter};
use crate::opts::Options;
use crate::platform;
use crate::subrequest;
use crate::syntax::{Syntax, is_builtin, is_labs};
use kiln_dockerfile::{Dockerfile, directive};
use kiln_llb::Definition;
use kiln_llb::errdefs::{BuildError, Code, Detail};
use kiln_oci::Platform;
use std::collections::BTreeMap;

/// What a build gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FrontendResult {
    /// A result per platform id (`linux/arm/v7`), or one without id. `None` is scratch.
    pub refs: Vec<(Option<String>, Option<RefId>)>,
    /// Image configs and platforms, as exporters want them (spec dockerfile.md section 15).
    pub metadata: BTreeMap<String, Vec<u8>>,
}

/// Builds the Dockerfile that `opts` describe; `inputs` are graphs that stand in for contexts.
pub async fn build(
    host: &dyn Host,
    opts: &BTreeMap<String, String>,
    inputs: BTreeMap<String, Definition>,
) -> Result<FrontendResult, BuildError> {
    let options = Options::parse(opts)?;
    let caps = check_caps(opts.get("frontend.caps").map(String::as_str).unwrap_or_default());
    if let Err((error, false)) = caps {
        return Err(error);
    }
    let mut cx = Context::load(host, options, inputs).await?;
    let syntax = Syntax::of(&cx);
    if let Some(syntax) = syntax.as_ref().filter(|s| !is_builtin(&s.image)) {
        return syntax.forward(&cx, opts).await;
    }
    cx.options.labs |= syntax.is_some_and(|s| is_labs(&s.image));
    caps.map_err(|(error, _)| error)?;
    if let Some(id) = cx.options.request_id.clone() {
        return subrequest::handle(&cx, &id).await;
    }
    let mut lint = Linter::new(lint_config(&cx)?);
    let file = parse_linted(&cx, &mut lint).await?;
    build_platforms(&cx, &file, lint).await
}

/// The Dockerfile; what the checks found is kept, or shown when the file is wrong.
pub(crate) async fn parse_linted(cx: &Context<'_>, lint: &mut Linter) -> Result<Dockerfile, BuildError> {
    match parse(cx, lint) {
        Ok(file) => Ok(file),
        Err(fail) => {
            emit_findings(cx, lint).await;
            Err(fail.into_error(&cx.entrypoint.info))
        }
    }
}

/// Reads the Dockerfile and checks its instructions, those before an error too.
pub(crate) fn parse(cx: &Context<'_>, lint: &mut Linter) -> Result<Dockerfile, Fail> {
    let (file, wrong) = kiln_dockerfile::read(&cx.entrypoint.info.data)?;
    lint::instructions(&file, lint);
    match wrong {
        Some(wrong) => {
            lint::wrong_instruction(&wrong, lint);
            Err(wrong.error.into())
        }
        None => Ok(file),
    }
}

/// Refuses capabilities that are not there. The flag says that another frontend may have them.
fn check_caps(list: &str) -> Result<(), (BuildError, bool)> {
    let mut result = Ok(());
    for entry in list.split(',').filter(|e| !e.is_empty()) {
        let name = entry.split('+').next().unwrap_or_default();
        if kiln_llb::caps::FRONTEND.contains(&name) {
            continue;
        }
        let error = BuildError::new(Code::Unimplemented, format!("unsupported frontend capability {name}"));
        let error = error.wrap(Detail::FrontendCap(name.to_string()));
        if !entry.contains("+forward") {
            return Err((error, false));
        }
        result = Err((error, true));
    }
    result
}

async fn build_platforms(
    cx: &Context<'_>,
    file: &Dockerfile,
    lint: Linter,
) -> Result<FrontendResult, BuildError> {
    let targets: Vec<Option<&Platform>> = match &cx.options.platforms[..] {
        [] => vec![None],
        list => list.iter().map(Some).collect(),
    };
    // Only the first platform is remarked on.
    let linters = std::iter::once(lint).chain(std::iter::repeat_with(Linter::silent));
    let builds = targets.iter().zip(linters).map(|(target, lint)| build_one(cx, file, *target, lint));
    let built = futures::future::try_join_all(builds).await?;
    let mut result = FrontendResult::default();
    let mut platforms = Vec::new();
    for (target, (converted, reference)) in targets.into_iter().zip(built) {
        let p = target.cloned().unwrap_or_else(Platform::host).normalize();
        let id = platform::id(&p);
        let suffix = if cx.options.multi_platform { format!("/{id}") } else { String::new() };
        describe(&mut result.metadata, &suffix, &converted)?;
        result.refs.push((cx.options.multi_platform.then(|| id.clone()), reference));
        let platform = platform::extend_windows(p, &converted.image.platform);
        platforms.push(ExportPlatform { id, platform });
    }
    let platforms = kiln_go::json::to_vec(&Platforms { platforms }).map_err(internal)?;
    result.metadata.insert("refs.platforms".to_string(), platforms);
    Ok(result)
}

#[derive(serde::Serialize)]
struct Platforms {
    #[serde(rename = "Platforms")]
    platforms: Vec<ExportPlatform>,
}

#[derive(serde::Serialize)]
struct ExportPlatform {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Platform")]
    platform: Platform,
}

fn internal(e: impl std::fmt::Display) -> BuildError {
    BuildError::new(Code::Internal, format!("failed to marshal image config: {e}"))
}

fn describe(metadata: &mut BTreeMap<String, Vec<u8>>, suffix: &str, c: &Converted) -> Result<(), BuildError> {
    let mut put = |key: &str, value: Vec<u8>| metadata.insert(format!("{key}{suffix}"), value);
    put("containerimage.config", image_config::to_vec(&c.image).map_err(internal)?);
    if let Some(base) = &c.base_image {
        put("containerimage.base.config", image_config::to_vec(base).map_err(internal)?);
    }
    if let Some(epoch) = c.epoch {
        put("source.date.epoch", epoch.to_string().into_bytes());
    }
    Ok(())
}

async fn build_one(
    cx: &Context<'_>,
    file: &Dockerfile,
    target: Option<&Platform>,
    mut lint: Linter,
) -> Result<(Converted, Option<RefId>), BuildError> {
    let build = platform::build_platforms(cx.host);
    let request = Request { platform: target, build_platforms: &build, all_stages: false };
    let converted = convert(cx, file, request, &mut lint).await;
    emit_findings(cx, &lint).await;
    let converted = converted.map_err(|e| e.into_error(&cx.entrypoint.info))?;
    if converted.definition.root().is_none() {
        return Ok((converted, None));
    }
    let opt = SolveOpt { cache_imports: cx.options.cache_imports.clone() };
    let reference = cx.host.solve(converted.definition.clone(), opt).await?;
    Ok((converted, Some(reference)))
}

/// Shows what the checks found.
pub(crate) async fn emit_findings(cx: &Context<'_>, lint: &Linter) {
    for finding in &lint.findings {
        cx.host.warn(warning(cx, finding)).await;
    }
}

pub(crate) fn lint_config(cx: &Context<'_>) -> Result<lint::Config, BuildError> {
    if let Some(config) = &cx.options.lint {
        return Ok(config.clone());
    }
    let check = directive::detect("check", &cx.entrypoint.info.data);
    let parsed = check.map(|d| lint::Config::parse(d.first_word())).transpose();
    let wrap = |e| BuildError::new(Code::InvalidArgument, format!("failed to parse check options: {e}"));
    Ok(parsed.map_err(wrap)?.unwrap_or_default())
}

fn warning(cx: &Context<'_>, finding: &Finding) -> Warning {
    let line = finding.at.map(|at| format!(" (line {})", at.start)).unwrap_or_default();
    Warning {
        vertex: cx.entrypoint.vertex,
        level: 1,
        short: format!("{}: {}{line}", finding.rule.name(), finding.rule.message()),
        detail: vec![finding.rule.description().to_string()],
        url: finding.rule.url(),
        info: Some(cx.entrypoint.info.clone()),
        ranges: finding.at.map(wire_ranges).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities() {
        assert!(check_caps("").is_ok());
        assert!(check_caps("moby.buildkit.frontend.inputs,moby.buildkit.frontend.contexts+forward").is_ok());
        let (error, forward) = check_caps("x.y").unwrap_err();
        assert_eq!((error.code, forward), (Code::Unimplemented, false));
        assert_eq!(error.details, [Detail::FrontendCap("x.y".into())]);
        assert!(check_caps("x.y+forward").unwrap_err().1);
    }
}
