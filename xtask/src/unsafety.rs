//! Only kiln-sys may hold `unsafe`: every other crate inherits the workspace lint that forbids it.

use crate::metadata::Workspace;

pub(crate) fn check(workspace: &Workspace) -> Vec<String> {
    let mut problems = Vec::new();
    for package in workspace.members().filter(|p| p.name != "kiln-sys") {
        let manifest = std::fs::read_to_string(package.dir.join("Cargo.toml")).unwrap_or_default();
        if !manifest.contains("[lints]\nworkspace = true") {
            problems.push(format!("{}: Cargo.toml must have `[lints] workspace = true`", package.name));
        }
    }
    problems
}
