//! From a reference to the manifest, config and layers of a platform.

use std::time::SystemTime;

use kiln_digest::Digest;
use kiln_llb::ResolveMode;
use kiln_oci::{
    Descriptor, Document, ImageConfig, Index, Manifest, Platform, PlatformMatcher, annotation, media_type,
};
use kiln_registry::{MANIFEST_LIMIT, RegistryError, note_source};

use super::documents::{Documents, Remote};
use super::id::{ImageId, Origin};
use super::{ImageSource, ResolvedImage, records};
use crate::blocking::blocking;
use crate::{Result, SourceContext, SourceError, layout};

/// Indexes within indexes.
const MAX_DEPTH: usize = 4;

impl ImageSource {
    /// Finds the image. A digest whose documents are in the store needs no registry; a tag is looked up there, except
    /// in mode [`ResolveMode::PreferLocal`].
    pub async fn resolve(&self, id: &ImageId, cx: &SourceContext) -> Result<ResolvedImage> {
        let label = id.reference.to_string();
        let _status = cx.begin(format!("resolve {label}"));
        let remote = match &id.origin {
            Origin::Registry => Remote::Registry(self.registry.pull(&id.reference, cx.access.clone())?),
            Origin::Layout(layout) => Remote::Layout(layout, &*cx.client),
        };
        let documents = Documents { content: &self.content, remote, reference: &label };
        // Documents fetched now must stay until the record below keeps them.
        let _lease = self.content.lease();
        let (root, document) = self.root(id, &documents).await?;
        if let Some(expected) = id.checksum.filter(|c| *c != root.digest) {
            let message = format!(
                "image digest {} for {label} does not match expected checksum {expected}",
                root.digest
            );
            return Err(SourceError::Image { reference: label, message });
        }
        let mut kept = vec![root.digest];
        let (manifest, body) = choose(&documents, &id.platform, root.clone(), document, &mut kept).await?;
        let config_bytes = documents.config(&body.config).await?;
        kept.extend([manifest.digest, body.config.digest]);
        if id.origin == Origin::Registry {
            let (domain, path) = (id.reference.domain(), id.reference.path());
            note_source(&self.content, &root, domain, path).await?;
        }
        self.remember(id, &root, kept).await?;
        Ok(ResolvedImage {
            reference: id.reference.clone(),
            root,
            manifest,
            config: body.config,
            config_bytes,
            layers: body.layers,
        })
    }

    async fn root(&self, id: &ImageId, documents: &Documents<'_>) -> Result<(Descriptor, Document)> {
        if let Some(digest) = id.reference.digest() {
            // The size is not known; the digest is what is checked.
            let any = Descriptor::new("", digest, 0);
            if self.may_use(id, &digest)
                && let Some(bytes) = documents.stored(&any).await?
            {
                let document = documents.parse(&bytes, "")?;
                return Ok((Descriptor::of(document.media_type(""), &bytes), document));
            }
        } else if id.mode == ResolveMode::PreferLocal
            && let Some(root) = records::find(self.content.db(), &id.reference)?
            && let Some(bytes) = documents.stored(&root).await?
        {
            let document = documents.parse(&bytes, &root.media_type)?;
            return Ok((root, document));
        }
        let (mut root, bytes) = match (&documents.remote, id.reference.digest()) {
            (Remote::Registry(repository), _) => {
                let resolved = repository.resolve(&id.reference.object()).await?;
                (resolved.descriptor, resolved.bytes)
            }
            (Remote::Layout(layout, client), Some(digest)) => {
                let bytes = layout::read(*client, layout, &digest, MANIFEST_LIMIT).await?;
                (Descriptor::new("", digest, bytes.len() as u64), Some(bytes))
            }
            (Remote::Layout(..), None) => {
                let (reference, message) = (id.reference.to_string(), "must have digest".to_string());
                return Err(SourceError::Image { reference, message });
            }
        };
        let document = match bytes {
            Some(bytes) => documents.parse(&documents.keep(bytes).await?, &root.media_type)?,
            None => documents.document(&root).await?,
        };
        root.media_type = document.media_type(&root.media_type);
        Ok((root, document))
    }

    /// Whether what is in the store counts as what the reference names. A digest alone proves nothing: who may not read
    /// an image, or names a repository without it, must not get it from here.
    fn may_use(&self, id: &ImageId, digest: &Digest) -> bool {
        if id.origin != Origin::Registry {
            return true;
        }
        let labels = self.content.labels(digest).unwrap_or_default();
        let label = labels.get(&format!("{}{}", annotation::DISTRIBUTION_SOURCE, id.reference.domain()));
        label.is_some_and(|paths| paths.split(',').any(|path| path == id.reference.path()))
    }

    async fn remember(&self, id: &ImageId, root: &Descriptor, kept: Vec<Digest>) -> Result<()> {
        let (content, reference, root) = (self.content.clone(), id.reference.clone(), root.clone());
        let now =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        blocking(move || records::remember(&content, &reference, &root, &kept, now)).await
    }
}

/// Walks down from the root to the manifest of the platform. A root that is a manifest is taken whatever its platform,
/// as the one who asked for it may know better (and is warned elsewhere).
async fn choose(
    documents: &Documents<'_>,
    platform: &Platform,
    root: Descriptor,
    document: Document,
    kept: &mut Vec<Digest>,
) -> Result<(Descriptor, Manifest)> {
    let matcher = PlatformMatcher::only(platform);
    let (mut at, mut document) = (root, document);
    for _ in 0..MAX_DEPTH {
        let index = match document {
            Document::Manifest(manifest) => return Ok((at, manifest)),
            Document::Index(index) => index,
        };
        kept.push(at.digest);
        let Some(next) = pick(documents, &matcher, &index).await? else {
            let reference = documents.reference.to_string();
            return Err(RegistryError::NoPlatform { reference, platform: Box::new(platform.clone()) }.into());
        };
        document = documents.document(&next).await?;
        at = next;
    }
    let (reference, message) = (documents.reference.to_string(), "indexes are nested too deeply".to_string());
    Err(SourceError::Image { reference, message })
}

/// The best entry of an index: by its platform, else by the platform of its config if it names none.
async fn pick(
    documents: &Documents<'_>,
    matcher: &PlatformMatcher,
    index: &Index,
) -> Result<Option<Descriptor>> {
    let images: Vec<&Descriptor> = index.manifests.iter().filter(|d| is_image(d)).collect();
    let named = images.iter().filter_map(|d| Some((*d, d.platform.as_ref()?))).collect::<Vec<_>>();
    if let Some((best, _)) = matcher.best(&named, |(_, p)| p) {
        return Ok(Some((*best).clone()));
    }
    for entry in images.into_iter().filter(|d| d.platform.is_none()) {
        let config = match documents.document(entry).await? {
            Document::Manifest(m) if media_type::is_config(&m.config.media_type) => m.config,
            // An index without platform may hold anything.
            Document::Index(_) => return Ok(Some(entry.clone())),
            Document::Manifest(_) => continue,
        };
        let config = ImageConfig::parse(&documents.config(&config).await?);
        if config.is_ok_and(|c| matcher.matches(&c.platform)) {
            return Ok(Some(entry.clone()));
        }
    }
    Ok(None)
}

fn is_image(d: &Descriptor) -> bool {
    let known = media_type::is_manifest(&d.media_type) || media_type::is_index(&d.media_type);
    known && !d.is_attestation() && !d.platform.as_ref().is_some_and(Platform::is_unknown)
}
