//! From source operations to keys and snapshots.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use kiln_content::ContentStore;
use kiln_digest::{Checksum, Digest};
use kiln_llb::cachekey::source_digest;
use kiln_oci::Platform;
use kiln_registry::Registry;
use kiln_snapshot::{Snapshot, Snapshots};

use crate::git::{GitConfig, GitId, GitSource};
use crate::http::{HttpId, HttpSource};
use crate::image::{ImageId, ImageSource};
use crate::{BlobId, BlobInstance, Result, SourceContext, SourceError, redact_url};

/// What identifies the content of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceKeys {
    /// Key texts, quickest first; each alone identifies the content (spec llb-and-solver.md section 4, "Source").
    pub keys: Vec<String>,
    /// What provenance records: an image digest, a commit, a content digest.
    pub pin: String,
}

impl SourceKeys {
    /// The cache key digests of the operation, one per key.
    pub fn digests(&self) -> Vec<Digest> {
        self.keys.iter().map(|k| source_digest(k)).collect()
    }
}

/// One source operation of a build. Resolved once; keys and snapshot then agree.
#[async_trait]
pub trait SourceInstance: Send + Sync {
    /// Finds out what the source stands for, with as little traffic as it takes.
    async fn keys(&self, cx: &SourceContext) -> Result<SourceKeys>;

    /// The content; images come lazily (`Snapshots::ensure` with [`crate::image::RegistryLayers`]). `None` is the
    /// empty filesystem.
    async fn snapshot(&self, cx: &SourceContext) -> Result<Option<Snapshot>>;

    /// What is known of the content without having it.
    async fn facts(&self, _cx: &SourceContext) -> Result<SourceFacts> {
        Ok(SourceFacts::None)
    }

    /// The objects of a git reference.
    async fn git_objects(&self, _cx: &SourceContext) -> Result<GitObjects> {
        Err(SourceError::Unsupported("git objects of a source that is no git repository".to_string()))
    }

    /// A checksum over a downloaded file with `suffix` behind it, as `<algorithm>:<hex>`.
    async fn checksum(&self, _cx: &SourceContext, _algorithm: Checksum, _suffix: &[u8]) -> Result<String> {
        Err(SourceError::Unsupported("the checksum of a source that is no download".to_string()))
    }
}

/// The objects that a git reference leads to, as git stores them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitObjects {
    /// The commit.
    pub commit: Vec<u8>,
    /// The annotated tag that leads to it.
    pub tag: Option<Vec<u8>>,
}

/// What can be said of a source's content without having it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceFacts {
    /// Nothing here; images are asked through [`crate::image::ImageSource`].
    None,
    /// A commit.
    Git {
        /// Full name of the reference.
        reference: String,
        /// The commit, or the tag object, in hex.
        sha: String,
        /// The commit that a tag object leads to.
        commit: Option<String>,
    },
    /// A download.
    Http {
        /// Of the content.
        digest: Digest,
        /// The name it will have.
        filename: String,
        /// `Last-Modified`, in seconds since 1970.
        last_modified: Option<i64>,
    },
}

/// What sources work on.
#[derive(Clone, Debug)]
pub struct SourcesConfig {
    /// Where registries are reached.
    pub registry: Registry,
    /// Where snapshots go.
    pub snapshots: Snapshots,
    /// How git is run.
    pub git: GitConfig,
    /// Directory for scratch files, private to the daemon; must exist.
    pub scratch: PathBuf,
}

/// All sources of a daemon but local directories. Cheap to clone.
#[derive(Clone)]
pub struct Sources {
    images: Arc<ImageSource>,
    http: Arc<HttpSource>,
    git: Arc<GitSource>,
    registry: Registry,
    snapshots: Snapshots,
}

impl Sources {
    /// Prepares the tables that sources keep; connects to nothing.
    pub fn new(config: SourcesConfig) -> Result<Self> {
        let content: ContentStore = config.snapshots.content().clone();
        Ok(Self {
            images: Arc::new(ImageSource::new(config.registry.clone(), content, config.snapshots.clone())?),
            http: Arc::new(HttpSource::new(&config.registry, config.snapshots.clone())?),
            git: Arc::new(GitSource::new(
                config.git,
                config.registry.clone(),
                config.snapshots.clone(),
                config.scratch,
            )),
            registry: config.registry,
            snapshots: config.snapshots,
        })
    }

    /// Images, for frontends that resolve them and for exports.
    pub fn images(&self) -> &Arc<ImageSource> {
        &self.images
    }

    /// Prepares a source operation. `platform` is that of the operation, else of the worker.
    pub fn open_source(
        &self,
        op: &kiln_llb::SourceOp,
        platform: &Platform,
    ) -> Result<Box<dyn SourceInstance>> {
        let invalid = |message: &str| SourceError::Invalid {
            identifier: redact_url(&op.identifier),
            message: message.to_string(),
        };
        let (scheme, rest) = op.split().ok_or_else(|| invalid("no scheme"))?;
        match scheme {
            "docker-image" => {
                let id = ImageId::parse(rest, &op.attrs, platform)?;
                Ok(Box::new(crate::image::ImageInstance::new(self.images.clone(), id)))
            }
            "http" | "https" => {
                let id = HttpId::parse(&op.identifier, &op.attrs)?;
                Ok(Box::new(crate::http::HttpInstance::new(self.http.clone(), id)))
            }
            "git" => {
                let id = GitId::parse(rest, &op.attrs, self.git.allow_file())?;
                Ok(Box::new(crate::git::GitInstance::new(self.git.clone(), id)))
            }
            "oci-layout" => {
                let id = ImageId::parse_layout(rest, &op.attrs, platform)?;
                Ok(Box::new(crate::image::ImageInstance::new(self.images.clone(), id)))
            }
            crate::blob::REGISTRY_SCHEME | crate::blob::LAYOUT_SCHEME => {
                let id = BlobId::parse(scheme, rest, &op.attrs)?;
                Ok(Box::new(BlobInstance::new(self.registry.clone(), self.snapshots.clone(), id)))
            }
            "local" => Err(invalid("local sources are served by the session")),
            _ => Err(invalid("unknown scheme")),
        }
    }
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sources")
    }
}
