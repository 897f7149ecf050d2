//! Where the context comes from, as the user's git says it: `vcs:*` options, and labels where they are wanted.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::args::BuildArgs;
use super::attrs::Vars;
use super::context::is_remote;
use super::plan::Plan;
use kiln_go::parse_bool;
use kiln_llb::mask_credentials;

/// Adds what is known and wanted: `$BUILDX_GIT_LABELS`, `$BUILDX_GIT_INFO`. Without git, or outside of a work tree, that
/// is nothing.
pub fn add(args: &BuildArgs, vars: Vars<'_>, plan: &mut Plan) {
    let is_on = |name: &str, default: bool| vars(name).and_then(|v| parse_bool(&v)).unwrap_or(default);
    let labels = vars("BUILDX_GIT_LABELS").is_some_and(|v| v == "full" || parse_bool(&v) == Some(true));
    let info = is_on("BUILDX_GIT_INFO", true);
    if !(labels || info) || args.context == "-" || is_remote(&args.context) {
        return;
    }
    let Ok(dir) = std::fs::canonicalize(&args.context) else { return };
    // Git itself takes a while to find that out.
    let named = vars("GIT_DIR").is_some();
    if !named && !dir.ancestors().any(|d| d.join(".git").exists()) {
        return;
    }
    let git = Git(&dir);
    let Some(root) = git.run(&["rev-parse", "--show-toplevel"]).map(PathBuf::from) else { return };
    if let Some(mut commit) = git.run(&["rev-parse", "--verify", "--quiet", "HEAD"]) {
        if is_on("BUILDX_GIT_CHECK_DIRTY", false) && git.run(&["status", "--porcelain"]).is_some() {
            commit.push_str("-dirty");
        }
        put(plan, labels, "label:org.opencontainers.image.revision", &commit);
        put(plan, info, "vcs:revision", &commit);
    }
    if let Some(url) = git.remote() {
        put(plan, labels, "label:org.opencontainers.image.source", &url);
        put(plan, info, "vcs:source", &url);
    }
    if labels {
        let file = args.file.as_ref().map_or_else(|| dir.join("Dockerfile"), PathBuf::from);
        let file = std::path::absolute(&file).unwrap_or(file);
        if let Ok(path) = file.strip_prefix(&root) {
            put(plan, true, "label:com.docker.image.source.entrypoint", &path.to_string_lossy());
        }
    }
    if info {
        for local in plan.locals.clone() {
            let place = std::fs::canonicalize(&local.path).ok();
            let below = place.as_deref().and_then(|p| p.strip_prefix(&root).ok().map(Path::to_owned));
            if let Some(path) = below {
                let path = if path.as_os_str().is_empty() { ".".into() } else { path.to_string_lossy() };
                put(plan, true, &format!("vcs:localdir:{}", local.name), &path);
            }
        }
    }
}

fn put(plan: &mut Plan, wanted: bool, key: &str, value: &str) {
    if wanted {
        plan.attrs.insert(key.to_owned(), value.to_owned());
    }
}

/// Git in a directory.
struct Git<'a>(&'a Path);

impl Git<'_> {
    /// What a command says; None when it fails or says nothing.
    fn run(&self, args: &[&str]) -> Option<String> {
        let output = Command::new("git").arg("-C").arg(self.0).args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let text = text.trim();
        (output.status.success() && !text.is_empty()).then(|| text.to_owned())
    }

    /// The address of the remote that the branch follows, else of `origin`, else of `upstream`.
    fn remote(&self) -> Option<String> {
        let branch = self.run(&["rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{u}"]);
        let followed = branch.and_then(|b| Some(b.split_once('/')?.0.to_owned()));
        let names = followed.iter().map(String::as_str).chain(["origin", "upstream"]);
        let url = names.into_iter().find_map(|name| self.run(&["remote", "get-url", name]))?;
        Some(without_credentials(&url))
    }
}

/// An http address without user and password; what else may look like one is masked.
fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) if matches!(scheme, "http" | "https") => format!("{scheme}://{host}{path}"),
        _ => mask_credentials(url).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::plan::Unsaid;

    fn plan(context: &Path) -> Plan {
        let args = BuildArgs {
            context: context.display().to_string(),
            network: "default".into(),
            ..BuildArgs::default()
        };
        let mut plan = Plan::new(&args, &|_| None, &Unsaid::Nothing, || Ok(Vec::new())).unwrap();
        add(&args, &|_| None, &mut plan);
        plan
    }

    #[test]
    fn commits_remotes_and_places() {
        let dir = tempfile::tempdir().unwrap();
        let git = |args: &[&str]| {
            let user = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"];
            let run = Command::new("git").arg("-C").arg(dir.path()).args(user).args(args).output();
            run.is_ok_and(|o| o.status.success())
        };
        if !git(&["init", "-q"]) {
            eprintln!("SKIPPED: there is no git");
            return;
        }
        let context = dir.path().join("sub");
        std::fs::create_dir(&context).unwrap();
        std::fs::write(context.join("Dockerfile"), "FROM scratch").unwrap();
        assert!(!plan(&context).attrs.contains_key("vcs:revision"), "there is no commit yet");
        assert!(git(&["add", "."]) && git(&["commit", "-qm", "x"]));
        assert!(git(&["remote", "add", "origin", "https://user:canary@h.example/r.git"]));
        let attrs = plan(&context).attrs;
        assert_eq!(attrs["vcs:revision"].len(), 40);
        assert_eq!(attrs["vcs:source"], "https://h.example/r.git");
        assert_eq!(
            (attrs["vcs:localdir:context"].as_str(), attrs["vcs:localdir:dockerfile"].as_str()),
            ("sub", "sub")
        );
    }
}
