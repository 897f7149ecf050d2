//! Bundles: commits that come as one file, and checkouts that become one (gitformat-bundle(5)).

use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use kiln_digest::Hasher;
use kiln_registry::Registry;
use kiln_snapshot::Mounted;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use super::fetch::Repository;
use super::id::is_commit;
use super::resolve::Resolved;
use super::{GitId, GitSource};
use crate::blocking::blocking;
use crate::{Locator, Result, SourceContext, SourceError};

/// The file that a checkout becomes.
const FILE: &str = "bundle";
/// The name of a commit that was asked for without one: a bundle has no commits without name.
const NAMELESS: &str = "refs/heads/main";
/// Largest bundle that is taken, in bytes.
const LIMIT: u64 = 32 << 30;

/// A repository of our own with what a bundle holds; gone when dropped.
#[derive(Debug)]
pub(super) struct Staged {
    dir: TempDir,
}

impl Staged {
    /// For git.
    pub(super) fn address(&self) -> String {
        format!("file://{}", self.dir.path().join("repository").display())
    }
}

impl GitSource {
    /// Brings the bundle of `id` in and unpacks it.
    pub(super) async fn stage(
        &self,
        id: &GitId,
        locator: &Locator,
        cx: &SourceContext,
    ) -> Result<Arc<Staged>> {
        let dir = tempfile::Builder::new().prefix("git-bundle-").tempdir_in(&self.scratch);
        let dir = dir.map_err(SourceError::io("make scratch directory"))?;
        let file = dir.path().join("import");
        download(&self.registry, locator, &file, cx).await?;
        let git = self.git(id, None, cx).await?;
        let repository = dir.path().join("repository");
        let heads = git.call(["ls-remote", "--"]).with_file().arg(&file).run("inspect bundle for").await?;
        let format = match heads.split_whitespace().next() {
            Some(sha) if is_commit(sha) => {
                if sha.len() == 64 {
                    "sha256"
                } else {
                    "sha1"
                }
            }
            _ => return Err(git.error("inspect bundle for", "no refs found")),
        };
        git.call(["init", "--quiet", "--bare", "--template="])
            .arg(format!("--object-format={format}"))
            .arg(&repository)
            .run("init bundle repository for")
            .await?;
        git.call(["fetch", "--quiet", "--no-tags", "--"])
            .in_dir(&repository)
            .with_file()
            .arg(&file)
            .arg("+refs/*:refs/*")
            .run("import bundle for")
            .await?;
        let commit = format!("{}^{{commit}}", id.checksum);
        let found = git.call(["cat-file", "-e"]).in_dir(&repository).arg(commit).try_run_quiet().await?;
        if found.is_err() {
            let text = format!("commit {} not found in bundle {locator}", id.checksum);
            return Err(git.error("import bundle for", text));
        }
        Ok(Arc::new(Staged { dir }))
    }
}

async fn download(registry: &Registry, locator: &Locator, path: &Path, cx: &SourceContext) -> Result<()> {
    let step = || SourceError::io(format!("fetch git bundle {locator}"));
    let mut blob = locator.open(registry, cx).await?;
    let mut status = cx.begin(format!("downloading {}", locator.digest));
    let mut file = tokio::fs::File::create_new(path).await.map_err(step())?;
    let (mut hasher, mut size, total) = (Hasher::new(), 0, blob.size.unwrap_or(0));
    while let Some(piece) = blob.data.next().await {
        let piece = piece.map_err(step())?;
        size += piece.len() as u64;
        if size > LIMIT {
            return Err(step()(std::io::Error::other(format!("larger than {LIMIT} bytes"))));
        }
        hasher.update(&piece);
        file.write_all(&piece).await.map_err(step())?;
        status.set("", size, total);
    }
    file.flush().await.map_err(step())?;
    match hasher.finish() {
        found if found == locator.digest => Ok(()),
        found => {
            let (url, expected) = (locator.to_string(), locator.digest);
            Err(SourceError::Digest { url, found, expected })
        }
    }
}

impl Repository {
    /// Writes the resolved commit with its history as a bundle into the empty `mounted`.
    pub(super) async fn bundle(
        &self,
        resolved: &Resolved,
        scratch: &Path,
        mounted: Mounted,
    ) -> Result<Mounted> {
        let dir = scratch.join("repository");
        let format = if resolved.is_sha256() { "sha256" } else { "sha1" };
        self.git
            .call(["init", "--quiet", "--bare", "--template="])
            .arg(format!("--object-format={format}"))
            .arg(&dir)
            .run("init bundle repository for")
            .await?;
        let objects = format!("{}\n", self.dir.join("objects").display());
        let written = async {
            tokio::fs::create_dir_all(dir.join("objects/info")).await?;
            tokio::fs::write(dir.join("objects/info/alternates"), objects).await
        };
        written.await.map_err(SourceError::io("prepare repository"))?;
        let name = tip(&resolved.reference);
        self.git
            .call(["update-ref", "--no-deref"])
            .in_dir(&dir)
            .arg(name)
            .arg(&resolved.sha)
            .run("name commit of")
            .await?;
        let file = scratch.join("export");
        self.git
            .call(["bundle", "create", "--quiet"])
            .in_dir(&dir)
            .arg(&file)
            .arg(name)
            .run("create bundle of")
            .await?;
        blocking(move || {
            let step = || SourceError::io("write bundle");
            let mut from = std::fs::File::open(&file).map_err(step())?;
            let mut to = mounted.root().create_file(FILE, 0o644)?;
            std::io::copy(&mut from, &mut to).map_err(step())?;
            Ok(mounted)
        })
        .await
    }
}

/// The name of the commit in the bundle: as at the remote.
fn tip(reference: &str) -> &str {
    if reference.starts_with("refs/") { reference } else { NAMELESS }
}
