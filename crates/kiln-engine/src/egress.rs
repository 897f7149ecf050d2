//! What the steps of a build may fetch through their proxies, and what they have fetched.

use crate::build::Build;
use futures::FutureExt;
use kiln_digest::Digest;
use kiln_llb::errdefs::{BuildError, Detail};
use kiln_llb::{SourceOp, mask_credentials};
use kiln_proxy::{Denied, Policy, Record, Verdict};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// By step what it fetched.
pub(crate) type Fetched = BTreeMap<Digest, Arc<Record>>;

/// The source policies of a build, asked about each URL as about the source that it would be.
pub(crate) struct OfBuild(Weak<Build>);

impl OfBuild {
    pub(crate) fn of(build: &Weak<Build>) -> Arc<dyn Policy> {
        Arc::new(Self(build.clone()))
    }
}

#[async_trait::async_trait]
impl Policy for OfBuild {
    async fn decide(&self, url: &str) -> Result<Verdict, Denied> {
        let build = self.0.upgrade().ok_or_else(|| Denied("the build has ended".into()))?;
        let asked = SourceOp { identifier: url.to_string(), attrs: BTreeMap::new() };
        let mut decided = asked.clone();
        let rules = &build.sources;
        if rules.policies.is_empty() && rules.session.is_empty() {
            return Ok(Verdict::Allowed);
        }
        let policed = build.police(&mut decided, None, &rules.policies).boxed().await;
        policed.map_err(|e| Denied(reason(&e)))?;
        if !decided.attrs.is_empty() {
            return Err(Denied("the source policy asks for more than another URL".into()));
        }
        Ok(if decided == asked { Verdict::Allowed } else { Verdict::Instead(decided.identifier) })
    }
}

impl Build {
    /// What decides about its containers' requests, if they have the proxied network.
    pub(crate) fn proxied(self: &Arc<Self>) -> Option<Arc<dyn Policy>> {
        self.rights.proxied.then(|| OfBuild::of(&Arc::downgrade(self)))
    }
}

/// What the client's policy says counts more than that it said no.
fn reason(error: &BuildError) -> String {
    let said = error.details.iter().find_map(|d| match d {
        Detail::PolicyDenied(messages) if !messages.is_empty() => Some(messages.join("; ")),
        _ => None,
    });
    said.unwrap_or_else(|| mask_credentials(&error.message).into_owned())
}

impl std::fmt::Debug for OfBuild {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OfBuild({:?})", self.0.upgrade().map(|build| build.id.clone()))
    }
}
