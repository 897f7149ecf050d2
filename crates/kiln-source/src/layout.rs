//! Image layouts that a client lends.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use kiln_blocking::Feed;
use kiln_content::{BlobWriter, ContentStore};
use kiln_digest::Digest;
use kiln_oci::Descriptor;
use kiln_snapshot::LayerProvider;

use crate::{Client, ClientError, Result, SourceError};

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Names a layout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Layout {
    /// The session that lends it; empty asks those of the build.
    pub session: String,
    /// The client's name for it.
    pub store: String,
}

/// A blob on its way; nothing of it is verified.
pub struct ByteStream {
    /// In bytes, if known.
    pub size: Option<u64>,
    /// The bytes.
    pub data: BoxStream<'static, io::Result<Bytes>>,
}

impl std::fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByteStream").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Reads a whole blob of at most `limit` bytes, and verifies it.
pub(crate) async fn read(
    client: &dyn Client,
    layout: &Layout,
    digest: &Digest,
    limit: u64,
) -> Result<Vec<u8>> {
    let failed = |message: String| SourceError::Client {
        what: format!("blob {digest} of layout {}", layout.store),
        message,
    };
    let mut blob = client.layout_blob(layout, digest).await.map_err(|e| failed(e.0))?;
    let mut bytes = Vec::new();
    while let Some(piece) = blob.data.next().await {
        bytes.extend_from_slice(&piece.map_err(|e| failed(e.to_string()))?);
        if bytes.len() as u64 > limit {
            return Err(failed(format!("larger than {limit} bytes")));
        }
    }
    match Digest::sha256(&bytes) {
        found if found == *digest => Ok(bytes),
        found => Err(failed(format!("the client sent {found}"))),
    }
}

/// Brings layers from a layout into the content store.
pub(crate) struct LayoutLayers {
    pub(crate) layout: Layout,
    pub(crate) client: Arc<dyn Client>,
    pub(crate) content: ContentStore,
}

#[async_trait]
impl LayerProvider for LayoutLayers {
    async fn fetch(
        &self,
        descriptor: &Descriptor,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Failed> {
        let mut blob = self.client.layout_blob(&self.layout, &descriptor.digest).await?;
        let (content, digest, size) = (self.content.clone(), descriptor.digest, descriptor.size);
        let writer = kiln_blocking::run(move || content.writer(Some(digest), None)).await??;
        let mut feed = Feed::new(writer, |writer: &mut BlobWriter, piece: Bytes| {
            writer.write(&piece).map_err(|e| Box::new(e) as Failed)
        });
        let mut current = 0;
        while let Some(piece) = blob.data.next().await {
            let piece = piece.map_err(|e| ClientError(e.to_string()))?;
            let length = piece.len();
            current += length as u64;
            if current > size {
                return Err(format!("{digest} is larger than {size} bytes").into());
            }
            feed.give(piece, length).await?;
            progress(current);
        }
        let writer = feed.finish().await?;
        // The digest decides; a blob that is cut off is none.
        kiln_blocking::run(move || writer.commit(Some(size))).await??;
        Ok(())
    }
}
