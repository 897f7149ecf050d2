//! `frontend.outline`: what the target can be given.

use super::{answer, location, table};
use crate::build::{emit_findings, lint_config, parse_linted};
use crate::context::Context;
use crate::convert::{self, Request};
use crate::lint::Linter;
use crate::outline::{Mounted, Outline, Parameter};
use crate::platform;
use base64::Engine as _;
use kiln_llb::errdefs::BuildError;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Blanks between the columns of a list.
const GAP: usize = 3;

pub(super) async fn outline(cx: &Context<'_>) -> Result<BTreeMap<String, Vec<u8>>, BuildError> {
    let info = &cx.entrypoint.info;
    let mut lint = Linter::new(lint_config(cx)?);
    let file = parse_linted(cx, &mut lint).await?;
    let build = platform::build_platforms(cx.host);
    let request = Request { platform: None, build_platforms: &build, all_stages: false };
    let found = convert::outline(cx, &file, request, &mut lint).await;
    emit_findings(cx, &lint).await;
    let found = found.map_err(|e| e.into_error(info))?;
    answer(&json(&found, &info.data), text(&found))
}

fn json(o: &Outline, data: &[u8]) -> Value {
    let mut out = Map::new();
    put(&mut out, "name", &o.name);
    put(&mut out, "description", &o.description);
    let mut list = |key: &str, values: Vec<Value>| {
        if !values.is_empty() {
            out.insert(key.to_string(), values.into());
        }
    };
    list("args", o.args.iter().map(argument).collect());
    list("secrets", o.secrets.iter().map(mounted).collect());
    list("ssh", o.ssh.iter().map(mounted).collect());
    list("sources", vec![base64::engine::general_purpose::STANDARD.encode(data).into()]);
    out.into()
}

fn put(out: &mut Map<String, Value>, key: &str, value: &str) {
    if !value.is_empty() {
        out.insert(key.to_string(), value.into());
    }
}

fn argument(p: &Parameter) -> Value {
    let mut out = Map::new();
    out.insert("name".to_string(), p.name.as_str().into());
    put(&mut out, "description", &p.description);
    put(&mut out, "value", &p.value);
    out.insert("location".to_string(), location(&[p.at]));
    out.into()
}

fn mounted((name, m): &(String, Mounted)) -> Value {
    let mut out = Map::new();
    out.insert("name".to_string(), name.as_str().into());
    if m.required {
        out.insert("required".to_string(), true.into());
    }
    out.insert("location".to_string(), location(&[m.at]));
    out.into()
}

fn text(o: &Outline) -> String {
    let mut out = String::new();
    let mut add = |rows: Vec<Vec<String>>, gap: usize| {
        out.push_str(&table(&rows, gap));
        out.push('\n');
    };
    let row = |cells: &[&str]| cells.iter().map(ToString::to_string).collect::<Vec<_>>();
    if !o.name.is_empty() || !o.description.is_empty() {
        let mut rows = vec![row(&["TARGET:", if o.name.is_empty() { "(default)" } else { &o.name }])];
        if !o.description.is_empty() {
            rows.push(row(&["DESCRIPTION:", &o.description]));
        }
        add(rows, 1);
    }
    if !o.args.is_empty() {
        let mut rows = vec![row(&["BUILD ARG", "VALUE", "DESCRIPTION"])];
        rows.extend(o.args.iter().map(|a| row(&[&a.name, &a.value, &a.description])));
        add(rows, GAP);
    }
    for (title, list) in [("SECRET", &o.secrets), ("SSH", &o.ssh)] {
        if !list.is_empty() {
            let mut rows = vec![row(&[title, "REQUIRED"])];
            rows.extend(list.iter().map(|(name, m)| row(&[name, if m.required { "true" } else { "" }])));
            add(rows, GAP);
        }
    }
    out
}
