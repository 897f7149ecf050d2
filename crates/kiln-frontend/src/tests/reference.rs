//! Graphs, names, configs and warnings compared with those that BuildKit's frontend made of the same files.
//!
//! `cases.json` holds Dockerfiles of ours and what the reference made of them. `KILN_REFERENCE_CASES` names another
//! file of that form to compare with.

use super::host::MemoryHost;
use crate::Warning;
use kiln_llb::{Definition, Range};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Case {
    name: String,
    file: String,
    #[serde(default)]
    opts: BTreeMap<String, String>,
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(default)]
    images: BTreeMap<String, String>,
    expect: Expect,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
struct Expect {
    solves: Vec<Vec<Vertex>>,
    metadata: BTreeMap<String, String>,
    warnings: Vec<String>,
    resolved: Vec<String>,
    error: String,
    error_at: Vec<String>,
}

#[derive(Debug, Default, Deserialize, PartialEq, PartialOrd, Eq, Ord)]
#[serde(default)]
struct Vertex {
    digest: String,
    name: String,
    cmd: String,
    no_cache: bool,
    caps: String,
    group: String,
    lines: Vec<String>,
}

fn ranges(list: &[Range]) -> String {
    let one =
        |r: &Range| format!("{}:{}-{}:{}", r.start.line, r.start.character, r.end.line, r.end.character);
    list.iter().map(one).collect::<Vec<_>>().join(",")
}

fn vertices(def: &Definition) -> Vec<Vertex> {
    let vertex = |v: &std::sync::Arc<kiln_llb::Vertex>| {
        let text = |key: &str| v.metadata.description.get(key).cloned().unwrap_or_default();
        let lines = def.source().and_then(|s| s.locations.get(&v.digest.to_string()));
        let group = v.metadata.progress_group.as_ref();
        Vertex {
            digest: v.digest.to_string(),
            name: text("llb.customname"),
            cmd: text("com.docker.dockerfile.v1.command"),
            no_cache: v.metadata.ignore_cache,
            caps: v.metadata.caps.keys().cloned().collect::<Vec<_>>().join(" "),
            group: group.map(|g| format!("{} {}", g.name, g.weak)).unwrap_or_default(),
            lines: lines.into_iter().flatten().map(|l| ranges(&l.ranges)).collect(),
        }
    };
    def.vertices().iter().map(vertex).collect()
}

fn warning(w: &Warning) -> String {
    format!("{} {} {} {}", w.short, w.url, w.detail.join(""), ranges(&w.ranges))
}

async fn run(case: &Case) -> Expect {
    let mut host = MemoryHost::new(&case.file);
    host.files.extend(case.files.iter().map(|(k, v)| (k.clone(), v.clone().into_bytes())));
    host.images.clone_from(&case.images);
    let mut opts = case.opts.clone();
    opts.insert("cmdline".to_string(), "x".to_string());
    let result = crate::build(&host, &opts, BTreeMap::new()).await;
    let mut out = Expect {
        solves: host.solved.lock().unwrap().iter().map(vertices).collect(),
        warnings: host.warnings.lock().unwrap().iter().map(warning).collect(),
        resolved: host.lookups.lock().unwrap().clone(),
        ..Default::default()
    };
    out.warnings.sort();
    out.resolved.sort();
    out.resolved.dedup();
    match result {
        Ok(r) => {
            let text = |(k, v): (String, Vec<u8>)| (k, String::from_utf8(v).unwrap());
            out.metadata = r.metadata.into_iter().map(text).collect();
        }
        Err(e) => {
            out.error_at = e.sources().map(|(_, r)| ranges(r)).collect();
            out.error = e.message;
        }
    }
    out
}

/// What differs, in words; empty when nothing does.
fn differences(mut want: Expect, mut got: Expect) -> Vec<String> {
    let mut out = Vec::new();
    if want.error != got.error {
        out.push(format!("error\n  want {:?}\n  got  {:?}", want.error, got.error));
    }
    if !want.error.is_empty() {
        // The reference leaves out some places and names others twice.
        want.error_at.dedup();
        if !want.error_at.is_empty() && want.error_at != got.error_at {
            out.push(format!("error places\n  want {:?}\n  got  {:?}", want.error_at, got.error_at));
        }
        out.extend(unlike("warning", &want.warnings, &got.warnings));
        return out;
    }
    // Nothing is solved for scratch, and platforms are converted in any order.
    want.solves.retain(|s| !s.is_empty());
    for solves in [&mut want.solves, &mut got.solves] {
        solves.iter_mut().for_each(|s| s.sort());
        solves.sort();
    }
    let flat = |s: &Vec<Vec<Vertex>>| s.iter().flatten().map(|v| format!("{v:?}")).collect::<Vec<_>>();
    let (w, g) = (flat(&want.solves), flat(&got.solves));
    out.extend(w.iter().filter(|v| !g.contains(v)).map(|v| format!("missing {v}")));
    out.extend(g.iter().filter(|v| !w.contains(v)).map(|v| format!("too much {v}")));
    for (what, w, g) in
        [("warning", &want.warnings, &got.warnings), ("lookup", &want.resolved, &got.resolved)]
    {
        out.extend(unlike(what, w, g));
    }
    let keys: std::collections::BTreeSet<&String> = want.metadata.keys().chain(got.metadata.keys()).collect();
    for key in keys {
        // It writes `null` for a list that it never had.
        let list = |text: &String| text.replace("\"diff_ids\":null", "\"diff_ids\":[]");
        let (w, g) = (want.metadata.get(key).map(list), got.metadata.get(key).cloned());
        if w != g {
            out.push(format!("metadata {key}\n  want {w:?}\n  got  {g:?}"));
        }
    }
    out
}

/// What only one of two lists has.
fn unlike(what: &str, want: &[String], got: &[String]) -> Vec<String> {
    let missing = want.iter().filter(|v| !got.contains(v)).map(|v| format!("missing {what} {v}"));
    let too_much = got.iter().filter(|v| !want.contains(v)).map(|v| format!("too much: {what} {v}"));
    missing.chain(too_much).collect()
}

#[tokio::test]
async fn graphs_are_those_of_the_reference() {
    let given = std::env::var_os("KILN_REFERENCE_CASES").map(|p| std::fs::read_to_string(p).unwrap());
    let text = given.as_deref().unwrap_or(include_str!("cases.json"));
    let cases: Vec<Case> = serde_json::from_str(text).unwrap();
    let mut failed = Vec::new();
    let count = cases.len();
    for case in cases {
        let got = run(&case).await;
        let differences = differences(case.expect, got);
        if !differences.is_empty() {
            failed.push(format!("== {}\n{}\n{}", case.name, case.file, differences.join("\n")));
        }
    }
    assert!(failed.is_empty(), "{} of {count} differ\n{}", failed.len(), failed.join("\n\n"));
}
