//! `# syntax=`: another frontend for the file (spec dockerfile.md section 1).

use crate::build::FrontendResult;
use crate::context::Context;
use crate::fail::wire_ranges;
use kiln_dockerfile::{Range, directive};
use kiln_llb::errdefs::BuildError;
use kiln_oci::Reference;
use std::collections::BTreeMap;

/// The frontend that a file or its client asks for.
#[derive(Debug)]
pub(crate) struct Syntax {
    pub(crate) image: String,
    /// The image and what stands after it.
    cmdline: String,
    /// Where the file says it; `None` for the build argument.
    at: Option<Range>,
}

impl Syntax {
    /// What is asked for. A frontend that was itself asked for does not look.
    pub(crate) fn of(cx: &Context<'_>) -> Option<Syntax> {
        if cx.options.is_forwarded {
            return None;
        }
        if let Some(text) = &cx.options.syntax {
            let image = text.trim().split(' ').next().unwrap_or_default().to_string();
            return Some(Syntax { image, cmdline: text.clone(), at: None });
        }
        let found = directive::detect_syntax(&cx.entrypoint.info.data)?;
        let image = found.first_word().to_string();
        Some(Syntax { image, at: Some(found.range), cmdline: found.value })
    }

    /// Lets that frontend build.
    pub(crate) async fn forward(
        &self,
        cx: &Context<'_>,
        opts: &BTreeMap<String, String>,
    ) -> Result<FrontendResult, BuildError> {
        let mut opts = opts.clone();
        opts.insert("cmdline".to_string(), self.cmdline.clone());
        opts.insert("source".to_string(), self.image.clone());
        let result = cx.host.forward(opts, cx.inputs.clone()).await;
        result.map_err(|error| match self.at {
            // It has said where.
            _ if error.sources().next().is_some() => error,
            Some(at) => error.with_source(cx.entrypoint.info.clone(), wire_ranges(at)),
            None => error.context(format!("failed with build-arg:BUILDKIT_SYNTAX = {}", self.cmdline)),
        })
    }
}

/// Whether this frontend stands in for an image that a syntax directive names: `docker/dockerfile` of every version.
pub fn is_builtin(image: &str) -> bool {
    if matches!(image, "dockerfile.v0" | "") {
        return true;
    }
    Reference::parse_normalized(image).is_ok_and(|r| {
        matches!(r.name().as_str(), "docker.io/docker/dockerfile" | "docker.io/docker/dockerfile-upstream")
    })
}

/// Whether an image stands for the frontend with its experiments, such as `docker/dockerfile:1-labs`.
pub(crate) fn is_labs(image: &str) -> bool {
    is_builtin(image) && image.split('@').next().is_some_and(|name| name.ends_with("labs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_frontend_is_known_by_its_images() {
        for own in [
            "docker/dockerfile:1",
            "docker.io/docker/dockerfile:1.7-labs",
            "dockerfile.v0",
            "docker/dockerfile-upstream:master",
        ] {
            assert!(is_builtin(own), "{own}");
        }
        for other in ["tonistiigi/x", "dockerfile", "ghcr.io/docker/dockerfile:1", "evil/labs"] {
            assert!(!is_builtin(other), "{other}");
            assert!(!is_labs(other), "{other}");
        }
        let digest = format!("docker/dockerfile:labs@sha256:{:064}", 0);
        assert!(is_labs("docker/dockerfile:1.7-labs") && is_labs(&digest));
        assert!(!is_labs("docker/dockerfile:1"));
    }
}
