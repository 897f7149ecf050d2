//! Writing a blob: into `ingest/`, then renamed under its digest.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_digest::{Digest, Hasher};

use crate::{ContentError, ContentStore};

type Result<T, E = ContentError> = std::result::Result<T, E>;

/// An unfinished blob. Dropped without [`commit`](Self::commit), a writer with a resume key leaves its bytes for the
/// next one with that key; any other leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    store: ContentStore,
    file: File,
    path: PathBuf,
    /// The name of the file in `ingest/`; a digest of the caller's key, so any text is safe.
    name: String,
    resumable: bool,
    expected: Option<Digest>,
    hasher: Hasher,
    offset: u64,
    finished: bool,
}

impl BlobWriter {
    pub(crate) fn open(store: ContentStore, expected: Option<Digest>, resume: Option<&str>) -> Result<Self> {
        let name = match resume {
            Some(key) => format!("r-{}", Digest::sha256(key).hex()),
            None => format!("t-{:032x}", rand::random::<u128>()),
        };
        if !store.0.state().writing.insert(name.clone()) {
            return Err(ContentError::Busy(blob_name(expected, resume.unwrap_or(&name))));
        }
        let path = store.0.ingest.join(&name);
        let opened = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
                store.0.state().writing.remove(&name);
                return Err(ContentError::io("create", blob_name(expected, &name), error));
            }
        };
        let mut writer = Self {
            store,
            file,
            path,
            name,
            resumable: resume.is_some(),
            expected,
            hasher: Hasher::new(),
            offset: 0,
            finished: false,
        };
        writer.rehash()?;
        Ok(writer)
    }

    /// Hashes what an earlier writer left.
    fn rehash(&mut self) -> Result<()> {
        let mut buffer = vec![0; if self.resumable { 256 << 10 } else { 0 }];
        while self.resumable {
            let n = self
                .file
                .read(&mut buffer)
                .map_err(|error| ContentError::io("read partial", self.blob(), error))?;
            if n == 0 {
                break;
            }
            self.hasher.update(&buffer[..n]);
            self.offset += n as u64;
        }
        Ok(())
    }

    /// How many bytes are there already; the next write goes behind them.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends `data`. When the disk is full the partial file is removed at once and the error names the blob.
    pub fn write(&mut self, data: &[u8]) -> Result<()> {
        if let Err(error) = self.file.write_all(data) {
            let error = ContentError::io("write", self.blob(), error);
            // How much of the data arrived is unknown, so the bytes behind `offset` go in any case.
            if error.is_no_space() || self.file.set_len(self.offset).is_err() {
                self.discard();
            }
            return Err(error);
        }
        self.hasher.update(data);
        self.offset += data.len() as u64;
        Ok(())
    }

    /// Throws away what was written so far and starts at offset 0.
    pub fn reset(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(|error| ContentError::io("truncate", self.blob(), error))?;
        self.hasher = Hasher::new();
        self.offset = 0;
        Ok(())
    }

    /// Checks size and digest, and makes the blob visible. A blob that fails the check is removed, so that the next
    /// try starts from nothing; one that is merely too short stays for resuming.
    pub fn commit(mut self, size: Option<u64>) -> Result<Digest> {
        if let Some(expected) = size.filter(|size| *size != self.offset) {
            let (blob, found) = (self.blob(), self.offset);
            if found > expected {
                self.discard();
            }
            return Err(ContentError::SizeMismatch { blob, expected, found });
        }
        let found = self.hasher.clone().finish();
        if let Some(expected) = self.expected.filter(|expected| *expected != found) {
            self.discard();
            return Err(ContentError::DigestMismatch { expected, found });
        }
        self.publish(&found)?;
        Ok(found)
    }

    fn publish(&mut self, digest: &Digest) -> Result<()> {
        let inner = self.store.0.clone();
        inner.state().leases.touch(digest);
        let mut permissions =
            self.file.metadata().map_err(|e| ContentError::io("stat", digest, e))?.permissions();
        permissions.set_readonly(true);
        self.file.set_permissions(permissions).map_err(|e| ContentError::io("chmod", digest, e))?;
        let _publish = inner.publish.lock().unwrap_or_else(PoisonError::into_inner);
        // The file before the row: a row never names a file that is not there.
        fs::rename(&self.path, inner.path(digest)).map_err(|e| ContentError::io("rename", digest, e))?;
        self.finished = true;
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
        inner.db.write(|tx| {
            tx.prepare_cached(
                "INSERT INTO blobs (digest, size, created, boot) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (digest) DO UPDATE SET size = excluded.size, boot = excluded.boot",
            )?
            .execute((digest.to_string(), self.offset as i64, created, inner.db.boot()))
        })?;
        Ok(())
    }

    fn discard(&mut self) {
        // Nothing to be done about a failure: the file is swept as a stale one later.
        let _ = fs::remove_file(&self.path);
        self.finished = true;
    }

    fn blob(&self) -> String {
        blob_name(self.expected, &self.name)
    }
}

fn blob_name(expected: Option<Digest>, name: &str) -> String {
    expected.map_or_else(|| name.to_string(), |digest| digest.to_string())
}

impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Self::write(self, buf)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.finished && (!self.resumable || self.offset == 0) {
            self.discard();
        }
        self.store.0.state().writing.remove(&self.name);
    }
}
