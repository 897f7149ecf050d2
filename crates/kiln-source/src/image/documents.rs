//! Manifests and configs: from the store if they are there, else from the registry, then kept.

use kiln_content::ContentStore;
use kiln_oci::{Descriptor, Document};
use kiln_registry::{MANIFEST_LIMIT, RegistryError, Repository};

use crate::blocking::blocking;
use crate::layout::{self, Layout};
use crate::{Client, Result, SourceError};

/// Reads the documents of one image.
pub(super) struct Documents<'a> {
    pub(super) content: &'a ContentStore,
    pub(super) remote: Remote<'a>,
    /// For messages.
    pub(super) reference: &'a str,
}

/// Where documents are that the store has not.
pub(super) enum Remote<'a> {
    Registry(Repository),
    Layout(&'a Layout, &'a dyn Client),
}

impl Remote<'_> {
    async fn manifest(&self, d: &Descriptor) -> Result<Vec<u8>> {
        match self {
            Self::Registry(repository) => Ok(repository.document(d).await?),
            Self::Layout(layout, client) => layout::read(*client, layout, &d.digest, MANIFEST_LIMIT).await,
        }
    }

    async fn config(&self, d: &Descriptor) -> Result<Vec<u8>> {
        match self {
            Self::Registry(repository) => Ok(repository.small_blob(d).await?),
            Self::Layout(..) => self.manifest(d).await,
        }
    }
}

impl Documents<'_> {
    /// A manifest or index.
    pub(super) async fn document(&self, d: &Descriptor) -> Result<Document> {
        let bytes = match self.stored(d).await? {
            Some(bytes) => bytes,
            None => self.keep(self.remote.manifest(d).await?).await?,
        };
        self.parse(&bytes, &d.media_type)
    }

    /// A config.
    pub(super) async fn config(&self, d: &Descriptor) -> Result<Vec<u8>> {
        match self.stored(d).await? {
            Some(bytes) => Ok(bytes),
            None => self.keep(self.remote.config(d).await?).await,
        }
    }

    pub(super) fn parse(&self, bytes: &[u8], media_type: &str) -> Result<Document> {
        let reference = self.reference.to_string();
        Document::parse(bytes, media_type)
            .map_err(|source| RegistryError::Document { reference, source }.into())
    }

    /// The verified bytes, if the store has them. A damaged blob is removed there and fetched again.
    pub(super) async fn stored(&self, d: &Descriptor) -> Result<Option<Vec<u8>>> {
        let (content, digest) = (self.content.clone(), d.digest);
        let read = blocking(move || content.read(&digest, MANIFEST_LIMIT).map_err(SourceError::from)).await;
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(SourceError::Content(e)) if e.is_not_found() => Ok(None),
            Err(SourceError::Content(kiln_content::ContentError::Damaged { .. })) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Puts a document into the store.
    pub(super) async fn keep(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let content = self.content.clone();
        blocking(move || {
            content.put(&bytes)?;
            Ok(bytes)
        })
        .await
    }
}
