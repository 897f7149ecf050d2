//! Blobs that are written while a build runs.

use crate::history::History;
use kiln_content::{BlobWriter, ContentError, ContentStore};
use kiln_digest::Digest;
use kiln_proto::control::Descriptor;
use std::collections::HashMap;
use std::io::{BufWriter, Write};

/// A blob that is being written.
pub(crate) struct BlobSink(BufWriter<BlobWriter>);

impl BlobSink {
    pub(crate) fn new(content: &ContentStore) -> Result<Self, ContentError> {
        Ok(Self(BufWriter::with_capacity(64 << 10, content.writer(None, None)?)))
    }

    pub(crate) fn write(&mut self, data: &[u8]) -> Result<(), String> {
        self.0.write_all(data).map_err(|e| e.to_string())
    }

    /// The blob's digest and size.
    pub(crate) fn finish(self) -> Result<(Digest, u64), String> {
        let blob = self.0.into_inner().map_err(|e| e.error().to_string())?;
        let size = blob.offset();
        let digest = blob.commit(None).map_err(|e| e.to_string())?;
        Ok((digest, size))
    }
}

/// A blob on its way; a failure ends it and nothing else: a build does not fail because its record cannot be written.
pub(crate) enum Sink {
    Idle,
    Open(Box<BlobSink>),
    Failed,
}

impl Sink {
    pub(crate) fn write(
        &mut self,
        history: &History,
        build: &str,
        write: impl FnOnce(&mut BlobSink) -> Result<(), String>,
    ) {
        let opened = match self {
            Self::Failed => return,
            Self::Open(_) => Ok(()),
            Self::Idle => {
                BlobSink::new(history.0.store.content()).map(|sink| *self = Self::Open(Box::new(sink)))
            }
        };
        let written = match (opened, &mut *self) {
            (Ok(()), Self::Open(sink)) => write(sink),
            (Err(e), _) => Err(e.to_string()),
            _ => return,
        };
        if let Err(error) = written {
            tracing::warn!(build, error, "part of the record of a build is lost");
            *self = Self::Failed;
        }
    }

    pub(crate) fn finish(
        self,
        history: &History,
        build: &str,
        media_type: &str,
        blobs: &mut Vec<Digest>,
    ) -> Option<Descriptor> {
        let finished = match self {
            Self::Failed => return None,
            Self::Open(sink) => sink.finish(),
            // A build that said nothing has an empty log.
            Self::Idle => history.0.store.content().put(&[]).map(|d| (d, 0)).map_err(|e| e.to_string()),
        };
        match finished {
            Ok((digest, size)) => {
                blobs.push(digest);
                Some(blob(media_type, digest, i64::try_from(size).unwrap_or(i64::MAX)))
            }
            Err(error) => {
                tracing::warn!(build, error, "part of the record of a build is lost");
                None
            }
        }
    }
}

/// What a record says of a blob.
pub(crate) fn blob(media_type: &str, digest: Digest, size: i64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_string(),
        digest: digest.to_string(),
        size,
        annotations: HashMap::new(),
    }
}
