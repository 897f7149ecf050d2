//! Blobs by digest.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_digest::Digest;
use rusqlite::{OptionalExtension, Transaction};

use crate::lease::{Lease, Leases};
use crate::reader::BlobReader;
use crate::writer::BlobWriter;
use crate::{ContentError, Db};

type Result<T, E = ContentError> = std::result::Result<T, E>;

const SCHEMA: &[&str] = &["
    CREATE TABLE blobs (
        digest TEXT PRIMARY KEY, size INTEGER NOT NULL, created INTEGER NOT NULL, boot INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX blobs_boot ON blobs (boot) WHERE boot IS NOT NULL;
    CREATE TABLE blob_labels (
        digest TEXT NOT NULL REFERENCES blobs (digest) ON DELETE CASCADE,
        name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (digest, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE blob_refs (
        digest TEXT NOT NULL, owner TEXT NOT NULL, PRIMARY KEY (digest, owner)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX blob_refs_owner ON blob_refs (owner);
"];

/// A blob that the store has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its name.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// All that is known of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobDetail {
    /// Its name.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// When it was stored, in seconds since 1970.
    pub created: i64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// The blobs of one state directory; clones share it. Files are `blobs/sha256/<hex>`, unfinished ones are in `ingest/`.
#[derive(Clone, Debug)]
pub struct ContentStore(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    blobs: PathBuf,
    pub(crate) ingest: PathBuf,
    pub(crate) db: Db,
    state: Mutex<State>,
    /// Held while a file gets its final name and its row, and while rows and files are collected.
    pub(crate) publish: Mutex<()>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) leases: Leases,
    pub(crate) writing: HashSet<String>,
}

impl Inner {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Digests are parsed hex, so the name cannot leave the directory.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    pub(crate) fn blob_dir(&self) -> &Path {
        &self.blobs
    }
}

impl ContentStore {
    /// Opens or makes the store below `root`. Rows that a power cut left in doubt are dropped, and so are unfinished
    /// writes that nobody resumed for a day.
    pub fn open(root: &Path, db: Db) -> Result<Self> {
        let blobs = root.join("blobs").join("sha256");
        let ingest = root.join("ingest");
        for dir in [&blobs, &ingest] {
            fs::create_dir_all(dir)
                .map_err(|source| ContentError::Open { path: dir.display().to_string(), source })?;
        }
        db.migrate("content", SCHEMA)?;
        let store = Self(Arc::new(Inner {
            blobs,
            ingest,
            db,
            state: Mutex::new(State::default()),
            publish: Mutex::new(()),
        }));
        let in_doubt = store.drop_in_doubt()?;
        store.drop_stale_ingests(in_doubt);
        Ok(store)
    }

    /// The database, for rooms that keep rows beside the store's.
    pub fn db(&self) -> &Db {
        &self.0.db
    }

    /// The size in bytes of a blob that is complete, `None` when the store has none.
    pub fn info(&self, digest: &Digest) -> Result<Option<u64>> {
        self.0.state().leases.touch(digest);
        Ok(self
            .0
            .db
            .with(|c| {
                c.prepare_cached("SELECT size FROM blobs WHERE digest = ?1")?
                    .query_row([digest.to_string()], |row| row.get::<_, i64>(0))
                    .optional()
            })?
            .map(|size| size as u64))
    }

    /// Opens the file of a blob, for sendfile, ranges and random access. The bytes are *not* checked while they are
    /// read: use [`reader`](Self::reader) where the reader does not verify what comes out.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        if self.info(digest)?.is_none() {
            return Err(ContentError::NotFound(*digest));
        }
        match File::open(self.0.path(digest)) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Somebody emptied the directory: the row is a lie, and the blob can be fetched again without it.
                self.forget(digest)?;
                Err(ContentError::NotFound(*digest))
            }
            Err(error) => Err(ContentError::io("open", digest, error)),
        }
    }

    /// Reads a blob as a stream that fails at its end when the bytes are not those of the digest.
    pub fn reader(&self, digest: &Digest) -> Result<BlobReader> {
        Ok(BlobReader::new(self.clone(), *digest, self.open_blob(digest)?))
    }

    /// The verified bytes of a blob of at most `limit` bytes.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let size = self.info(digest)?.ok_or(ContentError::NotFound(*digest))?;
        if size > limit {
            return Err(ContentError::TooLarge { digest: *digest, size, limit });
        }
        let mut file = self.open_blob(digest)?;
        let mut data = Vec::with_capacity(size as usize);
        io::Read::read_to_end(&mut io::Read::take(&mut file, size + 1), &mut data)
            .map_err(|error| ContentError::io("read", digest, error))?;
        let found = Digest::sha256(&data);
        if found != *digest {
            self.forget(digest)?;
            return Err(ContentError::Damaged { digest: *digest, found });
        }
        Ok(data)
    }

    /// Stores `data` and returns its name; nothing happens when the store has it.
    pub fn put(&self, data: &[u8]) -> Result<Digest> {
        let digest = Digest::sha256(data);
        if self.info(&digest)?.is_some() {
            return Ok(digest);
        }
        let mut writer = self.writer(Some(digest), None)?;
        writer.write(data)?;
        writer.commit(Some(data.len() as u64))
    }

    /// Starts writing a blob. With `expected`, [`BlobWriter::commit`] refuses other bytes. With `resume`, what was
    /// written under that key before (also by an earlier process) is kept and [`BlobWriter::offset`] tells how much;
    /// it is hashed again, so this may read the whole partial file. Fails with `Busy` while another writer has the key.
    pub fn writer(&self, expected: Option<Digest>, resume: Option<&str>) -> Result<BlobWriter> {
        BlobWriter::open(self.clone(), expected, resume)
    }

    /// All that is known of a blob, `None` when the store has none. Asking protects it from no collection.
    pub fn detail(&self, digest: &Digest) -> Result<Option<BlobDetail>> {
        let row = self.0.db.with(|c| {
            c.prepare_cached("SELECT size, created FROM blobs WHERE digest = ?1")?
                .query_row([digest.to_string()], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))
                .optional()
        })?;
        let Some((size, created)) = row else { return Ok(None) };
        let labels = self.labels(digest)?;
        Ok(Some(BlobDetail { digest: *digest, size: size as u64, created, labels }))
    }

    /// All labels of a blob, such as `containerd.io/distribution.source.<host>`.
    pub fn labels(&self, digest: &Digest) -> Result<BTreeMap<String, String>> {
        Ok(self.0.db.with(|c| {
            c.prepare_cached("SELECT name, value FROM blob_labels WHERE digest = ?1")?
                .query_map([digest.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?)
    }

    /// Sets a label, or removes it with `None`. Labels go when the blob goes.
    pub fn set_label(&self, digest: &Digest, name: &str, value: Option<&str>) -> Result<()> {
        if self.info(digest)?.is_none() {
            return Err(ContentError::NotFound(*digest));
        }
        let text = digest.to_string();
        self.0.db.write(|tx| match value {
            Some(value) => tx.execute(
                "INSERT OR REPLACE INTO blob_labels (digest, name, value) VALUES (?1, ?2, ?3)",
                (&text, name, value),
            ),
            None => tx.execute("DELETE FROM blob_labels WHERE digest = ?1 AND name = ?2", (&text, name)),
        })?;
        Ok(())
    }

    /// Protects from collection what is touched from now on, until the lease is dropped.
    pub fn lease(&self) -> Lease {
        let id = self.0.state().leases.begin();
        Lease { store: self.0.clone(), id }
    }

    /// Lets `owner` (any text, such as `snapshot:<id>`) keep a blob alive.
    pub fn add_ref(&self, owner: &str, digest: &Digest) -> Result<()> {
        Ok(self.0.db.write(|tx| Self::add_ref_in(tx, owner, digest))?)
    }

    /// As [`add_ref`](Self::add_ref), within the caller's transaction.
    pub fn add_ref_in(tx: &Transaction<'_>, owner: &str, digest: &Digest) -> rusqlite::Result<()> {
        tx.prepare_cached("INSERT OR IGNORE INTO blob_refs (digest, owner) VALUES (?1, ?2)")?
            .execute((digest.to_string(), owner))?;
        Ok(())
    }

    /// Ends all that `owner` kept alive.
    pub fn remove_owner(&self, owner: &str) -> Result<()> {
        Ok(self.0.db.write(|tx| Self::remove_owner_in(tx, owner))?)
    }

    /// As [`remove_owner`](Self::remove_owner), within the caller's transaction.
    pub fn remove_owner_in(tx: &Transaction<'_>, owner: &str) -> rusqlite::Result<()> {
        tx.prepare_cached("DELETE FROM blob_refs WHERE owner = ?1")?.execute([owner])?;
        Ok(())
    }

    /// What `owner` keeps alive.
    pub fn refs(&self, owner: &str) -> Result<Vec<Digest>> {
        let texts: Vec<String> = self.0.db.with(|c| {
            c.prepare_cached("SELECT digest FROM blob_refs WHERE owner = ?1 ORDER BY digest")?
                .query_map([owner], |row| row.get(0))?
                .collect()
        })?;
        Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
    }

    /// All blobs, by digest.
    pub fn list(&self) -> Result<Vec<BlobInfo>> {
        let rows: Vec<(String, i64)> = self.0.db.with(|c| {
            c.prepare_cached("SELECT digest, size FROM blobs ORDER BY digest")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        let info =
            |(text, size): (String, i64)| Some(BlobInfo { digest: text.parse().ok()?, size: size as u64 });
        Ok(rows.into_iter().filter_map(info).collect())
    }

    /// Removes the row and the file of a blob that cannot be trusted.
    pub(crate) fn forget(&self, digest: &Digest) -> Result<()> {
        let _publish = self.0.publish.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.db.write(|tx| tx.execute("DELETE FROM blobs WHERE digest = ?1", [digest.to_string()]))?;
        match fs::remove_file(self.0.path(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ContentError::io("remove", digest, error))
            }
            _ => Ok(()),
        }
    }
}
