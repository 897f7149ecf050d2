//! Questions about a Dockerfile instead of a build of it (spec dockerfile.md section 14).

use crate::build::{FrontendResult, lint_config};
use crate::context::Context;
use crate::convert::{Request, convert};
use crate::fail::{Fail, wire_ranges};
use crate::lint::{Finding, Linter};
use crate::platform;
use base64::Engine as _;
use kiln_dockerfile::Range;
use kiln_llb::errdefs::{self, BuildError, Code, Detail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const DESCRIBE: &str = "frontend.subrequests.describe";
const TARGETS: &str = "frontend.targets";
const LINT: &str = "frontend.lint";

pub(crate) async fn handle(cx: &Context<'_>, id: &str) -> Result<FrontendResult, BuildError> {
    let metadata = match id {
        DESCRIBE => describe()?,
        TARGETS => targets(cx)?,
        LINT => lint(cx).await?,
        _ => {
            let error = BuildError::new(Code::Unknown, format!("unsupported request {id}"));
            return Err(error.wrap(Detail::Subrequest(id.to_string())));
        }
    };
    Ok(FrontendResult { refs: Vec::new(), metadata })
}

fn answer(result: &Value, text: String) -> Result<BTreeMap<String, Vec<u8>>, BuildError> {
    let json = kiln_oci::gojson::to_vec_indent(result)
        .map_err(|e| BuildError::new(Code::Internal, e.to_string()))?;
    let entries = [("result.json", json), ("result.txt", text.into_bytes()), ("version", b"1.0.0".to_vec())];
    Ok(entries.map(|(k, v)| (k.to_string(), v)).into())
}

/// Columns as wide as their widest cell and one blank between them.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (c, cell) in row.iter().enumerate() {
            let last = c + 1 == row.len();
            let pad = if last { 0 } else { widths[c] + 1 };
            let _ = write!(out, "{cell:pad$}");
        }
        out.push('\n');
    }
    out
}

fn describe() -> Result<BTreeMap<String, Vec<u8>>, BuildError> {
    let named = |name: &str| json!({"name": name, "description": ""});
    let metadata = json!([named("result.json"), named("result.txt")]);
    let all = [
        (TARGETS, "List all targets current build supports", Some(json!([]))),
        (DESCRIBE, "List available subrequest types", None),
    ];
    let mut list = Vec::new();
    let mut rows = vec![["NAME", "VERSION", "DESCRIPTION"].map(String::from).to_vec()];
    for (name, description, opts) in all {
        let mut entry = json!({"name": name, "version": "1.0.0", "type": "rpc", "description": description});
        entry["opts"] = opts.unwrap_or(Value::Null);
        entry["inputs"] = Value::Null;
        entry["metadata"] = metadata.clone();
        entry["refs"] = Value::Null;
        list.push(entry);
        let short = name.trim_start_matches("frontend.");
        rows.push([short, "1.0.0", description].map(String::from).to_vec());
    }
    answer(&Value::Array(list), table(&rows))
}

fn location(at: &[Range]) -> Value {
    let mut ranges: Vec<_> = at.iter().flat_map(|r| wire_ranges(*r)).collect();
    ranges.sort_by_key(|r| r.start.line);
    ranges.dedup();
    let line = |n: i32| json!({"line": n});
    let ranges: Vec<Value> =
        ranges.iter().map(|r| json!({"start": line(r.start.line), "end": line(r.end.line)})).collect();
    if ranges.is_empty() { json!({}) } else { json!({"ranges": ranges}) }
}

fn targets(cx: &Context<'_>) -> Result<BTreeMap<String, Vec<u8>>, BuildError> {
    let info = &cx.entrypoint.info;
    let file = kiln_dockerfile::parse(&info.data).map_err(|e| Fail::from(e).into_error(info))?;
    let mut list = Vec::new();
    let mut rows = vec![["TARGET", "DESCRIPTION"].map(String::from).to_vec()];
    for (i, stage) in file.stages.iter().enumerate() {
        let is_default = i + 1 == file.stages.len();
        let name = stage.from.name.clone().unwrap_or_default();
        let description = stage.doc_comment().unwrap_or_default();
        let mut entry = serde_json::Map::new();
        let mut put = |key: &str, value: &str| {
            if !value.is_empty() {
                entry.insert(key.to_string(), value.into());
            }
        };
        put("name", &name);
        if is_default {
            entry.insert("default".to_string(), true.into());
        }
        let mut put = |key: &str, value: &str| {
            if !value.is_empty() {
                entry.insert(key.to_string(), value.into());
            }
        };
        put("description", description);
        put("base", &stage.from.base);
        put("platform", stage.from.platform.as_deref().unwrap_or_default());
        entry.insert("location".to_string(), location(&[stage.source.range]));
        list.push(Value::Object(entry));
        let shown = match (name.as_str(), is_default) {
            ("", true) => "(default)".to_string(),
            (_, true) => format!("{name} (default)"),
            (_, false) => name.clone(),
        };
        rows.push(vec![shown, description.to_string()]);
    }
    let data = base64::engine::general_purpose::STANDARD.encode(&info.data);
    answer(&json!({"targets": list, "sources": [data]}), table(&rows))
}

async fn lint(cx: &Context<'_>) -> Result<BTreeMap<String, Vec<u8>>, BuildError> {
    let info = &cx.entrypoint.info;
    let mut linter = Linter::new(lint_config(cx)?);
    let failed = run_checks(cx, &mut linter).await.err();
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
    let file = kiln_dockerfile::parse(&cx.entrypoint.info.data)?;
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
