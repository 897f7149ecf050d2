//! A crate may depend only on crates on a lower floor.

use crate::metadata::Workspace;
use std::collections::BTreeMap;

pub(crate) fn check(workspace: &Workspace) -> Vec<String> {
    let floors: BTreeMap<&str, Option<i64>> =
        workspace.members().filter(|p| p.name != "xtask").map(|p| (p.name.as_str(), p.floor)).collect();
    let mut problems = Vec::new();
    for package in workspace.members().filter(|p| p.name != "xtask") {
        let Some(floor) = package.floor else {
            problems.push(format!("{}: no `floor` in [package.metadata.kiln]", package.name));
            continue;
        };
        if package.dir.file_name().is_none_or(|n| n != package.name.as_str()) {
            problems.push(format!("{}: directory name differs from crate name", package.name));
        }
        for dependency in &package.dependencies {
            if let Some(Some(below)) = floors.get(dependency.as_str())
                && *below >= floor
            {
                problems.push(format!(
                    "{} (floor {floor}) depends on {dependency} (floor {below}): move the shared part down",
                    package.name
                ));
            }
        }
    }
    problems
}
