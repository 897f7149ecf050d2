//! Git repositories, by running `git` in a clean environment.
//!
//! Everything that comes from a repository or a user is data: references and addresses are checked before they become
//! arguments, options end with `--`, only known protocols are allowed, configuration of the host is not read, and
//! credentials go through the environment, never through arguments, files or messages.

mod auth;
mod bundle;
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
use kiln_registry::{Proxies, Registry};
use kiln_snapshot::{Snapshot, Snapshots};
use tokio::sync::{Mutex, OnceCell};

use self::bundle::Staged;
pub use self::id::{GitId, Mtime};
pub(crate) use self::resolve::Resolved;
use crate::locks::Locks;
use crate::{GitObjects, Result, SourceContext, SourceFacts, SourceInstance, SourceKeys};

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
    registry: Registry,
    snapshots: Snapshots,
    scratch: PathBuf,
    locks: Locks,
}

impl GitSource {
    /// Runs nothing yet. `registry` is where bundles may be; `scratch` is a directory for short-lived files.
    pub fn new(config: GitConfig, registry: Registry, snapshots: Snapshots, scratch: PathBuf) -> Self {
        Self { config, registry, snapshots, scratch, locks: Locks::default() }
    }

    pub(crate) fn allow_file(&self) -> bool {
        self.config.allow_file
    }

    /// What the bundle of `id` holds, if it has one.
    async fn staged(
        &self,
        id: &GitId,
        staged: &OnceCell<Arc<Staged>>,
        cx: &SourceContext,
    ) -> Result<Option<Arc<Staged>>> {
        let Some(locator) = &id.bundle else { return Ok(None) };
        staged.get_or_try_init(|| self.stage(id, locator, cx)).await.cloned().map(Some)
    }

    /// The checkout of a resolved reference; an earlier one if it is still there.
    async fn snapshot(
        &self,
        id: &GitId,
        resolved: &Resolved,
        staged: &OnceCell<Arc<Staged>>,
        cx: &SourceContext,
    ) -> Result<Snapshot> {
        // Two remotes may have the same commit, and the kept `.git` names the remote; a bundle names the reference.
        let of = match () {
            () if id.keeps_git_dir() => id.remote.as_str(),
            () if id.checkout_bundle => resolved.reference.as_str(),
            () => "",
        };
        let key = format!("git-snapshot:{}", Digest::sha256(format!("{}\0{of}", id.key(resolved))).hex());
        let _one = self.locks.lock(&key).await;
        if let Some(found) = self.snapshots.find_by_key(&key).pop() {
            return Ok(found);
        }
        let staged = self.staged(id, staged, cx).await?;
        let repository = self.fetch(id, resolved, staged, cx).await?;
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
            bundle: self.checkout_bundle,
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
    /// The bundle, brought in at most once.
    staged: OnceCell<Arc<Staged>>,
}

impl GitInstance {
    /// Nothing is asked yet.
    pub fn new(source: Arc<GitSource>, id: GitId) -> Self {
        Self { source, id, resolved: Mutex::new(None), staged: OnceCell::new() }
    }

    async fn resolved(&self, cx: &SourceContext) -> Result<Resolved> {
        let mut slot = self.resolved.lock().await;
        if let Some(resolved) = slot.as_ref() {
            return Ok(resolved.clone());
        }
        let staged = match self.source.given(&self.id) {
            Some(_) => None,
            None => self.source.staged(&self.id, &self.staged, cx).await?,
        };
        let resolved = self.source.resolve(&self.id, staged, cx).await?;
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
        self.source.snapshot(&self.id, &resolved, &self.staged, cx).await.map(Some)
    }

    async fn git_objects(&self, cx: &SourceContext) -> Result<GitObjects> {
        let resolved = self.resolved(cx).await?;
        let staged = self.source.staged(&self.id, &self.staged, cx).await?;
        let repository = self.source.fetch(&self.id, &resolved, staged, cx).await?;
        repository.objects(&resolved).await
    }

    async fn facts(&self, cx: &SourceContext) -> Result<SourceFacts> {
        let Resolved { reference, sha, commit } = self.resolved(cx).await?;
        Ok(SourceFacts::Git { reference, sha, commit })
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
