//! Records in the database, with what they keep in the content store.

use crate::{HistoryError, Limits};
use kiln_content::ContentStore;
use kiln_digest::Digest;
use kiln_proto::control::BuildHistoryRecord;
use kiln_proto::google::protobuf::Timestamp;
use prost::Message;
use rusqlite::{OptionalExtension, Transaction};
use std::time::{SystemTime, UNIX_EPOCH};

type Result<T, E = HistoryError> = std::result::Result<T, E>;

/// `record` is a `moby.buildkit.v1.BuildHistoryRecord`; the other columns repeat what rows are found by. Times are
/// milliseconds since 1970. A row with `deleted` is waiting for its last reader. Blobs are held by the owner
/// `history:<ref>`.
const SCHEMA: &[&str] = &["
    CREATE TABLE history (
        ref TEXT PRIMARY KEY, created INTEGER NOT NULL, completed INTEGER NOT NULL, pinned INTEGER NOT NULL,
        deleted INTEGER NOT NULL DEFAULT 0, log TEXT, record BLOB NOT NULL
    ) STRICT;
    CREATE INDEX history_completed ON history (completed);
"];

#[derive(Debug)]
pub(crate) struct Store {
    content: ContentStore,
}

fn owner(reference: &str) -> String {
    format!("history:{reference}")
}

fn millis(t: Option<&Timestamp>) -> i64 {
    t.map_or(0, |t| t.seconds.saturating_mul(1000).saturating_add(i64::from(t.nanos / 1_000_000)))
}

impl Store {
    /// Rows that were being removed, and those whose log a power cut took, go.
    pub(crate) fn open(content: ContentStore) -> Result<Self> {
        content.db().migrate("history", SCHEMA)?;
        let store = Self { content };
        for reference in store.references(
            "SELECT ref FROM history h WHERE deleted OR log IS NOT NULL
             AND NOT EXISTS (SELECT 1 FROM blobs b WHERE b.digest = h.log)",
            (),
        )? {
            store.mark_deleted(&reference)?;
            store.purge(&reference)?;
        }
        Ok(store)
    }

    pub(crate) fn content(&self) -> &ContentStore {
        &self.content
    }

    /// Writes a record and lets it keep `blobs`; takes the place of one with the same reference.
    pub(crate) fn put(&self, record: &BuildHistoryRecord, blobs: &[Digest]) -> Result<()> {
        let owner = owner(&record.r#ref);
        let before = self.content.refs(&owner)?;
        self.content.db().write(|tx| {
            ContentStore::remove_owner_in(tx, &owner)?;
            blobs.iter().try_for_each(|blob| ContentStore::add_ref_in(tx, &owner, blob))?;
            write_row(tx, record)
        })?;
        self.content.collect(&before)?;
        Ok(())
    }

    pub(crate) fn get(&self, reference: &str) -> Result<Option<BuildHistoryRecord>> {
        let data: Option<Vec<u8>> = self.content.db().with(|c| {
            c.prepare_cached("SELECT record FROM history WHERE ref = ?1 AND NOT deleted")?
                .query_row([reference], |row| row.get(0))
                .optional()
        })?;
        Ok(data.and_then(|data| decode(reference, &data)))
    }

    /// Changes a record.
    pub(crate) fn update(
        &self,
        reference: &str,
        change: impl FnOnce(&mut BuildHistoryRecord),
    ) -> Result<BuildHistoryRecord> {
        let changed = self.content.db().write(|tx| {
            let data: Option<Vec<u8>> = tx
                .prepare_cached("SELECT record FROM history WHERE ref = ?1 AND NOT deleted")?
                .query_row([reference], |row| row.get(0))
                .optional()?;
            let Some(mut record) = data.and_then(|data| decode(reference, &data)) else { return Ok(None) };
            change(&mut record);
            write_row(tx, &record)?;
            Ok(Some(record))
        })?;
        changed.ok_or_else(|| HistoryError::NotFound(reference.to_string()))
    }

    /// Hides a record from everybody who asks from now on. Returns whether it was there.
    pub(crate) fn mark_deleted(&self, reference: &str) -> Result<bool> {
        let changed = self.content.db().write(|tx| {
            tx.execute("UPDATE history SET deleted = 1 WHERE ref = ?1 AND NOT deleted", [reference])
        })?;
        Ok(changed > 0)
    }

    pub(crate) fn is_deleted(&self, reference: &str) -> Result<bool> {
        Ok(self.content.db().with(|c| {
            c.prepare_cached("SELECT EXISTS (SELECT 1 FROM history WHERE ref = ?1 AND deleted)")?
                .query_row([reference], |row| row.get(0))
        })?)
    }

    /// Removes a record that is marked, and the blobs that only it kept.
    pub(crate) fn purge(&self, reference: &str) -> Result<()> {
        let owner = owner(reference);
        let blobs = self.content.refs(&owner)?;
        let removed = self.content.db().write(|tx| {
            let removed = tx.execute("DELETE FROM history WHERE ref = ?1 AND deleted", [reference])?;
            if removed > 0 {
                ContentStore::remove_owner_in(tx, &owner)?;
            }
            Ok(removed)
        })?;
        if removed > 0 {
            self.content.collect(&blobs)?;
        }
        Ok(())
    }

    /// Calls `visit` with each record, by reference, or only with that of `reference`. One is in memory at a time.
    pub(crate) fn each(
        &self,
        reference: Option<&str>,
        mut visit: impl FnMut(BuildHistoryRecord),
    ) -> Result<()> {
        if let Some(reference) = reference {
            self.get(reference)?.into_iter().for_each(visit);
            return Ok(());
        }
        for reference in self.references("SELECT ref FROM history WHERE NOT deleted ORDER BY ref", ())? {
            self.get(&reference)?.into_iter().for_each(&mut visit);
        }
        Ok(())
    }

    /// Records that have outlived both limits and are not pinned.
    pub(crate) fn expired(&self, limits: &Limits) -> Result<Vec<String>> {
        let oldest = SystemTime::now().checked_sub(limits.max_age).unwrap_or(UNIX_EPOCH);
        let oldest = oldest.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let keep = i64::try_from(limits.max_entries).unwrap_or(i64::MAX);
        self.references(
            "SELECT ref FROM (SELECT ref, completed FROM history WHERE NOT pinned AND NOT deleted
             ORDER BY completed DESC, ref LIMIT -1 OFFSET ?1) WHERE completed < ?2",
            (keep, i64::try_from(oldest).unwrap_or(i64::MAX)),
        )
    }

    fn references(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<String>> {
        Ok(self
            .content
            .db()
            .with(|c| c.prepare_cached(sql)?.query_map(params, |row| row.get(0))?.collect())?)
    }
}

fn write_row(tx: &Transaction<'_>, record: &BuildHistoryRecord) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO history (ref, created, completed, pinned, log, record)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute((
        &record.r#ref,
        millis(record.created_at.as_ref()),
        millis(record.completed_at.as_ref()),
        record.pinned,
        record.logs.as_ref().map(|log| &log.digest),
        record.encode_to_vec(),
    ))?;
    Ok(())
}

fn decode(reference: &str, data: &[u8]) -> Option<BuildHistoryRecord> {
    BuildHistoryRecord::decode(data)
        .inspect_err(|error| tracing::warn!(reference, %error, "a build record cannot be read"))
        .ok()
}
