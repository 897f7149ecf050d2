//! Questions about a Dockerfile instead of a build of it (spec dockerfile.md section 14).

mod lint;
mod outline;

use crate::build::{FrontendResult, emit_findings, lint_config, parse_linted};
use crate::context::Context;
use crate::convert::{Request, convert};
use crate::fail::{Fail, wire_ranges};
use crate::lint::Linter;
use crate::platform;
use base64::Engine as _;
use kiln_dockerfile::Range;
use kiln_llb::errdefs::{BuildError, Code, Detail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const DESCRIBE: &str = "frontend.subrequests.describe";
const TARGETS: &str = "frontend.targets";
const LINT: &str = "frontend.lint";
const OUTLINE: &str = "frontend.outline";
const CONVERT: &str = "frontend.convertllb";

pub(crate) async fn handle(cx: &Context<'_>, id: &str) -> Result<FrontendResult, BuildError> {
    let metadata = match id {
        DESCRIBE => describe()?,
        TARGETS => targets(cx)?,
        LINT => lint::lint(cx).await?,
        OUTLINE => outline::outline(cx).await?,
        CONVERT => convert_llb(cx).await?,
        _ => {
            let error = BuildError::new(Code::Unknown, format!("unsupported request {id}"));
            return Err(error.wrap(Detail::Subrequest(id.to_string())));
        }
    };
    Ok(FrontendResult { refs: Vec::new(), metadata })
}

fn answer(result: &Value, text: String) -> Result<BTreeMap<String, Vec<u8>>, BuildError> {
    let json =
        kiln_go::json::to_vec_indent(result).map_err(|e| BuildError::new(Code::Internal, e.to_string()))?;
    let entries = [("result.json", json), ("result.txt", text.into_bytes()), ("version", b"1.0.0".to_vec())];
    Ok(entries.map(|(k, v)| (k.to_string(), v)).into())
}

/// Columns as wide as their widest cell and `gap` blanks between them.
fn table(rows: &[Vec<String>], gap: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (c, cell) in row.iter().enumerate() {
            let last = c + 1 == row.len();
            let pad = if last { 0 } else { widths[c] + gap };
            let _ = write!(out, "{cell:pad$}");
        }
        out.push('\n');
    }
    out
}

fn describe() -> Result<BTreeMap<String, Vec<u8>>, BuildError> {
    let named = |name: &str, description: &str| json!({"name": name, "description": description});
    let metadata = json!([named("result.json", ""), named("result.txt", "")]);
    let target = json!([named("target", "Target build stage")]);
    // The lint and convertllb requests are not listed by other builders either.
    let all = [
        (OUTLINE, "List all parameters current build target supports", target),
        (TARGETS, "List all targets current build supports", json!([])),
        (DESCRIBE, "List available subrequest types", Value::Null),
    ];
    let mut list = Vec::new();
    let mut rows = vec![["NAME", "VERSION", "DESCRIPTION"].map(String::from).to_vec()];
    for (name, description, opts) in all {
        let mut entry = json!({"name": name, "version": "1.0.0", "type": "rpc", "description": description});
        entry["opts"] = opts;
        entry["inputs"] = Value::Null;
        entry["metadata"] = metadata.clone();
        entry["refs"] = Value::Null;
        list.push(entry);
        let short = name.trim_start_matches("frontend.");
        rows.push([short, "1.0.0", description].map(String::from).to_vec());
    }
    answer(&Value::Array(list), table(&rows, 1))
}

async fn convert_llb(cx: &Context<'_>) -> Result<BTreeMap<String, Vec<u8>>, BuildError> {
    let info = &cx.entrypoint.info;
    let mut lint = Linter::new(lint_config(cx)?);
    let file = parse_linted(cx, &mut lint).await?;
    let build = platform::build_platforms(cx.host);
    let request = Request { platform: None, build_platforms: &build, all_stages: false };
    let converted = convert(cx, &file, request, &mut lint).await;
    emit_findings(cx, &lint).await;
    let definition = converted.map_err(|e| e.into_error(info))?.definition;
    let mut out = answer(&kiln_llb::protojson::definition_ops(&definition), String::new())?;
    out.remove("result.txt");
    out.insert("version".to_string(), b"0.1.0".to_vec());
    Ok(out)
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
    answer(&json!({"targets": list, "sources": [data]}), table(&rows, 1))
}
