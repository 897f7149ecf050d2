//! Downloads: one file from an HTTP server or from the client's session.

mod date;
mod fetch;
mod filename;
mod gunzip;
mod id;
mod save;
mod store;

use std::sync::Arc;

use async_trait::async_trait;
use kiln_digest::{Checksum, Digest};
use kiln_llb::cachekey::{HttpKey, http_key};
use kiln_registry::{Registry, Timeouts};
use kiln_snapshot::{Snapshot, SnapshotId, Snapshots};
use tokio::sync::Mutex;

pub(crate) use self::filename::safe as safe_name;
pub use self::id::HttpId;
pub(crate) use self::id::parse_int;
pub(crate) use self::save::{FileSpec, Save};
use crate::locks::Locks;
use crate::{Result, SourceContext, SourceError, SourceFacts, SourceInstance, SourceKeys};

/// Longest suffix of a checksum that is asked for, in bytes.
const MAX_SUFFIX: usize = 4 << 10;

/// Downloads of one daemon.
pub struct HttpSource {
    registry: Registry,
    timeouts: Timeouts,
    snapshots: Snapshots,
    locks: Locks,
}

/// What an address stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    digest: Digest,
    filename: String,
    /// In the HTTP date format.
    last_modified: Option<String>,
    /// Where it is; `None` while only the checksum is known.
    snapshot: Option<SnapshotId>,
}

impl HttpSource {
    /// Uses the proxies and certificates of the registries.
    pub fn new(registry: &Registry, snapshots: Snapshots) -> Result<Self> {
        store::migrate(snapshots.content().db())?;
        let timeouts = registry.timeouts();
        Ok(Self { registry: registry.clone(), timeouts, snapshots, locks: Locks::default() })
    }
}

impl std::fmt::Debug for HttpSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpSource")
    }
}

/// One download of a build.
#[derive(Debug)]
pub struct HttpInstance {
    source: Arc<HttpSource>,
    id: HttpId,
    resolved: Mutex<Option<(Resolved, Option<Snapshot>)>>,
}

impl HttpInstance {
    /// Nothing is asked yet.
    pub fn new(source: Arc<HttpSource>, id: HttpId) -> Self {
        Self { source, id, resolved: Mutex::new(None) }
    }
}

#[async_trait]
impl SourceInstance for HttpInstance {
    async fn keys(&self, cx: &SourceContext) -> Result<SourceKeys> {
        let mut slot = self.resolved.lock().await;
        if slot.is_none() {
            *slot = Some(match self.id.checksum {
                // The content is known, so the server is not asked.
                Some(digest) => {
                    let filename = filename::choose(&self.id, None);
                    (Resolved { digest, filename, last_modified: None, snapshot: None }, None)
                }
                None => {
                    let (resolved, snapshot) = self.source.resolve(&self.id, cx).await?;
                    (resolved, Some(snapshot))
                }
            });
        }
        let Some((resolved, _)) = slot.as_ref() else {
            return Err(SourceError::Http { url: self.id.display(), message: "not resolved".to_string() });
        };
        Ok(SourceKeys { keys: vec![self.id.key(resolved)], pin: resolved.digest.to_string() })
    }

    async fn snapshot(&self, cx: &SourceContext) -> Result<Option<Snapshot>> {
        let mut slot = self.resolved.lock().await;
        if let Some((_, Some(snapshot))) = slot.as_ref() {
            return Ok(Some(snapshot.clone()));
        }
        let expected = slot.as_ref().map(|(resolved, _)| resolved.digest).or(self.id.checksum);
        let (resolved, snapshot) = match expected {
            Some(digest) => self.source.fetch_expected(&self.id, digest, cx).await?,
            None => self.source.resolve(&self.id, cx).await?,
        };
        *slot = Some((resolved, Some(snapshot.clone())));
        Ok(Some(snapshot))
    }

    async fn checksum(&self, cx: &SourceContext, algorithm: Checksum, suffix: &[u8]) -> Result<String> {
        if suffix.len() > MAX_SUFFIX {
            let message = format!("http checksum request suffix exceeds max size {MAX_SUFFIX}");
            return Err(SourceError::Http { url: self.id.display(), message });
        }
        let snapshot = self.snapshot(cx).await?;
        let name = self.resolved.lock().await.as_ref().map(|(resolved, _)| resolved.filename.clone());
        let missing = || SourceError::Http { url: self.id.display(), message: "not resolved".to_string() };
        let (Some(snapshot), Some(name)) = (snapshot, name) else { return Err(missing()) };
        let (snapshots, suffix) = (self.source.snapshots.clone(), suffix.to_vec());
        crate::blocking::blocking(move || {
            let mounted = snapshots.mount_view(&snapshot)?;
            let file = mounted.root().open_file(&name)?;
            let sum = algorithm.of(std::io::Read::chain(file, suffix.as_slice()));
            sum.map_err(SourceError::io(format!("read {name}")))
        })
        .await
    }

    async fn facts(&self, cx: &SourceContext) -> Result<SourceFacts> {
        self.keys(cx).await?;
        Ok(match self.resolved.lock().await.as_ref() {
            Some((resolved, _)) => SourceFacts::Http {
                digest: resolved.digest,
                filename: resolved.filename.clone(),
                last_modified: resolved.last_modified.as_deref().and_then(date::parse).map(|t| t.as_second()),
            },
            None => SourceFacts::None,
        })
    }
}

impl HttpId {
    fn key(&self, resolved: &Resolved) -> String {
        let key = HttpKey {
            filename: &resolved.filename,
            perm: self.perm,
            uid: self.uid,
            gid: self.gid,
            checksum: resolved.digest.to_string(),
            last_modified: resolved.last_modified.as_deref().unwrap_or_default(),
            auth_header_secret: self.auth_header_secret.as_deref().unwrap_or_default(),
            header: &self.headers,
        };
        http_key(&key).to_string()
    }
}
