//! Git repositories, by running `git` in a clean environment.
//!
//! Everything that comes from a repository or a user is data: references and addresses are checked before they become
//! arguments, options end with `--`, only known protocols are allowed, configuration of the host is not read, and
//! credentials go through the environment, never through arguments, files or messages.

mod auth;
mod checkout;
mod command;
mod fetch;
mod id;
mod resolve;
mod ssh;
mod tree;
mod url;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use kiln_digest::Digest;
use kiln_llb::cachekey::{GitKey, git_key};
use kiln_registry::Proxies;
use kiln_snapshot::{Snapshot, Snapshots};
use tokio::sync::Mutex;

pub use self::id::{GitId, Mtime};
use self::resolve::Resolved;
use crate::locks::Locks;
use crate::{Result, SourceContext, SourceInstance, SourceKeys};

/// Changes a command just before it is started.
pub type PrepareCommand = Arc<dyn Fn(&mut std::process::Command) + Send + Sync>;

/// How git is run.
#[derive(Clone)]
pub struct GitConfig {
    /// The program.
    pub program: PathBuf,
    /// `PATH` for git and what it starts (ssh, shell).
    pub path: String,
    /// Proxies for http remotes.
    pub proxies: Proxies,
    /// Whether `file://` remotes may be used: for tests and administrators, never for remote clients.
    pub allow_file: bool,
    /// Hook for what needs the operating system: umask 022, death with the daemon. `None` leaves both as inherited.
    pub prepare: Option<PrepareCommand>,
}

impl Default for GitConfig {
    fn default() -> Self {
        Self {
            program: PathBuf::from("git"),
            path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_string(),
            proxies: Proxies::default(),
            allow_file: false,
            prepare: None,
        }
    }
}

impl fmt::Debug for GitConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitConfig").field("program", &self.program).finish_non_exhaustive()
    }
}

/// Repositories of one daemon.
#[derive(Debug)]
pub struct GitSource {
    config: GitConfig,
    snapshots: Snapshots,
    scratch: PathBuf,
    locks: Locks,
}

impl GitSource {
    /// Runs nothing yet. `scratch` is a directory for short-lived files.
    pub fn new(config: GitConfig, snapshots: Snapshots, scratch: PathBuf) -> Self {
        Self { config, snapshots, scratch, locks: Locks::default() }
    }

    pub(crate) fn allow_file(&self) -> bool {
        self.config.allow_file
    }

    /// The checkout of a resolved reference; an earlier one if it is still there.
    async fn snapshot(&self, id: &GitId, resolved: &Resolved, cx: &SourceContext) -> Result<Snapshot> {
        // Two remotes may have the same commit, and the kept `.git` names the remote.
        let of = if id.keeps_git_dir() { id.remote.as_str() } else { "" };
        let key = format!("git-snapshot:{}", Digest::sha256(format!("{}\0{of}", id.key(resolved))).hex());
        let _one = self.locks.lock(&key).await;
        if let Some(found) = self.snapshots.find_by_key(&key).pop() {
            return Ok(found);
        }
        let repository = self.fetch(id, resolved, cx).await?;
        self.checkout(id, resolved, &repository, &key, cx).await
    }
}

impl GitId {
    fn key(&self, resolved: &Resolved) -> String {
        git_key(&GitKey {
            sha: resolved.key_sha(self),
            keep_git_dir: self.keep_git_dir,
            reference: &resolved.reference,
            subdir: &self.subdir,
            skip_submodules: self.skip_submodules,
            commit_mtime: self.mtime == Mtime::Commit,
            bundle: false,
        })
    }

    /// With a sub directory there is no place for `.git`, and none is kept.
    fn keeps_git_dir(&self) -> bool {
        self.keep_git_dir && self.subdir.is_empty()
    }
}

/// One repository of a build.
#[derive(Debug)]
pub struct GitInstance {
    source: Arc<GitSource>,
    id: GitId,
    resolved: Mutex<Option<Resolved>>,
}

impl GitInstance {
    /// Nothing is asked yet.
    pub fn new(source: Arc<GitSource>, id: GitId) -> Self {
        Self { source, id, resolved: Mutex::new(None) }
    }

    async fn resolved(&self, cx: &SourceContext) -> Result<Resolved> {
        let mut slot = self.resolved.lock().await;
        if let Some(resolved) = slot.as_ref() {
            return Ok(resolved.clone());
        }
        let resolved = self.source.resolve(&self.id, cx).await?;
        *slot = Some(resolved.clone());
        Ok(resolved)
    }
}

#[async_trait]
impl SourceInstance for GitInstance {
    async fn keys(&self, cx: &SourceContext) -> Result<SourceKeys> {
        let resolved = self.resolved(cx).await?;
        Ok(SourceKeys { keys: vec![self.id.key(&resolved)], pin: resolved.sha.clone() })
    }

    async fn snapshot(&self, cx: &SourceContext) -> Result<Option<Snapshot>> {
        let resolved = self.resolved(cx).await?;
        self.source.snapshot(&self.id, &resolved, cx).await.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_llb::cachekey::source_digest;
    use std::collections::BTreeMap;

    #[test]
    fn keys_of_the_specification() {
        let id = |attrs: &[(&str, &str)], rest: &str| {
            let attrs: BTreeMap<_, _> = attrs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            GitId::parse(rest, &attrs, false).unwrap()
        };
        let sha = "a".repeat(40);
        let at = |reference: &str| Resolved { reference: reference.into(), sha: sha.clone(), commit: None };
        let plain = id(&[], "h/r").key(&at("refs/heads/x"));
        assert_eq!(
            source_digest(&plain).to_string(),
            "sha256:3efa8f2dcb5ffbad0afd3658eb383c0482c14bb38bcb6b8ec6e6b08e626f7fc5"
        );
        let all = [("git.keepgitdir", "true"), ("git.skipsubmodules", "true"), ("git.mtime", "commit")];
        assert_eq!(
            id(&all, "h/r#v1:a/../b/").key(&at("refs/tags/v1")),
            format!("{sha}.git#refs/tags/v1:b(skip-submodules)(mtime=commit)")
        );
        let tag = Resolved { commit: Some("b".repeat(40)), ..at("refs/tags/v1") };
        assert_eq!(id(&[], "h/r").key(&tag), "b".repeat(40));
        assert!(id(&[("git.keepgitdir", "true")], "h/r").key(&tag).starts_with(&sha));
    }
}
