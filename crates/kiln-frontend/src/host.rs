//! What the frontend asks of the build it runs in.

use crate::build::FrontendResult;
use async_trait::async_trait;
use kiln_digest::Digest;
use kiln_llb::errdefs::{BuildError, Code};
use kiln_llb::{Definition, Range, ResolveMode, SourceInfo, SourceOp};
use kiln_oci::Platform;
use std::collections::BTreeMap;

/// The name of a result that the host keeps for this build.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RefId(pub String);

/// How an image is looked up.
#[derive(Clone, Debug, Default)]
pub struct ResolveOpt {
    /// Which image of an index; `None` is the daemon's own platform.
    pub platform: Option<Platform>,
    /// Registry or local.
    pub mode: ResolveMode,
    /// Display name of the lookup, such as `[internal] load metadata for docker.io/library/alpine:3`.
    pub log_name: String,
    /// Look in a store of the client and not in a registry.
    pub oci_layout: Option<OciStore>,
}

/// A store of OCI images at a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct OciStore {
    /// The session that has it.
    pub session_id: String,
    /// Its name there.
    pub store_id: String,
}

/// An image that was found.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// The reference after source policies; complete (registry and tag written out).
    pub reference: String,
    /// Of the manifest or index that the reference stands for.
    pub digest: Digest,
    /// The image config, as in the registry.
    pub config: Vec<u8>,
}

/// What an image name stands for.
#[derive(Clone, Debug)]
pub enum Resolved {
    /// An image.
    Image(ResolvedImage),
    /// Source policies put a source of another kind in its place; this is its identifier.
    Elsewhere(String),
}

impl Resolved {
    /// The image that was found for `reference`.
    ///
    /// # Errors
    /// If it is none.
    pub fn image(self, reference: &str) -> Result<ResolvedImage, BuildError> {
        match self {
            Self::Image(image) => Ok(image),
            Self::Elsewhere(other) => {
                let text =
                    format!("ref mutated by policy to non-image: docker-image://{reference} -> {other}");
                Err(BuildError::msg(text))
            }
        }
    }
}

/// How a definition is solved.
#[derive(Clone, Debug, Default)]
pub struct SolveOpt {
    /// Where cached results may come from.
    pub cache_imports: Vec<CacheImport>,
}

/// A place with exported cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheImport {
    /// Such as `registry`.
    pub kind: String,
    /// Depends on the kind.
    pub attrs: BTreeMap<String, String>,
}

/// A remark about the Dockerfile.
#[derive(Clone, Debug, PartialEq)]
pub struct Warning {
    /// The vertex that it is shown with.
    pub vertex: Digest,
    /// 1 for build checks.
    pub level: i32,
    /// One line.
    pub short: String,
    /// More lines.
    pub detail: Vec<String>,
    /// Where to read on; may be empty.
    pub url: String,
    /// The file.
    pub info: Option<SourceInfo>,
    /// The places in it.
    pub ranges: Vec<Range>,
}

/// The frontend's way to ask back; one per build.
#[async_trait]
pub trait Host: Send + Sync {
    /// Finds an image. `reference` is complete (registry and tag or digest written out).
    async fn resolve_image(&self, reference: &str, opt: ResolveOpt) -> Result<Resolved, BuildError>;

    /// Takes a graph. Nothing needs to run before the result is read or exported.
    async fn solve(&self, def: Definition, opt: SolveOpt) -> Result<RefId, BuildError>;

    /// Reads a file, at most `limit` bytes of it. A missing file has the code [`Code::NotFound`].
    async fn read_file(&self, r: &RefId, path: &str, limit: Option<u64>) -> Result<Vec<u8>, BuildError>;

    /// Shows a warning.
    async fn warn(&self, w: Warning);

    /// The platforms that this machine runs, the best one first. Empty means only the one of this binary.
    fn build_platforms(&self) -> &[Platform];

    /// The session of the client.
    fn session_id(&self) -> &str;

    /// Lets another frontend, the image that the option `source` names, build in place of this one.
    async fn forward(
        &self,
        opts: BTreeMap<String, String>,
        _inputs: BTreeMap<String, Definition>,
    ) -> Result<FrontendResult, BuildError> {
        let source = opts.get("source").map_or("", String::as_str);
        let message = format!("frontend image {source} cannot be run here, only docker/dockerfile is known");
        Err(BuildError::new(Code::Unimplemented, message))
    }

    /// When the content of a git or http source was made, in seconds since 1970 (SOURCE_DATE_EPOCH from a source).
    /// `None` when the source does not say.
    async fn source_time(&self, source: &SourceOp, _log_name: &str) -> Result<Option<i64>, BuildError> {
        let message = format!("SOURCE_DATE_EPOCH cannot be taken from {} here", source.identifier);
        Err(BuildError::new(Code::Unimplemented, message))
    }
    /// When the newest regular file in an archive was made, in seconds since 1970; `None` when the file is no archive.
    async fn archive_time(&self, _r: &RefId, path: &str) -> Result<Option<i64>, BuildError> {
        Err(BuildError::new(Code::Unimplemented, format!("the times in archive {path} cannot be read here")))
    }
}
