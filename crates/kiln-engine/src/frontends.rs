//! Which frontend makes a graph, and whether it may.

use crate::build::{Build, LazyRef};
use crate::frontend_image;
use crate::host::BuildHost;
use crate::outcome::{Outcome, ResultRefs};
use kiln_llb::Definition;
use kiln_llb::errdefs::{BuildError, Code, Detail};
use kiln_oci::Reference;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which frontends may be used (`[frontend.*]` of the configuration).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendRules {
    /// `dockerfile.v0`
    pub dockerfile: bool,
    /// `gateway.v0`
    pub gateway: bool,
    /// Repositories that frontend images may come from, without tag; empty: any.
    pub allowed_repositories: Vec<String>,
}

impl Default for FrontendRules {
    fn default() -> Self {
        Self { dockerfile: true, gateway: true, allowed_repositories: Vec::new() }
    }
}

/// Frontends of one build at the same time, those that wait for others included.
pub(crate) const MAX_AT_ONCE: usize = 64;

const DOCKERFILE: &str = "dockerfile.v0";
pub(crate) const GATEWAY: &str = "gateway.v0";

/// What a frontend is asked.
#[derive(Clone, Debug, Default)]
pub struct FrontendRequest {
    /// `dockerfile.v0` or `gateway.v0`.
    pub name: String,
    /// Its options.
    pub opts: BTreeMap<String, String>,
    /// Named graphs that it may use.
    pub inputs: BTreeMap<String, Definition>,
}

/// Runs a frontend to its result. Nothing of that result needs to be built yet.
pub(crate) async fn run(
    build: &Arc<Build>,
    request: FrontendRequest,
) -> Result<Outcome<LazyRef>, BuildError> {
    let detail = Detail::Frontend {
        name: request.name.clone(),
        source: request.opts.get("source").cloned().unwrap_or_default(),
    };
    let _one = build.frontends.try_acquire().map_err(|_| too_many())?;
    dispatch(build, request).await.map_err(|e| e.wrap(detail))
}

fn too_many() -> BuildError {
    let message =
        format!("a build may not have more than {MAX_AT_ONCE} frontends at once; does one call itself?");
    BuildError::new(Code::ResourceExhausted, message)
}

async fn dispatch(build: &Arc<Build>, request: FrontendRequest) -> Result<Outcome<LazyRef>, BuildError> {
    let rules = build.engine.frontend_rules();
    let FrontendRequest { name, opts, inputs } = request;
    match name.as_str() {
        DOCKERFILE if rules.dockerfile => dockerfile(build, &opts, inputs).await,
        GATEWAY if rules.gateway => {
            if opts.contains_key("gateway-devel") {
                return Err(invalid("development gateway is no longer supported"));
            }
            let source = opts.get("source").filter(|s| !s.is_empty()).cloned();
            let source = source.ok_or_else(|| invalid("no source specified for gateway"))?;
            rules.check_source(&source)?;
            if kiln_frontend::is_builtin(&source) {
                return dockerfile(build, &opts, inputs).await;
            }
            frontend_image::run(build, &source, opts, inputs).await
        }
        _ => Err(invalid(format!("invalid frontend: {name}"))),
    }
}

fn invalid(message: impl Into<String>) -> BuildError {
    BuildError::msg(message)
}

async fn dockerfile(
    build: &Arc<Build>,
    opts: &BTreeMap<String, String>,
    inputs: BTreeMap<String, Definition>,
) -> Result<Outcome<LazyRef>, BuildError> {
    let host = BuildHost::new(build);
    let result = kiln_frontend::build(&host, opts, inputs).await?;
    let mut refs = ResultRefs::One(None);
    for (platform, id) in result.refs {
        let lazy = id.map(|id| host.lazy(&id)).transpose()?;
        match (platform, &mut refs) {
            (None, refs) => *refs = ResultRefs::One(lazy),
            (Some(platform), ResultRefs::Many(many)) => drop(many.insert(platform, lazy)),
            (Some(platform), refs) => *refs = ResultRefs::Many([(platform, lazy)].into()),
        }
    }
    Ok(Outcome { refs, metadata: result.metadata })
}

impl FrontendRules {
    /// Whether an image may be run as a frontend.
    fn check_source(&self, source: &str) -> Result<(), BuildError> {
        if self.allowed_repositories.is_empty() {
            return Ok(());
        }
        let name = |text: &str| Reference::parse_normalized(text).map(|r| r.name());
        let wanted = name(source).map_err(|e| invalid(format!("frontend source {source:?}: {e}")))?;
        // What is no name in the configuration matches nothing.
        if self.allowed_repositories.iter().any(|r| name(r).is_ok_and(|r| r == wanted)) {
            return Ok(());
        }
        let message = format!("'{source}' is not an allowed gateway source");
        Err(BuildError::msg(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_repositories_may_be_frontends() {
        let any = FrontendRules::default();
        assert!(any.check_source("anything:1").is_ok());
        let rules = FrontendRules { allowed_repositories: vec!["docker/dockerfile".into()], ..any };
        assert!(rules.check_source("docker.io/docker/dockerfile:1.7").is_ok());
        for other in ["docker/dockerfile-upstream", "evil/docker/dockerfile", "ghcr.io/docker/dockerfile"] {
            let error = rules.check_source(other).unwrap_err();
            assert_eq!(error.message, format!("'{other}' is not an allowed gateway source"));
        }
    }
}
