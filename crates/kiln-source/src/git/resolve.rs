//! What a reference stands for.

use std::sync::Arc;

use super::bundle::Staged;
use super::command::{Address, Git};
use super::id::{is_commit, is_reference};
use super::ssh::Ssh;
use super::{GitId, GitSource, auth};
use crate::redact::Redactor;
use crate::{Result, SourceContext};

/// The object that a reference stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// The full reference (`refs/heads/main`), or the commit itself.
    pub(super) reference: String,
    /// Commit, or tag object of an annotated tag.
    pub(super) sha: String,
    /// The commit behind an annotated tag.
    pub(super) commit: Option<String>,
}

impl Resolved {
    /// What the cache key is made of: the commit, so that a tag and a branch at the same commit share; but with a kept
    /// `.git` the tag object is part of the content.
    pub(super) fn key_sha(&self, id: &GitId) -> &str {
        match &self.commit {
            Some(commit) if !id.keep_git_dir => commit,
            _ => &self.sha,
        }
    }

    /// Whether the repository names its objects by SHA-256.
    pub(super) fn is_sha256(&self) -> bool {
        self.sha.len() == 64
    }
}

impl GitSource {
    /// Git with what the client has for this remote.
    pub(super) async fn git(
        &self,
        id: &GitId,
        staged: Option<Arc<Staged>>,
        cx: &SourceContext,
    ) -> Result<Git> {
        let mut redactor = Redactor::default();
        redactor.hide_url(&id.remote);
        let header = auth::header(id, cx, &mut redactor).await?;
        Ok(Git {
            config: self.config.clone(),
            ssh: Arc::new(Ssh::begin(id, cx).await?),
            header,
            redactor,
            progress: cx.progress.clone(),
            address: staged.map_or_else(|| Address::Remote(id.remote.clone()), Address::Staged),
            remote: id.display(),
        })
    }

    /// What can be told without asking the remote, because the commit is given.
    pub(super) fn given(&self, id: &GitId) -> Option<Resolved> {
        let given = |sha: &String| Resolved { reference: sha.clone(), sha: sha.clone(), commit: None };
        if is_commit(&id.reference) {
            return Some(given(&id.reference));
        }
        (id.bundle.is_some() && id.reference.is_empty() && is_commit(&id.checksum))
            .then(|| given(&id.checksum))
    }

    /// Asks the remote, unless the commit is given.
    pub(super) async fn resolve(
        &self,
        id: &GitId,
        staged: Option<Arc<Staged>>,
        cx: &SourceContext,
    ) -> Result<Resolved> {
        if let Some(given) = self.given(id) {
            return Ok(given);
        }
        if id.fetch_by_commit {
            // A name without `refs/` is a branch, as git prefers it, and as the way through the remote has it.
            let reference = match id.reference.as_str() {
                "" => id.checksum.clone(),
                full if full.starts_with("refs/") => full.to_string(),
                branch => format!("refs/heads/{branch}"),
            };
            return Ok(Resolved { reference, sha: id.checksum.clone(), commit: None });
        }
        let git = self.git(id, staged, cx).await?;
        let key = format!("{}\0{}\0{:?}", id.remote, id.reference, id.bundle);
        let resolved = match cx.known_git(&key) {
            Some(known) => known,
            None => self.ask(&git, id).await?,
        };
        cx.learn_git(&key, &resolved);
        let matches = |sha: &str| sha.starts_with(&id.checksum);
        if !matches(&resolved.sha) && !resolved.commit.as_deref().is_some_and(matches) {
            let got = [Some(&resolved.sha), resolved.commit.as_ref()];
            let got = got.into_iter().flatten().cloned().collect::<Vec<_>>().join(" or ");
            return Err(git.error("verify", format!("expected checksum to match {}, got {got}", id.checksum)));
        }
        Ok(resolved)
    }

    async fn ask(&self, git: &Git, id: &GitId) -> Result<Resolved> {
        let name = match id.reference.as_str() {
            "" => default_branch(git).await?,
            name => name.to_string(),
        };
        let call = git.ask(["ls-remote"]).arg(&name).arg(format!("{name}^{{}}"));
        let output = call.run("fetch remote").await?;
        choose(&name, &output).ok_or_else(|| {
            git.error("resolve", format!("repository does not contain ref {name}, output: {output:?}"))
        })
    }
}

/// The branch that HEAD of the remote points to.
async fn default_branch(git: &Git) -> Result<String> {
    let output = git.ask(["ls-remote", "--symref"]).arg("HEAD").run("fetch default branch of").await?;
    let branch = output.lines().find_map(|line| {
        let target = line.strip_prefix("ref: ")?.split_whitespace().next()?;
        target.starts_with("refs/heads/").then(|| target.to_string())
    });
    match branch {
        Some(branch) if is_reference(&branch) => Ok(branch),
        Some(branch) => Err(git.error("resolve", format!("invalid git ref {branch:?}"))),
        None => Err(git.error("resolve", "could not find default branch")),
    }
}

/// Finds a name in the output of `ls-remote`: as it stands below `refs/`, then as a branch, then as a tag.
fn choose(name: &str, output: &str) -> Option<Resolved> {
    let find = |reference: &str| {
        let mut lines = output.lines().rev().filter_map(|l| l.split_once('\t'));
        let sha = lines.find(|(_, r)| *r == reference).map(|(sha, _)| sha.to_string());
        sha.filter(|sha| is_commit(sha))
    };
    let strip = |prefix: &str| name.strip_prefix(prefix).unwrap_or(name).to_string();
    let partial = format!("refs/{}", strip("refs/"));
    let head = format!("refs/heads/{}", strip("refs/heads/"));
    let tag = format!("refs/tags/{}", strip("refs/tags/"));
    let peeled = |reference: &str| find(&format!("{reference}^{{}}"));
    for reference in [partial, head, tag] {
        if let Some(sha) = find(&reference) {
            let commit = if reference.starts_with("refs/tags/") { peeled(&reference) } else { None };
            return Some(Resolved { reference, sha, commit });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chooses_as_git_checkout_does() {
        let [a, b, c] = ["a", "b", "c"].map(|d| d.repeat(40));
        let output = format!(
            "{a}\trefs/heads/x\n{b}\trefs/tags/x\n{c}\trefs/tags/x^{{}}\n{c}\trefs/pull/1/head\n-bad\trefs/heads/y\n"
        );
        let at = |name: &str| choose(name, &output).map(|r| (r.reference, r.sha, r.commit));
        assert_eq!(at("x"), Some(("refs/heads/x".into(), a, None)));
        assert_eq!(at("refs/tags/x"), Some(("refs/tags/x".into(), b.clone(), Some(c.clone()))));
        assert_eq!(at("tags/x"), Some(("refs/tags/x".into(), b, Some(c.clone()))));
        assert_eq!(at("pull/1/head"), Some(("refs/pull/1/head".into(), c, None)));
        assert_eq!(at("y"), None);
        assert_eq!(at("z"), None);
    }
}
