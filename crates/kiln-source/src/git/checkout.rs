//! From a commit in the shared repository to a snapshot.

use std::path::{Path, PathBuf};

use kiln_snapshot::{NewRef, RecordKind, Snapshot};

use super::fetch::{Repository, host_path, no_depth, wanted_ref};
use super::id::is_commit;
use super::resolve::Resolved;
use super::{GitId, GitSource, Mtime, tree};
use crate::blocking::blocking;
use crate::{Result, SourceContext, SourceError};

/// Where files are checked out to, and the repository they are checked out from.
struct Places {
    /// The work tree.
    files: PathBuf,
    /// `.git`, or a directory that is thrown away.
    git_dir: PathBuf,
}

impl GitSource {
    /// Makes the snapshot and lets it be found under `key`.
    pub(super) async fn checkout(
        &self,
        id: &GitId,
        resolved: &Resolved,
        repository: &Repository,
        key: &str,
        _cx: &SourceContext,
    ) -> Result<Snapshot> {
        let description = format!("git snapshot for {}#{}", id.display(), id.reference);
        let (snapshots, new) = (self.snapshots.clone(), NewRef::new(RecordKind::GitCheckout, description));
        let (active, mounted) = blocking(move || {
            let active = snapshots.new_active(None, new)?;
            let mounted = active.mount()?;
            Ok((active, mounted))
        })
        .await?;
        let top = host_path(&mounted)?;
        let scratch = tempfile::Builder::new().prefix("git-").tempdir_in(&self.scratch);
        let scratch = scratch.map_err(SourceError::io("make scratch directory"))?;
        if id.checkout_bundle {
            let mounted = repository.bundle(resolved, scratch.path(), mounted).await?;
            let key = key.to_string();
            return blocking(move || {
                drop(mounted);
                Ok(active.commit_with_key(&key)?)
            })
            .await;
        }
        // With a sub directory all is checked out below a name that no repository knows, then lifted.
        let inner = format!("checkout-{:032x}", rand::random::<u128>());
        let places = match (id.keeps_git_dir(), id.subdir.as_str()) {
            (true, _) => Places { git_dir: top.join(".git"), files: top },
            (false, "") => Places { git_dir: scratch.path().join("repository"), files: top },
            (false, _) => Places { git_dir: scratch.path().join("repository"), files: top.join(&inner) },
        };
        if !id.subdir.is_empty() {
            mounted.root().create_dir(&inner, 0o755)?;
        }
        repository.fill(id, resolved, &places).await?;
        let time = match id.mtime {
            Mtime::Commit => Some(repository.commit_time(resolved).await?),
            Mtime::Checkout => None,
        };
        let (id, key, remote) = (id.clone(), key.to_string(), repository.git.remote.clone());
        blocking(move || {
            let root = mounted.root();
            if !id.keeps_git_dir() && !id.skip_submodules {
                tree::remove_git_files(root)?;
            }
            if !id.subdir.is_empty() {
                let fault = |message| SourceError::Git { step: "checkout".to_string(), remote, message };
                tree::lift(root, &inner, &id.subdir).map_err(fault)?;
            }
            if let Some(seconds) = time {
                tree::set_times(root, seconds)?;
            }
            drop(mounted);
            Ok(active.commit_with_key(&key)?)
        })
        .await
    }
}

impl Repository {
    async fn fill(&self, id: &GitId, resolved: &Resolved, places: &Places) -> Result<()> {
        if id.keeps_git_dir() {
            self.fill_kept(id, resolved, places).await?;
        } else {
            self.fill_bare(resolved, places).await?;
        }
        if id.skip_submodules {
            return Ok(());
        }
        // Submodules come through the network only: `file` is not among the protocols, and git itself refuses
        // commands in `.gitmodules`.
        const UPDATE: [&str; 5] = ["submodule", "--quiet", "update", "--init", "--recursive"];
        match self.call(UPDATE, places).arg("--depth=1").try_run().await? {
            Ok(_) => return Ok(()),
            Err(failed) if no_depth(&failed.message) => {}
            Err(failed) => return Err(self.git.error("update submodules for", failed.message)),
        }
        self.call(UPDATE, places).run("update submodules for").await?;
        Ok(())
    }

    /// Files only. The repository is a throw-away one that borrows the objects of the shared one, so that index and
    /// submodule settings of different commits never mix.
    async fn fill_bare(&self, resolved: &Resolved, places: &Places) -> Result<()> {
        self.init(resolved, places).await?;
        let alternates = places.git_dir.join("objects/info");
        let write = async {
            tokio::fs::create_dir_all(&alternates).await?;
            let objects = format!("{}\n", self.dir.join("objects").display());
            tokio::fs::write(alternates.join("alternates"), objects).await?;
            // Otherwise the missing parents of the commit look like damage.
            let shallow = self.dir.join("shallow");
            match tokio::fs::try_exists(&shallow).await? {
                true => tokio::fs::copy(&shallow, places.git_dir.join("shallow")).await.map(drop),
                false => Ok(()),
            }
        };
        write.await.map_err(SourceError::io("prepare repository"))?;
        let commit = format!("{}^{{commit}}", resolved.sha);
        self.call(["checkout", "--quiet", "--force", "--detach"], places)
            .arg(commit)
            .arg("--")
            .run("checkout remote")
            .await?;
        Ok(())
    }

    /// Files and a repository that has this commit alone, its name as the remote has it, and no credentials.
    async fn fill_kept(&self, id: &GitId, resolved: &Resolved, places: &Places) -> Result<()> {
        self.init(resolved, places).await?;
        let ours = format!("file://{}", self.dir.display());
        let spec = match is_commit(&resolved.reference) {
            true => wanted_ref(resolved),
            false => format!("{}:{}", wanted_ref(resolved), resolved.reference),
        };
        self.call(["fetch", "--quiet", "--update-head-ok", "--no-tags", "--depth=1", "--"], places)
            .with_file()
            .arg(ours)
            .arg(spec)
            .run("checkout remote")
            .await?;
        self.call(["checkout", "--quiet", "--force", "--detach", "FETCH_HEAD", "--"], places)
            .run("checkout remote")
            .await?;
        self.call(["remote", "add", "--", "origin"], places)
            .arg(id.display())
            .run("set remote origin of")
            .await?;
        self.call(["reflog", "expire", "--all", "--expire=now"], places).run("expire reflog of").await?;
        let head = places.git_dir.join("FETCH_HEAD");
        match tokio::fs::remove_file(&head).await {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(SourceError::io("remove FETCH_HEAD")(e))
            }
            _ => Ok(()),
        }
    }

    async fn init(&self, resolved: &Resolved, places: &Places) -> Result<()> {
        let format = if resolved.is_sha256() { "sha256" } else { "sha1" };
        self.call(["init", "--quiet", "--template="], places)
            .arg(format!("--object-format={format}"))
            .run("init checkout of")
            .await
            .map(drop)
    }

    /// The committer's time in seconds since the epoch.
    async fn commit_time(&self, resolved: &Resolved) -> Result<i64> {
        let commit = format!("{}^{{commit}}", resolved.sha);
        let text = self
            .git_call(["log", "-1", "--format=%ct"])
            .arg(commit)
            .arg("--")
            .run("get commit time of")
            .await?;
        text.trim()
            .parse()
            .map_err(|_| self.git.error("get commit time of", format!("unexpected answer {text:?}")))
    }

    fn call<const N: usize>(&self, args: [&str; N], places: &Places) -> super::command::Call<'_> {
        self.git.call(args).in_dir(&places.git_dir).work_tree(Path::new(&places.files))
    }
}
