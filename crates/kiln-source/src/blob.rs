//! Single blobs of registries and layouts, as files (`docker-image+blob://`, `oci-layout+blob://`).

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::StreamExt;
use kiln_digest::Digest;
use kiln_llb::cachekey::image_blob_key;
use kiln_llb::op::attr;
use kiln_oci::{Descriptor, Reference};
use kiln_registry::Registry;
use kiln_snapshot::{Snapshot, Snapshots};
use tokio::sync::Mutex;

use crate::http::{FileSpec, Save, parse_int, safe_name};
use crate::image::Origin;
use crate::layout::{ByteStream, Layout};
use crate::{Result, SourceContext, SourceError, SourceInstance, SourceKeys};

/// Identifier of blobs in registries.
pub(crate) const REGISTRY_SCHEME: &str = "docker-image+blob";
/// Identifier of blobs in layouts.
pub(crate) const LAYOUT_SCHEME: &str = "oci-layout+blob";

/// Where a blob is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locator {
    /// Name with digest.
    pub reference: Reference,
    /// Of the blob.
    pub digest: Digest,
    /// Registry or layout.
    pub origin: Origin,
}

impl Locator {
    /// Reads `name@digest`. A blob of a layout is looked for in `layout`.
    pub(crate) fn parse(scheme: &str, name: &str, layout: Layout) -> Result<Self, String> {
        let reference = Reference::parse_normalized(name).map_err(|e| e.to_string())?;
        let digest = reference.digest().ok_or("a blob is named by its digest")?;
        if digest.is_random() {
            return Err("unsupported digest algorithm".to_string());
        }
        let origin = match scheme {
            REGISTRY_SCHEME => Origin::Registry,
            LAYOUT_SCHEME if layout.store.is_empty() => {
                return Err("oci-layout blob source requires store id".to_string());
            }
            LAYOUT_SCHEME => Origin::Layout(layout),
            other => return Err(format!("scheme {other:?} is not one of blobs")),
        };
        Ok(Self { reference, digest, origin })
    }

    /// Begins to read it. Who reads must verify.
    pub(crate) async fn open(&self, registry: &Registry, cx: &SourceContext) -> Result<ByteStream> {
        match &self.origin {
            Origin::Registry => {
                let repository = registry.pull(&self.reference, cx.access.clone())?;
                let descriptor = Descriptor::new("application/octet-stream", self.digest, 0);
                Ok(ByteStream { size: None, data: repository.open(&descriptor).await? })
            }
            Origin::Layout(layout) => {
                let opened = cx.client.layout_blob(layout, &self.digest).await;
                opened.map_err(|e| SourceError::Client { what: self.to_string(), message: e.0 })
            }
        }
    }
}

impl std::fmt::Display for Locator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = match self.origin {
            Origin::Registry => REGISTRY_SCHEME,
            Origin::Layout(_) => LAYOUT_SCHEME,
        };
        write!(f, "{scheme}://{}", self.reference)
    }
}

/// A blob and the file to make of it.
#[derive(Clone, Debug)]
pub struct BlobId {
    /// Where it is.
    pub locator: Locator,
    /// Name, permissions and owner of the file.
    file: FileSpec,
    /// The name asked for, for the cache key.
    filename: String,
}

impl BlobId {
    /// Reads the part behind the scheme and the attributes of a source operation.
    pub fn parse(scheme: &str, name: &str, attrs: &BTreeMap<String, String>) -> Result<Self> {
        let invalid =
            |message: String| SourceError::Invalid { identifier: format!("{scheme}://{name}"), message };
        let text = |key: &str| attrs.get(key).cloned().unwrap_or_default();
        let number = |key: &str| match attrs.get(key) {
            None => Ok(0),
            Some(v) => parse_int(v).ok_or_else(|| invalid(format!("{key}: invalid number {v:?}"))),
        };
        let layout = Layout { session: text(attr::OCI_SESSION), store: text(attr::OCI_STORE) };
        let locator = Locator::parse(scheme, name, layout).map_err(invalid)?;
        let given = text(attr::HTTP_FILENAME);
        let filename = if given.is_empty() { given } else { safe_name(&given) };
        let name = if filename.is_empty() { locator.digest.hex() } else { filename.clone() };
        let file = FileSpec {
            name,
            perm: number(attr::HTTP_PERM)?,
            uid: number(attr::HTTP_UID)?,
            gid: number(attr::HTTP_GID)?,
            description: format!("blob {}", locator.reference),
            source: locator.to_string(),
        };
        Ok(Self { locator, file, filename })
    }
}

/// One blob of a build.
pub struct BlobInstance {
    registry: Registry,
    snapshots: Snapshots,
    id: BlobId,
    made: Mutex<Option<Snapshot>>,
}

impl BlobInstance {
    /// Nothing is asked yet.
    pub fn new(registry: Registry, snapshots: Snapshots, id: BlobId) -> Self {
        Self { registry, snapshots, id, made: Mutex::new(None) }
    }
}

#[async_trait]
impl SourceInstance for BlobInstance {
    /// The digest is in the name, so nobody is asked.
    async fn keys(&self, _: &SourceContext) -> Result<SourceKeys> {
        let BlobId { locator, file, filename } = &self.id;
        let key = image_blob_key(&locator.digest, filename, file.perm, file.uid, file.gid);
        Ok(SourceKeys { keys: vec![key.to_string()], pin: locator.digest.to_string() })
    }

    async fn snapshot(&self, cx: &SourceContext) -> Result<Option<Snapshot>> {
        let mut made = self.made.lock().await;
        if made.is_none() {
            let mut blob = self.id.locator.open(&self.registry, cx).await?;
            let mut status = cx.begin(format!("downloading {}", self.id.locator.digest));
            let mut save = Save::begin(&self.snapshots, self.id.file.clone()).await?;
            let (mut current, total) = (0, blob.size.unwrap_or(0));
            while let Some(piece) = blob.data.next().await {
                let piece = piece.map_err(SourceError::io(format!("read {}", self.id.locator)))?;
                current += piece.len() as u64;
                if let Some(size) = blob.size.filter(|size| current > *size) {
                    let (what, message) = (self.id.locator.to_string(), format!("longer than {size} bytes"));
                    return Err(SourceError::Client { what, message });
                }
                save.write(piece).await?;
                status.set("", current, total);
            }
            let (_, snapshot) = save.finish(None, Some(self.id.locator.digest)).await?;
            *made = Some(snapshot);
        }
        Ok(made.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(scheme: &str, name: &str, attrs: &[(&str, &str)]) -> Result<BlobId> {
        let attrs = attrs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        BlobId::parse(scheme, name, &attrs)
    }

    #[test]
    fn what_names_a_blob() {
        let name = format!("h/r@{}", Digest::sha256("x"));
        let id = parse(REGISTRY_SCHEME, &name, &[("http.filename", "f"), ("http.uid", "7")]).unwrap();
        assert_eq!((id.file.name.as_str(), id.file.uid, &id.locator.origin), ("f", 7, &Origin::Registry));
        let id = parse(LAYOUT_SCHEME, &name, &[("oci.store", "s"), ("oci.session", "i")]).unwrap();
        let layout = Layout { session: "i".into(), store: "s".into() };
        assert_eq!(id.locator.origin, Origin::Layout(layout));
        assert_eq!(id.file.name, Digest::sha256("x").hex());
        let id = parse(REGISTRY_SCHEME, &name, &[("http.filename", "../../etc/passwd")]).unwrap();
        assert_eq!(id.file.name, "passwd");
        for (scheme, name, attrs) in [
            (REGISTRY_SCHEME, "h/r:tag", &[][..]),
            (REGISTRY_SCHEME, "h/r@md5:00", &[]),
            (LAYOUT_SCHEME, &name, &[]),
            (REGISTRY_SCHEME, &name, &[("http.perm", "rw")]),
        ] {
            assert!(parse(scheme, name, attrs).is_err(), "{scheme} {name} {attrs:?}");
        }
    }
}
