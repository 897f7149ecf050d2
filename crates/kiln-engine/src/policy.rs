//! Source policies of a build: its own rules, those of one request, and what the client says over its session.
//!
//! What they decide is what is built: digests and cache keys are those of the sources after it.

use crate::build::Build;
use crate::{SourceMeta, SourceMetaRequest};
use futures::stream::{self, StreamExt, TryStreamExt};
use kiln_digest::Digest;
use kiln_llb::errdefs::{BuildError, Detail};
use kiln_llb::{Definition, Op, SourceOp};
use kiln_oci::{Platform, Reference};
use kiln_policy::Policies;
use kiln_session::Lookup;
use std::collections::HashMap;

/// What decides about the sources of a build.
#[derive(Clone, Debug, Default)]
pub struct SourceRules {
    /// Rules.
    pub policies: Policies,
    /// The session of the client that is asked about each source; empty: nobody is.
    pub session: String,
}

/// A question to the client about one source.
#[derive(Clone, Debug)]
pub struct PolicyCheck {
    /// The source.
    pub source: SourceOp,
    /// What it is wanted for.
    pub platform: Option<Platform>,
    /// What the client wanted to know about it.
    pub meta: Option<SourceMeta>,
}

/// What the client answers.
#[derive(Clone, Debug)]
pub enum PolicyAnswer {
    /// Use it.
    Allow,
    /// Do not.
    Deny {
        /// For people.
        messages: Vec<String>,
    },
    /// Use something else, if that may be used.
    Convert(SourceOp),
    /// Find out more, and ask again.
    Ask(Box<SourceMetaRequest>),
}

/// How often the client is asked about one source (BuildKit's limit).
const MAX_QUESTIONS: usize = 10;

/// Sources of one graph that the client is asked about at the same time.
const AT_ONCE: usize = 64;

fn denied(e: kiln_policy::PolicyError) -> BuildError {
    BuildError::msg(e.to_string())
}

/// Sources are compared by one spelling: a rule must not be evaded by another.
fn normalize(source: &mut SourceOp) {
    let normal = match source.split() {
        Some(("docker-image", name)) => Reference::parse_normalized(name)
            .ok()
            .map(|reference| format!("docker-image://{}", reference.with_default_tag())),
        Some(("git", remote)) => git_subdir(remote).map(|remote| format!("git://{remote}")),
        _ => None,
    };
    if let Some(normal) = normal {
        source.identifier = normal;
    }
}

/// The remote with its `#ref:subdir`, if it has one, without detours in the directory. It never leaves the repository.
fn git_subdir(remote: &str) -> Option<String> {
    let (remote, fragment) = remote.split_once('#')?;
    let (reference, dir) = fragment.split_once(':').unwrap_or((fragment, ""));
    let dir = kiln_go::path::join(&["/", dir]);
    Some(match (reference, &dir[1..]) {
        ("", "") => remote.to_string(),
        (reference, "") => format!("{remote}#{reference}"),
        (reference, dir) => format!("{remote}#{reference}:{dir}"),
    })
}

impl Build {
    /// The graph with the sources that it may use, or that it uses instead.
    ///
    /// # Errors
    /// If one is denied.
    pub(crate) async fn police_graph(
        &self,
        definition: Definition,
        more: &Policies,
    ) -> Result<Definition, BuildError> {
        let policies = self.sources.policies.then(more);
        if policies.is_empty() && self.sources.session.is_empty() {
            return Ok(definition);
        }
        let mut sources = Vec::new();
        for vertex in definition.vertices() {
            if let Op::Source(source) = &vertex.op {
                let platform = vertex.platform.clone();
                sources.push((vertex.digest, source.clone(), platform));
            }
        }
        let decided = sources.into_iter().map(|(digest, before, platform)| {
            let policies = &policies;
            async move {
                let mut source = before.clone();
                self.police(&mut source, platform, policies).await?;
                Ok::<_, BuildError>((source != before).then_some((digest, source)))
            }
        });
        let decided: Vec<Option<(Digest, SourceOp)>> =
            stream::iter(decided).buffer_unordered(AT_ONCE).try_collect().await.map_err(
                |e: BuildError| e.context("error evaluating the source policy").context("failed to load LLB"),
            )?;
        let changed: HashMap<Digest, SourceOp> = decided.into_iter().flatten().collect();
        if changed.is_empty() {
            return Ok(definition);
        }
        definition.with_sources(&changed).map_err(|e| BuildError::msg(e.to_string()))
    }

    /// What is used instead of a source that somebody wants to know about.
    pub(crate) async fn police_source(
        &self,
        source: &mut SourceOp,
        platform: Option<Platform>,
        more: &Policies,
    ) -> Result<(), BuildError> {
        let policies = more.then(&self.sources.policies);
        if policies.is_empty() && self.sources.session.is_empty() {
            return Ok(());
        }
        let decided = self.police(source, platform, &policies).await;
        decided.map_err(|e| e.context("could not resolve image due to policy"))
    }

    /// First the rules, then the client; after a replacement both again.
    pub(crate) async fn police(
        &self,
        source: &mut SourceOp,
        platform: Option<Platform>,
        policies: &Policies,
    ) -> Result<(), BuildError> {
        normalize(source);
        policies.apply(source).map_err(denied)?;
        if self.sources.session.is_empty() {
            return Ok(());
        }
        let failed = |e: kiln_session::SessionError| BuildError::msg(e.to_string());
        let session =
            self.engine.sessions().get(&self.sources.session, Lookup::Wait).await.map_err(failed)?;
        let mut check = PolicyCheck { source: source.clone(), platform, meta: None };
        for _ in 0..MAX_QUESTIONS {
            match self.engine.gateway().check_policy(session.clone(), check.clone()).await? {
                PolicyAnswer::Allow => {
                    *source = check.source;
                    return Ok(());
                }
                PolicyAnswer::Deny { messages } => {
                    let identifier = &check.source.identifier;
                    let text = format!("source {identifier:?} not allowed by policy: action DENY");
                    let error = BuildError::msg(text);
                    let said = !messages.is_empty();
                    return Err(if said { error.wrap(Detail::PolicyDenied(messages)) } else { error });
                }
                PolicyAnswer::Convert(other) => {
                    check.source = other;
                    check.meta = None;
                    normalize(&mut check.source);
                    policies.apply(&mut check.source).map_err(denied)?;
                }
                PolicyAnswer::Ask(request) => check.meta = Some(self.asked(&check, *request).await?),
            }
        }
        Err(BuildError::msg("too many policy requests"))
    }

    /// Facts for the client. They are about the source that it was asked about, and no policy is asked for them.
    async fn asked(&self, check: &PolicyCheck, request: SourceMetaRequest) -> Result<SourceMeta, BuildError> {
        let (have, want) = (&check.source, &request.source);
        if have.identifier != want.identifier {
            let text = format!(
                "policy requested different source identifier: {:?} != {:?}",
                want.identifier, have.identifier
            );
            return Err(BuildError::msg(text));
        }
        if have.attrs != want.attrs {
            return Err(BuildError::msg("policy requested different source attrs"));
        }
        let found = self.source_meta(&request).await;
        found.map_err(|e| e.context("error resolving source metadata from policy request"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_has_one_spelling() {
        for (written, normal) in [
            ("docker-image://busybox", "docker-image://docker.io/library/busybox:latest"),
            ("git://h/r.git#main:../a/./b//c/../d", "git://h/r.git#main:a/b/d"),
            ("git://h/r.git#main:.", "git://h/r.git#main"),
            ("git://h/r.git#:x/..", "git://h/r.git"),
            ("git://h/r.git", "git://h/r.git"),
            ("https://h/a/../b#c", "https://h/a/../b#c"),
        ] {
            let mut source = SourceOp { identifier: written.into(), attrs: Default::default() };
            normalize(&mut source);
            assert_eq!(source.identifier, normal);
        }
    }
}
