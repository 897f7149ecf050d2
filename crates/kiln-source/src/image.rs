//! Images: resolved by name or digest, keyed, and turned into lazy snapshots.

mod documents;
mod id;
mod layers;
mod records;
mod resolve;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use kiln_content::ContentStore;
use kiln_digest::Digest;
use kiln_llb::cachekey::{ImageKey, image_key};
use kiln_oci::{Descriptor, ImageConfig, Reference, annotation, chain_id};
use kiln_registry::Registry;
use kiln_snapshot::{CompressionOpts, LayerDesc, NewRef, Snapshot, Snapshots};
use tokio::sync::Mutex;

pub use self::id::{ImageId, Origin};
pub use self::layers::{LayerStatuses, RegistryLayers};
use crate::layout::LayoutLayers;
use crate::{Result, SourceContext, SourceError, SourceInstance, SourceKeys};

/// Images of one daemon.
pub struct ImageSource {
    registry: Registry,
    content: ContentStore,
    snapshots: Snapshots,
}

impl std::fmt::Debug for ImageSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ImageSource")
    }
}

/// What a reference stands for on one platform.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// What was asked for.
    pub reference: Reference,
    /// The index, or the manifest when there is no index.
    pub root: Descriptor,
    /// The manifest of the platform.
    pub manifest: Descriptor,
    /// The config of the platform.
    pub config: Descriptor,
    /// The bytes of the config.
    pub config_bytes: Vec<u8>,
    /// Layers in the manifest's order, bottom first.
    pub layers: Vec<Descriptor>,
}

impl ImageSource {
    /// Prepares the table of images; connects to nothing.
    pub fn new(registry: Registry, content: ContentStore, snapshots: Snapshots) -> Result<Self> {
        records::migrate(content.db())?;
        Ok(Self { registry, content, snapshots })
    }

    /// Forgets the manifests and configs of images that were not asked for in the last `keep`.
    pub fn forget(&self, keep: Duration) -> Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let before = now.saturating_sub(keep).as_millis();
        // Rounded up, so that without `keep` nothing stays.
        records::forget_before(self.content.db(), i64::try_from(before).unwrap_or(i64::MAX).saturating_add(1))
    }

    /// The snapshot of an image's layers, lazy; `None` for an image without layers.
    pub fn snapshot(&self, id: &ImageId, image: &ResolvedImage) -> Result<Option<Snapshot>> {
        let layers = self.layers(id, image)?;
        let new = NewRef::new(id.kind, format!("pulled from {}", id.reference));
        Ok(self.snapshots.image_layers(&layers, &new)?)
    }

    /// The layers with their diff ids and where they can be fetched from.
    fn layers(&self, id: &ImageId, image: &ResolvedImage) -> Result<Vec<LayerDesc>> {
        let fault = |message: String| SourceError::Image { reference: id.reference.to_string(), message };
        let config = ImageConfig::parse(&image.config_bytes)
            .map_err(|e| fault(format!("invalid image config: {e}")))?;
        let diff_ids = config.rootfs.diff_ids;
        if diff_ids.iter().any(Digest::is_random) {
            return Err(fault("invalid diff id in image config".to_string()));
        }
        if diff_ids.len() != image.layers.len() {
            return Err(fault("mismatched image rootfs and manifest layers".to_string()));
        }
        let layers = image.layers.iter().zip(diff_ids);
        let mut layers: Vec<_> =
            layers.map(|(d, diff_id)| LayerDesc { descriptor: sourced(d, id), diff_id }).collect();
        if let Some(limit) = id.layer_limit {
            layers.truncate(limit as usize);
        }
        Ok(layers)
    }
}

/// The layer's descriptor with the repository it can be fetched from. What the manifest says about that is dropped:
/// it must not send us to other hosts.
fn sourced(layer: &Descriptor, id: &ImageId) -> Descriptor {
    let mut out = layer.clone();
    out.annotations.retain(|key, _| {
        !key.starts_with(annotation::DISTRIBUTION_SOURCE) && key != annotation::UNCOMPRESSED
    });
    out.urls.clear();
    out.data = None;
    match id.origin {
        Origin::Registry => {
            let key = format!("{}{}", annotation::DISTRIBUTION_SOURCE, id.reference.domain());
            out.with_annotation(&key, id.reference.path())
        }
        Origin::Layout(_) => out,
    }
}

/// The two keys of an image (spec llb-and-solver.md section 4).
fn keys(id: &ImageId, image: &ResolvedImage) -> Result<SourceKeys> {
    let fault = |message: String| SourceError::Image { reference: id.reference.to_string(), message };
    let count = image.layers.len();
    if let Some(limit) = id.layer_limit.filter(|limit| *limit as usize > count) {
        let message =
            format!("layer limit {limit} is greater than the number of layers in the image {count}");
        return Err(fault(message));
    }
    let first = ImageKey {
        digest: &image.root.digest,
        platform: &id.platform.normalize(),
        layer_limit: id.layer_limit,
    };
    let mut keys = vec![image_key(&first).to_string()];
    match ImageConfig::parse(&image.config_bytes) {
        Err(e) if id.layer_limit.is_some() => {
            return Err(fault(format!("failed to parse image config: {e}")));
        }
        Err(_) => keys.push(Digest::sha256(&image.config_bytes).to_string()),
        Ok(config) if config.rootfs.kind == "layers" => {
            let mut diff_ids = config.rootfs.diff_ids;
            if let Some(limit) = id.layer_limit {
                diff_ids.truncate(limit as usize);
            }
            keys.extend(chain_id(&diff_ids).map(|c| c.to_string()));
        }
        Ok(_) => {}
    }
    Ok(SourceKeys { keys, pin: image.root.digest.to_string() })
}

/// One image of a build.
#[derive(Debug)]
pub struct ImageInstance {
    source: Arc<ImageSource>,
    id: ImageId,
    resolved: Mutex<Option<ResolvedImage>>,
}

impl ImageInstance {
    /// Nothing is asked yet.
    pub fn new(source: Arc<ImageSource>, id: ImageId) -> Self {
        Self { source, id, resolved: Mutex::new(None) }
    }

    async fn resolved(&self, cx: &SourceContext) -> Result<ResolvedImage> {
        let mut slot = self.resolved.lock().await;
        if let Some(image) = slot.as_ref() {
            return Ok(image.clone());
        }
        let image = self.source.resolve(&self.id, cx).await?;
        *slot = Some(image.clone());
        Ok(image)
    }
}

#[async_trait]
impl SourceInstance for ImageInstance {
    async fn keys(&self, cx: &SourceContext) -> Result<SourceKeys> {
        keys(&self.id, &self.resolved(cx).await?)
    }

    async fn snapshot(&self, cx: &SourceContext) -> Result<Option<Snapshot>> {
        let image = self.resolved(cx).await?;
        let (source, id) = (self.source.clone(), self.id.clone());
        let snapshot = crate::blocking::blocking(move || source.snapshot(&id, &image)).await?;
        if let (Some(snapshot), Origin::Layout(layout)) = (&snapshot, &self.id.origin) {
            // Later the client is gone, so its layers do not wait until somebody needs them.
            let (client, content) = (cx.client.clone(), self.source.content.clone());
            let provider = LayoutLayers { layout: layout.clone(), client, content };
            let lines = LayerStatuses::new(cx.progress.clone());
            self.source.snapshots.fetch(snapshot, &CompressionOpts::default(), &provider, &lines).await?;
        }
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_llb::cachekey::source_digest;
    use kiln_oci::Platform;
    use std::collections::BTreeMap;

    fn image(config: &str, layers: usize) -> ResolvedImage {
        let digest = format!("sha256:{}", "1".repeat(64)).parse().unwrap();
        let root = Descriptor::new("", digest, 1);
        ResolvedImage {
            reference: Reference::parse_normalized("a").unwrap(),
            manifest: root.clone(),
            config: root.clone(),
            layers: vec![root.clone(); layers],
            root,
            config_bytes: config.as_bytes().to_vec(),
        }
    }

    fn id(limit: Option<&str>) -> ImageId {
        let attrs = limit.map(|l| ("image.layerlimit".to_string(), l.to_string()));
        let attrs: BTreeMap<_, _> = attrs.into_iter().collect();
        ImageId::parse("docker.io/library/a:b", &attrs, &Platform::new("linux", "amd64")).unwrap()
    }

    #[test]
    fn keys_of_the_specification() {
        let [a, b] = ["a", "b"].map(Digest::sha256);
        let config = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{a}","{b}"]}}}}"#);
        let got = keys(&id(None), &image(&config, 2)).unwrap();
        assert_eq!(got.keys[0], "sha256:6cd800b783d04a21b01488cdf5267bcce0f40f4ec9cd7b227f8d18b3597bcddf");
        assert_eq!(
            source_digest(&got.keys[0]).to_string(),
            "sha256:3134c2a0a9f2f3f7584094056ad15239ee78ceb54d2407599b8888c21296fb64"
        );
        assert_eq!(got.keys[1], chain_id(&[a, b]).unwrap().to_string());
        let limited = keys(&id(Some("1")), &image(&config, 2)).unwrap();
        assert_eq!(limited.keys[1], a.to_string());
        assert_ne!(limited.keys[0], got.keys[0]);
    }

    #[test]
    fn configs_that_are_none() {
        assert_eq!(keys(&id(None), &image(r#"{"rootfs":{"type":"layers"}}"#, 0)).unwrap().keys.len(), 1);
        assert_eq!(keys(&id(None), &image("{}", 0)).unwrap().keys.len(), 1);
        let odd = keys(&id(None), &image("what", 0)).unwrap();
        assert_eq!(odd.keys[1], Digest::sha256("what").to_string());
        assert!(keys(&id(Some("2")), &image("{}", 1)).unwrap_err().to_string().contains("layer limit 2"));
    }

    #[test]
    fn manifests_cannot_choose_hosts() {
        let mut d = Descriptor::of("t", b"x");
        d.annotations.insert(format!("{}evil.io", annotation::DISTRIBUTION_SOURCE), "x".into());
        d.urls = vec!["http://169.254.169.254/".into()];
        let reference = Reference::parse_normalized("ghcr.io/a/b").unwrap();
        let out = sourced(&d, &ImageId::new(reference, Platform::host()));
        assert!(out.urls.is_empty());
        let keys: Vec<_> = out.annotations.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(keys, ["containerd.io/distribution.source.ghcr.io=a/b"]);
    }
}
