//! Every dependency of a manifest is used by the crate's code: an unused one costs everybody who builds it.

use crate::metadata::{Package, Workspace};
use std::path::Path;

pub(crate) fn check(workspace: &Workspace) -> Vec<String> {
    let mut problems = Vec::new();
    for package in workspace.members() {
        let mut code = String::new();
        read_rust_files(&package.dir, &mut code);
        problems.extend(unused(package, &code));
    }
    problems
}

fn unused(package: &Package, code: &str) -> Vec<String> {
    let used = |name: &str| code.contains(&name.replace('-', "_"));
    let all = package.dependencies.iter().chain(&package.dev_dependencies);
    all.filter(|d| !used(d))
        .map(|d| format!("{}: {d} is not used; remove it from Cargo.toml", package.name))
        .collect()
}

fn read_rust_files(dir: &Path, code: &mut String) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_rust_files(&path, code);
        } else if path.extension().is_some_and(|e| e == "rs") {
            code.push_str(&std::fs::read_to_string(&path).unwrap_or_default());
        }
    }
}

/// Every direct dependency has its line in `docs/dependencies.md`, and nothing else has.
pub(crate) fn documented(workspace: &Workspace) -> Vec<String> {
    let page = include_str!("../../docs/dependencies.md");
    let rows = page.lines().filter_map(|l| l.strip_prefix("| ")?.split_once(" |")).map(|(names, _)| names);
    let listed: Vec<&str> =
        rows.flat_map(|names| names.split(", ")).map(|n| n.split(' ').next().unwrap_or(n)).collect();
    let of = |p: &Package| [p.dependencies.clone(), p.dev_dependencies.clone()].concat();
    let mut direct: Vec<String> =
        workspace.members().flat_map(of).filter(|d| !d.starts_with("kiln")).collect();
    direct.sort();
    direct.dedup();
    let missing = direct.iter().filter(|d| !listed.contains(&d.as_str()));
    let missing = missing.map(|d| format!("{d}: say in docs/dependencies.md why it is there"));
    let gone = listed.iter().filter(|l| !["crate", "---"].contains(l) && !direct.iter().any(|d| d == *l));
    missing.chain(gone.map(|l| format!("{l}: in docs/dependencies.md, but no crate uses it"))).collect()
}
