//! Pushes: blobs first, then manifests from the leaves to the root (distribution spec, "Push").

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use kiln_content::ContentStore;
use kiln_digest::Digest;
use kiln_oci::{Descriptor, Document, Reference, annotation, media_type};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue};

use crate::client::{Repository, Target};
use crate::limit::Load;
use crate::pull::{blocking, note_source};
use crate::{MANIFEST_LIMIT, RegistryError, Result};

const STEP: &str = "push";
/// Blobs considered at a time; the limiter of the registry decides how many move.
const CONCURRENT: usize = 16;
/// Documents in one push; an index of indexes must end somewhere.
const MAX_DOCUMENTS: usize = 4096;

/// Pieces of a blob.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Where the pushed bytes come from. A blob is opened only when the registry lacks it and cannot mount it, so that
/// layers nobody downloaded can be pushed to where they came from.
#[async_trait]
pub trait PushContent: Send + Sync {
    /// A manifest, index or other small document.
    async fn document(&self, descriptor: &Descriptor) -> io::Result<Vec<u8>>;
    /// A blob from its start; may be called again after a failure.
    async fn open(&self, descriptor: &Descriptor) -> io::Result<ByteStream>;
    /// Repositories of `domain` that are known to have the blob.
    async fn sources(&self, descriptor: &Descriptor, domain: &str) -> Vec<String>;
    /// The blob is in `domain/path` now.
    async fn pushed(&self, descriptor: &Descriptor, domain: &str, path: &str);
}

/// Is told how a push goes on.
pub trait PushObserver: Send + Sync {
    /// Bytes of a blob handed to the network so far, and its size; equal when the registry has it.
    fn blob(&self, descriptor: &Descriptor, current: u64);
}

impl PushObserver for () {
    fn blob(&self, _: &Descriptor, _: u64) {}
}

/// The name that the root gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushTarget {
    /// None: it can be had by digest.
    Digest,
    /// A tag.
    Tag(String),
}

impl PushTarget {
    /// What a reference asks for: its tag, `latest` without one. By digest, a tag is refused.
    pub fn of(reference: &Reference, by_digest: bool) -> Result<Self> {
        match (by_digest, reference.tag(), reference.digest()) {
            (true, None, None) => Ok(Self::Digest),
            (true, _, _) => {
                Err(RegistryError::Config(format!("can't push tagged ref {reference} by digest")))
            }
            (false, tag, _) => Ok(Self::Tag(tag.unwrap_or("latest").to_string())),
        }
    }
}

/// Everything that belongs to an image: made once, pushed to any number of names.
#[derive(Clone, Debug)]
pub struct PushPlan {
    /// The root document.
    pub root: Descriptor,
    /// Configs, layers and other leaves, each once; layers that must not be distributed are left out.
    pub blobs: Vec<Descriptor>,
    /// Documents with their bytes, each after those it names; the root is last.
    pub documents: Vec<(Descriptor, Bytes)>,
}

impl PushPlan {
    /// Walks the documents below `root`.
    pub async fn load(root: &Descriptor, content: &dyn PushContent) -> Result<Self> {
        let mut plan = Self { root: root.clone(), blobs: Vec::new(), documents: Vec::new() };
        let mut seen = HashSet::new();
        let mut todo = vec![root.clone()];
        while let Some(descriptor) = todo.pop() {
            if !seen.insert(descriptor.digest) || media_type::is_nondistributable(&descriptor.media_type) {
                continue;
            }
            let is_document = descriptor.digest == root.digest
                || media_type::is_index(&descriptor.media_type)
                || media_type::is_manifest(&descriptor.media_type);
            if !is_document {
                plan.blobs.push(descriptor);
                continue;
            }
            if plan.documents.len() >= MAX_DOCUMENTS {
                return Err(RegistryError::Config(format!(
                    "{}: more than {MAX_DOCUMENTS} manifests",
                    root.digest
                )));
            }
            let (bytes, children) = read_document(&descriptor, content).await?;
            plan.documents.push((descriptor, bytes));
            todo.extend(children.into_iter().rev());
        }
        // A document may be named by one that was met later; the order below is by who names whom.
        plan.documents = leaves_first(plan.documents, root.digest);
        Ok(plan)
    }
}

async fn read_document(
    descriptor: &Descriptor,
    content: &dyn PushContent,
) -> Result<(Bytes, Vec<Descriptor>)> {
    let reference = descriptor.digest.to_string();
    let bytes = content.document(descriptor).await.map_err(|e| RegistryError::Read {
        reference: reference.clone(),
        digest: descriptor.digest,
        message: e.to_string(),
    })?;
    let document = Document::parse(&bytes, &descriptor.media_type)
        .map_err(|source| RegistryError::Document { reference, source })?;
    Ok((bytes.into(), document.children()))
}

/// Depth-first from the root, children before parents.
fn leaves_first(documents: Vec<(Descriptor, Bytes)>, root: Digest) -> Vec<(Descriptor, Bytes)> {
    let mut by_digest: BTreeMap<Digest, (Descriptor, Bytes)> =
        documents.into_iter().map(|d| (d.0.digest, d)).collect();
    let mut out = Vec::with_capacity(by_digest.len());
    // Each entry is met twice: to push its children, then to be put out.
    let mut stack = vec![(root, false)];
    let mut entered = HashSet::new();
    while let Some((digest, children_done)) = stack.pop() {
        if children_done {
            out.extend(by_digest.remove(&digest));
            continue;
        }
        let Some((descriptor, bytes)) = by_digest.get(&digest) else { continue };
        if !entered.insert(digest) {
            continue;
        }
        stack.push((digest, true));
        let children =
            Document::parse(bytes, &descriptor.media_type).map(|d| d.children()).unwrap_or_default();
        stack.extend(children.into_iter().rev().map(|c| (c.digest, false)));
    }
    out
}

impl Repository {
    /// Pushes blobs and documents.
    pub async fn push(
        &self,
        plan: &PushPlan,
        target: &PushTarget,
        content: &dyn PushContent,
        observer: &dyn PushObserver,
    ) -> Result<()> {
        self.push_blobs(plan, content, observer).await?;
        self.push_documents(plan, target).await
    }

    /// Sees to it that the repository has all blobs.
    pub async fn push_blobs(
        &self,
        plan: &PushPlan,
        content: &dyn PushContent,
        observer: &dyn PushObserver,
    ) -> Result<()> {
        // Boxed one by one: a closure that is kept over an await makes the whole future fail to be `Send`.
        let pushes: Vec<BoxFuture<'_, Result<()>>> =
            plan.blobs.iter().map(|blob| self.push_one(blob, content, observer).boxed()).collect();
        futures::stream::iter(pushes).buffer_unordered(CONCURRENT).try_collect().await
    }

    async fn push_one(
        &self,
        blob: &Descriptor,
        content: &dyn PushContent,
        observer: &dyn PushObserver,
    ) -> Result<()> {
        self.push_blob(blob, content, observer).await?;
        content.pushed(blob, &self.domain, &self.path).await;
        Ok(())
    }

    /// Writes the documents; the blobs must be there.
    pub async fn push_documents(&self, plan: &PushPlan, target: &PushTarget) -> Result<()> {
        for (descriptor, bytes) in &plan.documents {
            let name = match target {
                PushTarget::Tag(tag) if descriptor.digest == plan.root.digest => tag.clone(),
                _ => descriptor.digest.to_string(),
            };
            let retry = self.registry.0.config.retry;
            retry.run(&*self.access.observer, || self.push_document(descriptor, bytes, &name)).await?;
        }
        Ok(())
    }

    async fn push_document(&self, descriptor: &Descriptor, bytes: &Bytes, name: &str) -> Result<()> {
        let _permit = self.permit(Load::Json).await;
        let endpoint = self.own_endpoint()?;
        let tail = format!("manifests/{name}");
        let head = self.send(endpoint, &self.call(STEP, Method::HEAD, Target::Tail(&tail))).await?;
        let has = head.headers().get("docker-content-digest").and_then(|v| v.to_str().ok());
        if head.status() == 200 && has == Some(&descriptor.digest.to_string()) {
            return Ok(());
        }
        let body = || -> Pin<Box<dyn Future<Output = Result<reqwest::Body>> + Send>> {
            let bytes = bytes.clone();
            Box::pin(async move { Ok(bytes.into()) })
        };
        let mut call = self.call(STEP, Method::PUT, Target::Tail(&tail));
        let media_type = HeaderValue::from_str(&descriptor.media_type)
            .map_err(|_| RegistryError::Config(format!("media type {:?}", descriptor.media_type)))?;
        call.headers.push((CONTENT_TYPE, media_type));
        call.body = Some(&body);
        call.limit = Some(self.timeouts().upload);
        let response = self.expect(endpoint, &call, &[200, 201, 204]).await?;
        let stored =
            response.headers().get("docker-content-digest").and_then(|v| v.to_str().ok()?.parse().ok());
        match stored.filter(|found: &Digest| *found != descriptor.digest) {
            Some(found) => Err(RegistryError::Digest {
                reference: self.label.clone(),
                expected: descriptor.digest,
                found,
            }),
            None => Ok(()),
        }
    }

    pub(crate) fn own_endpoint(&self) -> Result<&crate::endpoint::Endpoint> {
        self.endpoints.last().ok_or_else(|| RegistryError::Config(format!("no endpoint for {}", self.domain)))
    }
}

/// The repositories of `domain` in annotations or labels (`containerd.io/distribution.source.<domain>`).
pub fn distribution_sources(labels: &BTreeMap<String, String>, domain: &str) -> Vec<String> {
    let name = format!("{}{domain}", annotation::DISTRIBUTION_SOURCE);
    let list = labels.get(&name).map_or("", String::as_str);
    list.split(',').filter(|p| !p.is_empty()).map(str::to_string).collect()
}

/// Pushes what a content store has.
#[derive(Clone, Debug)]
pub struct StoreContent(pub ContentStore);

impl StoreContent {
    fn io(error: RegistryError) -> io::Error {
        io::Error::other(error.to_string())
    }
}

#[async_trait]
impl PushContent for StoreContent {
    async fn document(&self, descriptor: &Descriptor) -> io::Result<Vec<u8>> {
        let (store, digest) = (self.0.clone(), descriptor.digest);
        blocking(move || store.read(&digest, MANIFEST_LIMIT)).await.map_err(Self::io)
    }

    async fn open(&self, descriptor: &Descriptor) -> io::Result<ByteStream> {
        let (store, digest) = (self.0.clone(), descriptor.digest);
        let file = blocking(move || store.open_blob(&digest)).await.map_err(Self::io)?;
        let reader = tokio_util::io::ReaderStream::with_capacity(tokio::fs::File::from_std(file), 256 << 10);
        Ok(Box::pin(reader))
    }

    async fn sources(&self, descriptor: &Descriptor, domain: &str) -> Vec<String> {
        let (store, digest) = (self.0.clone(), descriptor.digest);
        let mut labels = blocking(move || store.labels(&digest)).await.unwrap_or_default();
        labels.extend(descriptor.annotations.clone());
        distribution_sources(&labels, domain)
    }

    async fn pushed(&self, descriptor: &Descriptor, domain: &str, path: &str) {
        if let Err(error) = note_source(&self.0, descriptor, domain, path).await {
            tracing::debug!(%error, "distribution source not noted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let r = |s| Reference::parse_normalized(s).unwrap();
        assert_eq!(PushTarget::of(&r("a/b"), false).unwrap(), PushTarget::Tag("latest".into()));
        assert_eq!(PushTarget::of(&r("a/b:x"), false).unwrap(), PushTarget::Tag("x".into()));
        assert_eq!(PushTarget::of(&r("a/b"), true).unwrap(), PushTarget::Digest);
        let message = PushTarget::of(&r("a/b:x"), true).unwrap_err().to_string();
        assert!(message.ends_with("can't push tagged ref docker.io/a/b:x by digest"), "{message}");
    }
}
