//! Removing what nobody refers to, and what a crash left behind.

use std::fs::{self, File};
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use kiln_digest::Digest;
use rusqlite::OptionalExtension;

use crate::{ContentError, ContentStore};

type Result<T, E = ContentError> = std::result::Result<T, E>;

/// How long an unfinished write may wait for somebody to resume it.
const INGEST_AGE: Duration = Duration::from_secs(24 * 3600);

/// Blobs per transaction, so that writers wait briefly.
const BATCH: usize = 64;

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcStats {
    /// Number of blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl ContentStore {
    /// Removes every blob that no owner refers to and no lease protects, and files without a row.
    pub fn gc(&self) -> Result<GcStats> {
        let rows: Vec<(String, i64)> = self.db().with(|c| {
            c.prepare_cached(
                "SELECT digest, size FROM blobs b WHERE NOT EXISTS (SELECT 1 FROM blob_refs r WHERE r.digest = b.digest)",
            )?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
        })?;
        let mut stats = GcStats::default();
        for batch in rows.chunks(BATCH) {
            self.remove_unreferenced(batch, &mut stats)?;
        }
        self.remove_orphans()?;
        Ok(stats)
    }

    /// Removes those of `digests` that no owner refers to and no lease protects, without a look at all others.
    pub fn collect(&self, digests: &[Digest]) -> Result<GcStats> {
        let mut stats = GcStats::default();
        let mut rows = Vec::new();
        for digest in digests {
            let size = self.db().with(|c| {
                c.prepare_cached("SELECT size FROM blobs WHERE digest = ?1")?
                    .query_row([digest.to_string()], |row| row.get::<_, i64>(0))
                    .optional()
            })?;
            rows.extend(size.map(|size| (digest.to_string(), size)));
        }
        for batch in rows.chunks(BATCH) {
            self.remove_unreferenced(batch, &mut stats)?;
        }
        Ok(stats)
    }

    fn remove_unreferenced(&self, batch: &[(String, i64)], stats: &mut GcStats) -> Result<()> {
        let _publish = self.0.publish.lock().unwrap_or_else(PoisonError::into_inner);
        // The lock keeps lookups out until the rows are gone: whoever finds the blob later finds nothing.
        let state = self.0.state();
        let mut gone: Vec<(Digest, u64)> = Vec::new();
        self.db().write(|tx| {
            let mut delete = tx.prepare_cached(
                "DELETE FROM blobs WHERE digest = ?1 AND NOT EXISTS (SELECT 1 FROM blob_refs r WHERE r.digest = ?1)",
            )?;
            for (text, size) in batch {
                let Ok(digest) = text.parse::<Digest>() else { continue };
                if !state.leases.protects(&digest) && delete.execute([text])? > 0 {
                    gone.push((digest, *size as u64));
                }
            }
            Ok(())
        })?;
        drop(state);
        for (digest, size) in gone {
            // A file that stays is without a row: an orphan for the next round.
            let _ = fs::remove_file(self.0.path(&digest));
            stats.blobs += 1;
            stats.bytes += size;
        }
        Ok(())
    }

    /// Files whose row was never written, because the process died in between, or was dropped.
    fn remove_orphans(&self) -> Result<()> {
        let open = |source| ContentError::Open { path: self.0.blob_dir().display().to_string(), source };
        for entry in fs::read_dir(self.0.blob_dir()).map_err(open)? {
            let entry = entry.map_err(open)?;
            let name = entry.file_name();
            let digest = name.to_str().and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
            let _publish = self.0.publish.lock().unwrap_or_else(PoisonError::into_inner);
            let known = match digest {
                Some(digest) => self.db().with(|c| {
                    c.prepare_cached("SELECT EXISTS (SELECT 1 FROM blobs WHERE digest = ?1)")?
                        .query_row([digest.to_string()], |row| row.get::<_, bool>(0))
                })?,
                None => false,
            };
            if !known {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// Writes everything that was committed before the call to disk and remembers that it is there, so that a power
    /// cut after it loses none of it. Costs a `syncfs`; meant for a timer and for shutdown, not for each blob.
    pub fn sync(&self) -> Result<()> {
        let pending: Vec<String> = self.db().with(|c| {
            c.prepare_cached("SELECT digest FROM blobs WHERE boot IS NOT NULL")?
                .query_map([], |row| row.get(0))?
                .collect()
        })?;
        if pending.is_empty() {
            return Ok(());
        }
        let io = |error: std::io::Error| ContentError::io("sync", "directory", error);
        let dir = File::open(self.0.blob_dir()).map_err(io)?;
        rustix::fs::syncfs(&dir).map_err(|error| io(error.into()))?;
        self.db().write(|tx| {
            let mut mark = tx.prepare_cached("UPDATE blobs SET boot = NULL WHERE digest = ?1")?;
            pending.iter().try_for_each(|digest| mark.execute([digest]).map(drop))
        })?;
        Ok(())
    }

    /// Drops rows of an earlier boot that were never known to be on disk. Returns whether there were any.
    pub(crate) fn drop_in_doubt(&self) -> Result<bool> {
        let boot = self.db().boot();
        let dropped = self
            .db()
            .write(|tx| tx.execute("DELETE FROM blobs WHERE boot IS NOT NULL AND boot <> ?1", [boot]))?;
        if dropped > 0 {
            tracing::warn!(
                dropped,
                "the machine went down before these blobs were known to be on disk; dropped"
            );
        }
        Ok(dropped > 0)
    }

    /// Removes unfinished writes: those that cannot be resumed, old ones, all of them after a power cut.
    pub(crate) fn drop_stale_ingests(&self, all: bool) {
        let Ok(entries) = fs::read_dir(&self.0.ingest) else { return };
        for entry in entries.flatten() {
            let resumable = entry.file_name().to_string_lossy().starts_with("r-");
            let age = entry
                .metadata()
                .and_then(|m| m.modified())
                .ok()
                .and_then(|at| SystemTime::now().duration_since(at).ok());
            if all || !resumable || age.is_some_and(|age| age > INGEST_AGE) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
