//! The image exporter: records on this machine, pushes to registries.

use crate::image::{self, Image, parse_name};
use crate::{ExportContext, ExportError, ExportInput, Exported, ImageOptions};
use async_trait::async_trait;
use kiln_digest::Digest;
use kiln_oci::{Descriptor, Reference};
use kiln_registry::{
    ByteStream, PushContent, PushObserver, PushPlan, PushTarget, RegistryError, StoreContent,
};
use kiln_snapshot::LayerProvider;
use std::collections::HashMap;
use std::io;

pub(crate) async fn image(
    o: &ImageOptions,
    input: &ExportInput,
    cx: &ExportContext<'_>,
) -> Result<Exported, ExportError> {
    let input = &input.with(&o.metadata);
    let names = image::names(o, input);
    // Checked before the layers are made: a wrong name should not cost minutes.
    let references = names.iter().map(|name| parse_name(name)).collect::<Result<Vec<_>, _>>()?;
    if o.push && names.is_empty() {
        return Err(ExportError::Invalid("tag is needed when pushing to registry".into()));
    }
    let targets = match o.push {
        true => references.iter().map(|name| target(o, name)).collect::<Result<Vec<_>, _>>()?,
        false => Vec::new(),
    };
    let image = image::build(o, input, cx).await?;
    let digest = image.root.digest;
    let dangling = o.dangling_prefix.as_ref().filter(|_| names.is_empty() || !o.dangling_empty_only);
    let dangling = dangling.map(|prefix| format!("{prefix}@{digest}"));
    if o.store {
        let canonical = references.iter().filter(|n| o.name_canonical && n.digest().is_none());
        let canonical: Vec<String> = canonical.map(|n| n.clone().with_digest(digest).to_string()).collect();
        let shown = names
            .iter()
            .zip(&references)
            .map(|(shown, n)| (shown.clone(), n.clone().with_default_tag().to_string()));
        let shown = shown.chain(canonical.iter().chain(&dangling).map(|n| (n.clone(), n.clone())));
        store(o, &image, input, &shown.collect::<Vec<_>>(), cx).await?;
    }
    let all: Vec<String> = names.iter().chain(&dangling).cloned().collect();
    let response = image::response(&image, &all)?;
    let push = Push { targets, insecure: o.insecure, image };
    Ok(Exported { response, push: o.push.then_some(push) })
}

fn target(o: &ImageOptions, name: &Reference) -> Result<(Reference, PushTarget), ExportError> {
    if o.push_by_digest && (name.tag().is_some() || name.digest().is_some()) {
        return Err(ExportError::Invalid(format!("can't push tagged ref {name} by digest")));
    }
    let target = PushTarget::of(name, o.push_by_digest);
    Ok((name.clone(), target.map_err(|source| push_error(name, source))?))
}

fn push_error(name: &Reference, source: RegistryError) -> ExportError {
    ExportError::Push { name: name.to_string(), source: Box::new(source) }
}

/// Keeps names, as (shown, kept). An image is kept only with all its layers; for one that goes to a registry the layers
/// that nobody has needed are not brought just for that.
async fn store(
    o: &ImageOptions,
    image: &Image,
    input: &ExportInput,
    names: &[(String, String)],
    cx: &ExportContext<'_>,
) -> Result<(), ExportError> {
    if names.is_empty() {
        return Ok(());
    }
    if !o.push && !o.store_incomplete {
        cx.fetch(input, &o.compression).await?;
    }
    let mut present = Vec::new();
    for blob in &image.blobs {
        if cx.content.info(&blob.digest)?.is_some() {
            present.push(blob.digest);
        }
    }
    if present.len() < image.blobs.len() && !o.store_incomplete {
        tracing::debug!(digest = %image.root.digest, "layers are not here: no local name");
        return Ok(());
    }
    for (shown, kept) in names {
        cx.records.set(kept, &image.root, &present)?;
        cx.note(&format!("naming to {shown}"));
    }
    Ok(())
}

/// Names that wait for their image to be pushed.
pub(crate) struct Push {
    targets: Vec<(Reference, PushTarget)>,
    insecure: bool,
    image: Image,
}

impl Push {
    pub(crate) async fn run(&self, cx: &ExportContext<'_>) -> Result<(), ExportError> {
        for (name, target) in &self.targets {
            self.one(name, target, cx).await.map_err(|source| push_error(name, source))?;
        }
        Ok(())
    }

    async fn one(
        &self,
        name: &Reference,
        target: &PushTarget,
        cx: &ExportContext<'_>,
    ) -> Result<(), RegistryError> {
        let repository = cx.registry.push(name, cx.access.clone(), self.insecure)?;
        let content = Content {
            store: StoreContent(cx.content.clone()),
            provider: cx.provider,
            layers: &self.image.sources,
        };
        let plan = PushPlan::load(&self.image.root, &content).await?;
        let observer = Observer(cx);
        cx.during("pushing layers", repository.push_blobs(&plan, &content, &observer)).await?;
        let id = format!("pushing manifest for {}", pushed_name(name, target, self.image.root.digest));
        cx.during(&id, repository.push_documents(&plan, target)).await
    }
}

fn pushed_name(name: &Reference, target: &PushTarget, digest: Digest) -> String {
    match target {
        PushTarget::Digest => name.name(),
        PushTarget::Tag(_) => name.clone().with_default_tag().with_digest(digest).to_string(),
    }
}

struct Observer<'a>(&'a ExportContext<'a>);

impl PushObserver for Observer<'_> {
    fn blob(&self, descriptor: &Descriptor, current: u64) {
        let done = current >= descriptor.size;
        self.0.progress.status(&format!("pushing {}", descriptor.digest), current, descriptor.size, done);
    }
}

/// The content store; a layer that nobody has needed so far is fetched when the registry really wants it.
struct Content<'a> {
    store: StoreContent,
    provider: &'a dyn LayerProvider,
    /// Layers with the annotations that manifests do not carry: where they came from.
    layers: &'a HashMap<Digest, Descriptor>,
}

impl<'a> Content<'a> {
    fn full(&'a self, descriptor: &'a Descriptor) -> &'a Descriptor {
        self.layers.get(&descriptor.digest).unwrap_or(descriptor)
    }
}

#[async_trait]
impl PushContent for Content<'_> {
    async fn document(&self, descriptor: &Descriptor) -> io::Result<Vec<u8>> {
        self.store.document(descriptor).await
    }

    async fn open(&self, descriptor: &Descriptor) -> io::Result<ByteStream> {
        if let Ok(None) = self.store.0.info(&descriptor.digest) {
            self.provider.fetch(self.full(descriptor), &|_| {}).await.map_err(io::Error::other)?;
        }
        self.store.open(descriptor).await
    }

    async fn sources(&self, descriptor: &Descriptor, domain: &str) -> Vec<String> {
        self.store.sources(self.full(descriptor), domain).await
    }

    async fn pushed(&self, descriptor: &Descriptor, domain: &str, path: &str) {
        self.store.pushed(descriptor, domain, path).await;
    }
}
