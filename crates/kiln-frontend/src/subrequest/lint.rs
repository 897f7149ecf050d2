//! `frontend.lint`: the build checks of all stages, or of one target.

use super::{answer, location};
use crate::build::{lint_config, parse};
use crate::context::Context;
use crate::convert::{Request, convert};
use crate::fail::{Fail, wire_ranges};
use crate::lint::{Finding, Linter};
use crate::platform;
use base64::Engine as _;
use kiln_llb::errdefs::{self, BuildError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

pub(super) async fn lint(cx: &Context<'_>) -> Result<BTreeMap<String, Vec<u8>>, BuildError> {
    let info = &cx.entrypoint.info;
    let (mut linter, failed) = match lint_config(cx) {
        Ok(config) => (Linter::new(config), None),
        Err(e) => (Linter::silent(), Some(e.into())),
    };
    let failed = match failed {
        Some(fail) => Some(fail),
        None => run_checks(cx, &mut linter).await.err(),
    };
    let warnings: Vec<Value> = linter.findings.iter().map(warning).collect();
    let definition = info.definition.as_deref().and_then(errdefs::definition_json);
    let source = json!({
        "filename": info.filename,
        "data": base64_value(&info.data),
        "definition": definition,
        "language": info.language,
    });
    let failing = !warnings.is_empty() || failed.is_some();
    let warnings = if warnings.is_empty() { Value::Null } else { Value::Array(warnings) };
    let mut result = json!({"warnings": warnings, "sources": [source]});
    if let Some(fail) = &failed {
        result["buildError"] = json!({"message": fail.error.message, "location": location(&fail.at)});
    }
    let mut out = answer(&result, lint_text(cx, &linter.findings))?;
    out.insert("result.statuscode".to_string(), if failing { b"1".to_vec() } else { b"0".to_vec() });
    Ok(out)
}

fn base64_value(bytes: &[u8]) -> Value {
    Value::String(base64::engine::general_purpose::STANDARD.encode(bytes))
}

async fn run_checks(cx: &Context<'_>, linter: &mut Linter) -> Result<(), Fail> {
    let file = parse(cx, linter)?;
    let build = platform::build_platforms(cx.host);
    let all_stages = cx.options.target.is_empty();
    // Checks do not depend on the platform; the reference takes its own too.
    let request = Request { platform: None, build_platforms: &build, all_stages };
    convert(cx, &file, request, linter).await.map(drop)
}

fn warning(f: &Finding) -> Value {
    let mut out = json!({"ruleName": f.rule.name(), "description": f.rule.description()});
    let url = f.rule.url();
    if !url.is_empty() {
        out["url"] = url.into();
    }
    out["detail"] = f.rule.message().into();
    out["location"] = location(f.at.as_slice());
    out
}

fn lint_text(cx: &Context<'_>, findings: &[Finding]) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|f| f.at.map(|at| at.start));
    let mut out = String::new();
    for f in sorted {
        let url = f.rule.url();
        let url = if url.is_empty() { url } else { format!(" - {url}") };
        let _ = writeln!(out, "\nWARNING: {}{url}\n{}", f.rule.name(), f.rule.message());
        let excerpt = f.at.and_then(|at| errdefs::excerpt(&cx.entrypoint.info, &wire_ranges(at)));
        if let Some(excerpt) = excerpt {
            out.push_str(&excerpt);
        }
    }
    out
}
