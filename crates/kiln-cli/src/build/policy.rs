//! Which sources a build may use: rules of a file, and policies, which are refused.

use super::args::BuildArgs;
use super::attrs::Vars;
use super::context::DockerfileSource;
use crate::error::CliError;
use crate::pairs::Pairs;
use kiln_client::SourcePolicy;
use kiln_go::parse_bool;
use std::ffi::OsString;
use std::path::PathBuf;

/// Names the file of rules; as docker buildx has it.
const RULES: &str = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY";
const WHY: &str = "kiln does not evaluate policies";

/// The rules of the environment. Refuses policies, except to have none.
pub(super) fn of(args: &BuildArgs, vars: Vars<'_>) -> Result<Option<SourcePolicy>, CliError> {
    for spec in &args.policy {
        if !is_disabled(spec)? {
            return Err(CliError::NotBuilt { flag: "--policy".into(), why: WHY });
        }
    }
    let Some(path) = vars(RULES).filter(|p| !p.is_empty()).map(PathBuf::from) else { return Ok(None) };
    let text = std::fs::read(&path).map_err(CliError::file("reading the source policy", &path))?;
    let policy = SourcePolicy::from_json(&text);
    policy.map(Some).map_err(|e| CliError::Usage(format!("source policy {} ({RULES}): {e}", path.display())))
}

/// A policy beside the Dockerfile was meant to be enforced: not to do it must not go unnoticed.
pub(super) fn check_beside(args: &BuildArgs, dockerfile: &DockerfileSource) -> Result<(), CliError> {
    let DockerfileSource::Directory { dir, name } = dockerfile else { return Ok(()) };
    let mut file = OsString::from(name);
    file.push(".rego");
    let path = dir.join(file);
    if path.exists() && !args.policy.iter().any(|spec| is_disabled(spec).unwrap_or(false)) {
        let flag = format!("the policy {}", path.display());
        let why = "kiln does not evaluate policies; --policy disabled=true builds without it";
        return Err(CliError::NotBuilt { flag, why });
    }
    Ok(())
}

fn is_disabled(spec: &str) -> Result<bool, CliError> {
    let disabled = Pairs::parse("--policy", spec)?.take(&["disabled"]);
    Ok(disabled.is_some_and(|d| parse_bool(&d) == Some(true)))
}

#[cfg(test)]
mod tests {
    use crate::build::plan::{Plan, Unsaid};
    use crate::tests::{args, plan, plan_error};

    #[test]
    fn rules_come_from_a_file_that_the_environment_names() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rules.json");
        let vars = |name: &str| (name == super::RULES).then(|| file.display().to_string());
        let plan = || Plan::new(&args(&["."]), &vars, &Unsaid::Keep, || Ok(Vec::new()));
        assert!(plan().unwrap_err().to_string().starts_with("reading the source policy /"));
        std::fs::write(&file, r#"{"rules":[{"action":"NO"}]}"#).unwrap();
        assert!(plan().unwrap_err().to_string().contains("invalid PolicyAction value"));
        std::fs::write(&file, r#"{"rules":[{"action":"DENY","selector":{"identifier":"*"}}]}"#).unwrap();
        assert!(plan().unwrap().source_policy.is_some());
    }

    #[test]
    fn a_policy_is_never_skipped_silently() {
        assert!(plan_error(&["--policy", "filename=x", "."]).starts_with("--policy is not built yet: "));
        let dir = tempfile::tempdir().unwrap();
        let context = dir.path().to_str().unwrap();
        std::fs::write(dir.path().join("D.rego"), "").unwrap();
        assert!(plan(&[context]).is_ok(), "it belongs to another Dockerfile");
        let file = format!("{context}/D");
        let error = plan_error(&["-f", &file, context]);
        assert!(error.starts_with(&format!("the policy {file}.rego is not built yet: ")), "{error}");
        assert!(plan(&["-f", &file, "--policy", "disabled=true", context]).is_ok());
    }
}
