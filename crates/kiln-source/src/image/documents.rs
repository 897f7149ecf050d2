//! Manifests and configs: from the store if they are there, else from the registry, then kept.

use kiln_content::ContentStore;
use kiln_oci::{Descriptor, Document};
use kiln_registry::{MANIFEST_LIMIT, RegistryError, Repository};

use crate::blocking::blocking;
use crate::{Result, SourceError};

/// Reads the documents of one image.
pub(super) struct Documents<'a> {
    pub(super) content: &'a ContentStore,
    pub(super) repository: &'a Repository,
    /// For messages.
    pub(super) reference: &'a str,
}

impl Documents<'_> {
    /// A manifest or index.
    pub(super) async fn document(&self, d: &Descriptor) -> Result<Document> {
        let bytes = match self.stored(d).await? {
            Some(bytes) => bytes,
            None => self.keep(self.repository.document(d).await?).await?,
        };
        self.parse(&bytes, &d.media_type)
    }

    /// A config.
    pub(super) async fn config(&self, d: &Descriptor) -> Result<Vec<u8>> {
        match self.stored(d).await? {
            Some(bytes) => Ok(bytes),
            None => self.keep(self.repository.small_blob(d).await?).await,
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
