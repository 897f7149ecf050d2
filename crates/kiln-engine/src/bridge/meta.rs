//! What a source stands for now: digests and configs of images, commits, checksums of downloads.

use crate::build::Build;
use crate::host::layout_of;
use crate::hub::Synthetic;
use futures::FutureExt;
use kiln_digest::{Checksum, Digest};
use kiln_frontend::ResolveOpt;
use kiln_llb::errdefs::{BuildError, Code};
use kiln_llb::{ResolveMode, SourceOp, mask_credentials};
use kiln_oci::Platform;
use kiln_policy::Policies;
use kiln_source::{GitObjects, SourceFacts};
use kiln_worker::{session_context, source_error};

/// What is asked.
#[derive(Clone, Debug)]
pub struct SourceMetaRequest {
    /// The source.
    pub source: SourceOp,
    /// Which image of an index; `None` is the daemon's own platform.
    pub platform: Option<Platform>,
    /// Display name; empty: made from the source.
    pub log_name: String,
    /// Registry or local.
    pub mode: ResolveMode,
    /// Leave the config of an image out.
    pub no_config: bool,
    /// The objects of a git reference too.
    pub git_objects: bool,
    /// A checksum of a download, with these bytes behind it.
    pub checksum: Option<(Checksum, Vec<u8>)>,
    /// Source policies beside those of the build.
    pub policies: Policies,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceMeta {
    /// An image.
    Image(ImageMeta),
    /// A commit.
    Git(GitMeta),
    /// A download.
    Http(HttpMeta),
    /// Nothing: there are no facts about directories of clients.
    Nothing,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageMeta {
    /// Of the index or manifest.
    pub digest: Digest,
    /// As in the registry; empty when it was not asked for.
    pub config: Vec<u8>,
}

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitMeta {
    /// The commit, or the tag object that leads to it, in hex.
    pub checksum: String,
    /// The full name of the reference.
    pub reference: String,
    /// The commit of a tag object; empty when `checksum` is the commit.
    pub commit_checksum: String,
    /// Where they were asked for.
    pub objects: Option<GitObjects>,
}

/// A download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpMeta {
    /// Of the content.
    pub checksum: Digest,
    /// The name it will have.
    pub filename: String,
    /// Seconds since 1970.
    pub last_modified: Option<i64>,
    /// Where one was asked for, as `<algorithm>:<hex>`, with the bytes that went behind the content.
    pub other_checksum: Option<(String, Vec<u8>)>,
}

impl Build {
    /// Finds out what a source, or what policies put in its place, stands for.
    pub(crate) async fn resolve_source(
        &self,
        mut request: SourceMetaRequest,
    ) -> Result<(SourceOp, SourceMeta), BuildError> {
        let (platform, policies) = (request.platform.clone(), std::mem::take(&mut request.policies));
        self.police_source(&mut request.source, platform, &policies).boxed().await?;
        let meta = self.source_meta(&request).await?;
        Ok((request.source, meta))
    }

    /// Finds out what a source stands for, shown as a step of its own.
    pub(crate) async fn source_meta(&self, request: &SourceMetaRequest) -> Result<SourceMeta, BuildError> {
        let identifier = mask_credentials(&request.source.identifier).into_owned();
        let log_name = match request.log_name.as_str() {
            "" => format!("resolve image config for {identifier}"),
            name => name.to_string(),
        };
        match request.source.split() {
            Some((scheme @ ("docker-image" | "oci-layout"), reference)) => {
                let oci_layout = (scheme == "oci-layout").then(|| layout_of(&request.source));
                let opt = ResolveOpt {
                    platform: request.platform.clone(),
                    mode: request.mode,
                    log_name,
                    oci_layout,
                };
                let found = self.find_image(reference, opt).await?;
                let config = if request.no_config { Vec::new() } else { found.config };
                Ok(SourceMeta::Image(ImageMeta { digest: found.digest, config }))
            }
            Some(("git" | "http" | "https", _)) => {
                let shown = Synthetic::start(&self.hub, &log_name);
                let found = self.facts(request).await;
                shown.finish(found.as_ref().err().map(ToString::to_string).as_deref());
                found
            }
            Some(("local", _)) => Ok(SourceMeta::Nothing),
            _ => {
                let message =
                    format!("source {identifier}: metadata of this kind of source is not built yet");
                Err(BuildError::new(Code::Unimplemented, message))
            }
        }
    }

    async fn facts(&self, request: &SourceMetaRequest) -> Result<SourceMeta, BuildError> {
        let platform = request.platform.clone().unwrap_or_else(Platform::host);
        let instance = self.engine.sources().open_source(&request.source, &platform);
        let instance = instance.map_err(|e| source_error(&e))?;
        let mut context = session_context(self.engine.sessions(), &self.session);
        context.memos = self.engine.memos(&self.id);
        match instance.facts(&context).await.map_err(|e| source_error(&e))? {
            SourceFacts::Git { reference, sha, commit } => {
                let objects = match request.git_objects {
                    true => Some(instance.git_objects(&context).await.map_err(|e| source_error(&e))?),
                    false => None,
                };
                let commit_checksum = commit.unwrap_or_default();
                Ok(SourceMeta::Git(GitMeta { checksum: sha, reference, commit_checksum, objects }))
            }
            SourceFacts::Http { digest, filename, last_modified } => {
                let other_checksum = match &request.checksum {
                    Some((algorithm, suffix)) => {
                        let sum = instance.checksum(&context, *algorithm, suffix).await;
                        Some((sum.map_err(|e| source_error(&e))?, suffix.clone()))
                    }
                    None => None,
                };
                Ok(SourceMeta::Http(HttpMeta { checksum: digest, filename, last_modified, other_checksum }))
            }
            SourceFacts::None => {
                let text = mask_credentials(&request.source.identifier).into_owned();
                Err(BuildError::new(Code::Unimplemented, format!("source {text} has no metadata")))
            }
        }
    }
}
