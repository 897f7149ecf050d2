//! Layers, config and manifest of each platform, and the index over them, as blobs of the content store.

use crate::annotations::Annotations;
use crate::options::split_names;
use crate::platforms::platforms;
use crate::{ExportContext, ExportError, ExportInput, ImageOptions, config, rewrite};
use kiln_content::Lease;
use kiln_digest::Digest;
use kiln_oci::{Descriptor, ImageConfig, Index, Manifest, Platform, Reference, annotation, media_type};
use kiln_snapshot::{LayerBlob, Snapshot};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A finished image. Its blobs stay while this is held.
pub(crate) struct Image {
    /// Manifest or index.
    pub(crate) root: Descriptor,
    /// The config of the only manifest.
    pub(crate) config: Option<Descriptor>,
    /// Everything below and including the root.
    pub(crate) blobs: Vec<Descriptor>,
    /// The manifests, with the layers of each.
    pub(crate) manifests: Vec<ImageManifest>,
    /// The layers as the snapshots know them, with the annotations that say where they came from.
    pub(crate) sources: HashMap<Digest, Descriptor>,
    _lease: Lease,
}

/// One platform.
pub(crate) struct ImageManifest {
    pub(crate) descriptor: Descriptor,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// Makes an image of the result, whose metadata is complete.
pub(crate) async fn build(
    o: &ImageOptions,
    input: &ExportInput,
    cx: &ExportContext<'_>,
) -> Result<Image, ExportError> {
    let lease = cx.content.lease();
    let platforms = platforms(input)?;
    let annotations = o.annotations.with_result(input)?;
    let ids: Vec<String> = platforms.iter().map(|(id, _)| id.clone()).collect();
    annotations.check(input.is_map().then_some(&ids), o.oci_types)?;
    let mut all_layers = cx.during("exporting layers", layers(o, input, cx)).await?;
    // The snapshots' own blobs, whatever is made of them below.
    let sources = all_layers.iter().flatten().map(|l| (l.descriptor.digest, l.descriptor.clone())).collect();
    if o.rewrite_times {
        rewrite_all(o, input, &platforms, &mut all_layers, cx, &lease).await?;
    }
    let maker = Maker { o, input, annotations: &annotations, cx, lease: &lease };
    let mut manifests = Vec::new();
    for ((id, platform), layers) in platforms.iter().zip(&all_layers) {
        manifests.push(maker.manifest(id, platform, layers)?);
    }
    let (root, config) = match &manifests[..] {
        [only] if !input.is_map() => (only.descriptor.clone(), Some(only.config.clone())),
        all => (maker.index(all)?, None),
    };
    let below = manifests.iter().flat_map(|m| m.layers.iter().chain([&m.config, &m.descriptor]));
    let mut seen = HashSet::new();
    let blobs = below.chain([&root]).filter(|b| seen.insert(b.digest)).cloned().collect();
    Ok(Image { root, config, blobs, manifests, sources, _lease: lease })
}

/// Clamps the file times of each part of the result.
async fn rewrite_all(
    o: &ImageOptions,
    input: &ExportInput,
    platforms: &[(String, Platform)],
    all: &mut [Vec<LayerBlob>],
    cx: &ExportContext<'_>,
    lease: &Lease,
) -> Result<(), ExportError> {
    for ((id, _), layers) in platforms.iter().zip(all) {
        match o.epoch.of(input, Some(id))? {
            Some(epoch) => rewrite::layers(epoch, id, layers, &o.compression, input, cx, lease).await?,
            None => tracing::warn!("rewrite-timestamp is specified, but no source-date-epoch was found"),
        }
    }
    Ok(())
}

/// The layers of each part of the result.
async fn layers(
    o: &ImageOptions,
    input: &ExportInput,
    cx: &ExportContext<'_>,
) -> Result<Vec<Vec<LayerBlob>>, ExportError> {
    if o.compression.force || o.rewrite_times {
        // Repacking reads the blobs.
        cx.fetch(input, &o.compression).await?;
    }
    let one = |snapshot: &Option<Snapshot>| {
        let snapshot = snapshot.clone();
        async move {
            match snapshot {
                Some(snapshot) => cx.snapshots.layer_blobs(&snapshot, &o.compression).await,
                None => Ok(Vec::new()),
            }
        }
    };
    Ok(futures::future::try_join_all(input.refs.iter().map(|(_, snapshot)| one(snapshot))).await?)
}

/// What it takes to make documents.
struct Maker<'a> {
    o: &'a ImageOptions,
    input: &'a ExportInput,
    annotations: &'a Annotations,
    cx: &'a ExportContext<'a>,
    lease: &'a Lease,
}

impl Maker<'_> {
    fn put(&self, kind: &str, data: &[u8]) -> Result<Descriptor, ExportError> {
        let digest = self.cx.content.put(data)?;
        self.lease.protect(&digest);
        Ok(Descriptor::new(kind, digest, data.len() as u64))
    }

    fn manifest(
        &self,
        id: &str,
        platform: &Platform,
        layers: &[LayerBlob],
    ) -> Result<ImageManifest, ExportError> {
        layers.iter().for_each(|layer| self.lease.protect(&layer.descriptor.digest));
        let (config_type, manifest_type) = match self.o.oci_types {
            true => (media_type::OCI_CONFIG, media_type::OCI_MANIFEST),
            false => (media_type::DOCKER_CONFIG, media_type::DOCKER_MANIFEST),
        };
        let json = match self.input.value("containerimage.config", Some(id)) {
            Some(json) => json.to_vec(),
            None => config::empty(platform)?,
        };
        let base = match self.input.value("containerimage.base.config", Some(id)) {
            Some(json) => ImageConfig::parse(json).map_err(ExportError::json)?.history,
            None => Vec::new(),
        };
        let epoch = self.o.epoch.of(self.input, Some(id))?;
        let config = self.put(config_type, &config::patch(&json, layers, epoch, &base)?)?;
        let layers: Vec<Descriptor> =
            layers.iter().map(|l| layer_descriptor(self.o, &l.descriptor)).collect();
        // What is said of one platform is meant for a map.
        let named = self.input.is_map().then_some(id);
        let manifest = Manifest {
            annotations: self.annotations.manifest(named),
            ..Manifest::new(manifest_type, config.clone(), layers.clone())
        };
        let mut descriptor = self.put(manifest_type, &manifest.to_vec().map_err(ExportError::json)?)?;
        descriptor.annotations = self.annotations.manifest_descriptor(named);
        descriptor.platform = Some(platform.clone());
        self.cx.note(&format!("exporting manifest {}", descriptor.digest));
        self.cx.note(&format!("exporting config {}", config.digest));
        Ok(ImageManifest { descriptor, config, layers })
    }

    fn index(&self, manifests: &[ImageManifest]) -> Result<Descriptor, ExportError> {
        let kind = if self.o.oci_types { media_type::OCI_INDEX } else { media_type::DOCKER_LIST };
        let below = manifests.iter().map(|m| m.descriptor.clone()).collect();
        let index = Index { annotations: self.annotations.index(), ..Index::new(kind, below) };
        let mut descriptor = self.put(kind, &index.to_vec().map_err(ExportError::json)?)?;
        descriptor.annotations = self.annotations.index_descriptor();
        self.cx.note(&format!("exporting manifest list {}", descriptor.digest));
        Ok(descriptor)
    }
}

/// Without the annotations that are only ours, in the wanted family of types.
fn layer_descriptor(o: &ImageOptions, layer: &Descriptor) -> Descriptor {
    let ours = |key: &str| {
        key == annotation::UNCOMPRESSED
            || key == annotation::CREATED_AT
            || key.starts_with(annotation::DISTRIBUTION_SOURCE)
    };
    let kind =
        if o.prefer_nondist { &layer.media_type } else { media_type::to_distributable(&layer.media_type) };
    let kind = if o.oci_types { media_type::to_oci(kind) } else { media_type::to_docker(kind) };
    let mut out = Descriptor::new(kind, layer.digest, layer.size);
    if o.oci_types {
        out.annotations =
            layer.annotations.iter().filter(|(k, _)| !ours(k)).map(|(k, v)| (k.clone(), v.clone())).collect();
    }
    if o.prefer_nondist {
        out.urls = layer.urls.clone();
    }
    out
}

/// The keys of the response that every image exporter gives.
pub(crate) fn response(image: &Image, names: &[String]) -> Result<BTreeMap<String, String>, ExportError> {
    use base64::Engine as _;
    let json = kiln_go::json::to_vec(&image.root).map_err(ExportError::json)?;
    let mut out = BTreeMap::from([
        ("containerimage.digest".to_string(), image.root.digest.to_string()),
        ("containerimage.descriptor".to_string(), base64::engine::general_purpose::STANDARD.encode(json)),
    ]);
    if let Some(config) = &image.config {
        out.insert("containerimage.config.digest".into(), config.digest.to_string());
    }
    if !names.is_empty() {
        out.insert("image.name".into(), names.join(","));
    }
    Ok(out)
}

/// The names of an image, as given or from the metadata.
pub(crate) fn names(o: &ImageOptions, input: &ExportInput) -> Vec<String> {
    match (&o.names[..], input.metadata.get("image.name")) {
        ([star], Some(from)) if star == "*" => split_names(&String::from_utf8_lossy(from)),
        (given, _) => given.to_vec(),
    }
}

pub(crate) fn parse_name(name: &str) -> Result<Reference, ExportError> {
    Reference::parse_normalized(name).map_err(|source| ExportError::Name { name: name.to_string(), source })
}
