//! Getting commits into the shared repository of a remote.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_digest::Digest;
use kiln_snapshot::{CacheMount, CacheMountSpec, Mounted, RecordKind, Sharing};
use rustix::fd::AsRawFd;

use super::bundle::Staged;
use super::command::Git;
use super::id::is_commit;
use super::resolve::Resolved;
use super::{GitId, GitSource};
use crate::blocking::blocking;
use crate::{GitObjects, Result, SourceContext, SourceError};

/// A bare repository with the wanted commit, ours alone while held.
pub(super) struct Repository {
    pub(super) git: Git,
    pub(super) dir: PathBuf,
    // The mount goes before the directory is given back.
    _mounted: Mounted,
    _cache: CacheMount,
}

impl GitSource {
    /// The shared repository of the remote, with the resolved object in it under [`wanted_ref`].
    pub(super) async fn fetch(
        &self,
        id: &GitId,
        resolved: &Resolved,
        staged: Option<Arc<Staged>>,
        cx: &SourceContext,
    ) -> Result<Repository> {
        let git = self.git(id, staged, cx).await?;
        let repository = self.open_shared(id, resolved, git).await?;
        repository.fetch(id, resolved).await?;
        Ok(repository)
    }

    async fn open_shared(&self, id: &GitId, resolved: &Resolved, git: Git) -> Result<Repository> {
        let format = if resolved.is_sha256() { "sha256" } else { "sha1" };
        // The address may hold credentials, so its digest is the name.
        // What becomes a bundle needs its history, which the usual repository has not.
        let depth = if id.checkout_bundle { ":full" } else { "" };
        let key = format!("git-remote:{}:{format}{depth}", Digest::sha256(&id.remote).hex());
        let spec = CacheMountSpec {
            key: &key,
            base: None,
            sharing: Sharing::Locked,
            description: format!("shared git repo for {}", id.display()),
            kind: RecordKind::GitCheckout,
        };
        let cache = self.snapshots.cache_mount(spec).await?;
        let held = cache.clone();
        let (mounted, dir) = blocking(move || {
            let mounted = held.mount()?;
            remove_locks(&mounted)?;
            let dir = host_path(&mounted)?;
            Ok((mounted, dir))
        })
        .await?;
        let repository = Repository { git, dir, _mounted: mounted, _cache: cache };
        if !repository.dir.join("HEAD").exists() {
            repository
                .git_call(["init", "--quiet", "--bare", "--template="])
                .arg(format!("--object-format={format}"))
                .run("init repository for")
                .await?;
        }
        Ok(repository)
    }
}

/// The reference under which the wanted object is kept: later fetches then tell the server that we have it.
pub(super) fn wanted_ref(resolved: &Resolved) -> String {
    format!("refs/kiln/{}", resolved.sha)
}

impl Repository {
    pub(super) fn git_call<const N: usize>(&self, args: [&str; N]) -> super::command::Call<'_> {
        self.git.call(args).in_dir(&self.dir)
    }

    async fn fetch(&self, id: &GitId, resolved: &Resolved) -> Result<()> {
        if self.has(&resolved.sha).await? {
            return self.keep(resolved).await;
        }
        let by_name = !is_commit(&resolved.reference) && !id.fetch_by_commit;
        if by_name {
            let spec = format!("+{}:{}", resolved.reference, wanted_ref(resolved));
            self.fetch_spec(id, &spec).await?.map_err(|m| self.git.error("fetch remote", m))?;
            // Between the question and now the name may have come to stand for something else.
            if self.has(&resolved.sha).await? {
                return self.keep(resolved).await;
            }
        }
        let direct = self.fetch_spec(id, &format!("+{}:{}", resolved.sha, wanted_ref(resolved))).await?;
        if direct.is_ok() && self.has(&resolved.sha).await? {
            return self.keep(resolved).await;
        }
        match direct {
            Err(message) if !is_refusal(&message) => return Err(self.git.error("fetch remote", message)),
            // The server gives only what it names.
            _ => self.fetch_all().await?,
        }
        if self.has(&resolved.sha).await? {
            return self.keep(resolved).await;
        }
        let (reference, sha) = (&resolved.reference, &resolved.sha);
        let message = format!(
            "fetched ref {reference} does not match expected commit {sha} and commit can not be found in the repository"
        );
        Err(self.git.error("fetch remote", message))
    }

    /// Fetches one commit without its history; with it where the server cannot do otherwise.
    async fn fetch_spec(&self, id: &GitId, spec: &str) -> Result<Result<(), String>> {
        let depths: &[&str] = if id.checkout_bundle { &[""] } else { &["--depth=1", ""] };
        for depth in depths {
            let mut call = self.git_call(["fetch", "--quiet", "--force", "--no-tags"]);
            if !depth.is_empty() {
                call = call.arg(*depth);
            }
            match call.address().arg(spec).try_run().await? {
                Ok(_) => return Ok(Ok(())),
                Err(failed) if !depth.is_empty() && no_depth(&failed.message) => {}
                Err(failed) => return Ok(Err(failed.message)),
            }
        }
        Ok(Ok(()))
    }

    /// All branches and tags with their history.
    async fn fetch_all(&self) -> Result<()> {
        let mut call = self.git_call(["fetch", "--quiet", "--force", "--no-tags"]);
        if self.dir.join("shallow").exists() {
            call = call.arg("--unshallow");
        }
        call.address()
            .arg("+refs/heads/*:refs/kiln/heads/*")
            .arg("+refs/tags/*:refs/kiln/tags/*")
            .run("fetch remote")
            .await
            .map(drop)
    }

    /// The resolved commit, and the tag that leads to it.
    pub(super) async fn objects(&self, resolved: &Resolved) -> Result<GitObjects> {
        let read = async |kind: &str, sha: &str| -> Result<Vec<u8>> {
            let call = self.git_call(["cat-file"]).arg(kind).arg(sha);
            let read = call.try_run_bytes().await?;
            read.map_err(|failed| self.git.error("read objects of", failed.message))
        };
        match &resolved.commit {
            None => {
                // A commit that was named by its id may be that of a tag object.
                let kind =
                    self.git_call(["cat-file", "-t"]).arg(&resolved.sha).run("read objects of").await?;
                let tag = if kind.trim() == "tag" { Some(read("tag", &resolved.sha).await?) } else { None };
                let commit = format!("{}^{{commit}}", resolved.sha);
                Ok(GitObjects { commit: read("commit", &commit).await?, tag })
            }
            Some(commit) => Ok(GitObjects {
                commit: read("commit", commit).await?,
                tag: Some(read("tag", &resolved.sha).await?),
            }),
        }
    }

    async fn has(&self, sha: &str) -> Result<bool> {
        let found =
            self.git_call(["cat-file", "-e"]).arg(format!("{sha}^{{commit}}")).try_run_quiet().await?;
        Ok(found.is_ok())
    }

    async fn keep(&self, resolved: &Resolved) -> Result<()> {
        let call = self.git_call(["update-ref", "--no-deref"]).arg(wanted_ref(resolved)).arg(&resolved.sha);
        call.run("keep commit of").await.map(drop)
    }
}

/// Whether a server refused to give a commit by its name (upload-pack.c, fetch-pack.c).
fn is_refusal(message: &str) -> bool {
    ["not our ref", "unadvertised object", "couldn't find remote ref"].iter().any(|m| message.contains(m))
}

/// Whether a server cannot do shallow fetches ("dumb http transport does not support shallow capabilities").
pub(super) fn no_depth(message: &str) -> bool {
    message.contains("--depth") || message.contains("shallow")
}

/// Where a mount is, for a program that needs a path: our own state directory, so nobody else chooses it.
pub(super) fn host_path(mounted: &Mounted) -> Result<PathBuf> {
    let fd = mounted.root().as_fd().as_raw_fd();
    std::fs::read_link(Path::new("/proc/self/fd").join(fd.to_string())).map_err(SourceError::io("find mount"))
}

/// Removes the locks of a git that was killed; nobody else uses the repository.
fn remove_locks(mounted: &Mounted) -> Result<()> {
    let mut dirs = vec![PathBuf::from("/")];
    while let Some(dir) = dirs.pop() {
        for entry in mounted.root().read_dir(&dir)? {
            let path = dir.join(&entry.name);
            let is_lock = entry.name.to_string_lossy().ends_with(".lock");
            match entry.kind {
                kiln_fs::FileKind::File if is_lock => mounted.root().remove(&path)?,
                // Locks of references and of the repository itself; objects have none.
                kiln_fs::FileKind::Dir if path != Path::new("/objects") => dirs.push(path),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_servers() {
        assert!(is_refusal("fatal: remote error: upload-pack: not our ref aaaa"));
        assert!(is_refusal("error: Server does not allow request for unadvertised object aaaa"));
        assert!(!is_refusal("fatal: could not read Username"));
        assert!(no_depth("fatal: dumb http transport does not support shallow capabilities"));
    }
}
