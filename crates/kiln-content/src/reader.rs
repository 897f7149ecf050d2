//! A blob as a verified stream.

use std::fs::File;
use std::io::{self, Read};

use kiln_digest::{Digest, Hasher};

use crate::{ContentError, ContentStore};

/// Reads a blob and checks it: the read that meets the end fails with `InvalidData` when the bytes were not those of
/// the digest, and the blob is removed from the store so that it can be fetched again. A reader that stops early has
/// verified nothing.
#[derive(Debug)]
pub struct BlobReader {
    store: ContentStore,
    digest: Digest,
    file: File,
    hasher: Option<Hasher>,
}

impl BlobReader {
    pub(crate) fn new(store: ContentStore, digest: Digest, file: File) -> Self {
        Self { store, digest, file, hasher: Some(Hasher::new()) }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let n = self.file.read(buf)?;
        if n > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buf[..n]);
            }
        } else if let Some(hasher) = self.hasher.take() {
            let found = hasher.finish();
            if found != self.digest {
                self.store.forget(&self.digest)?;
                return Err(ContentError::Damaged { digest: self.digest, found }.into());
            }
        }
        Ok(n)
    }
}
