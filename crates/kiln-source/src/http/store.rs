//! What is known about addresses fetched before, so that unchanged content is not fetched again.

use kiln_content::Db;
use kiln_digest::Digest;
use kiln_snapshot::{Snapshot, Snapshots};

use super::Resolved;
use crate::Result;

/// Answers remembered per address; servers that alternate between a few are served well, others cannot fill the table.
const KEPT: i64 = 8;

const SCHEMA: &[&str] = &["
    CREATE TABLE http_sources (
        id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL, etag TEXT NOT NULL, digest TEXT NOT NULL,
        filename TEXT NOT NULL, last_modified TEXT, snapshot TEXT NOT NULL
    ) STRICT;
    CREATE INDEX http_sources_fingerprint ON http_sources (fingerprint);
"];

/// One earlier answer that is still at hand.
pub(super) struct Known {
    /// Without the mark of a weak one; may be empty.
    pub(super) etag: String,
    pub(super) resolved: Resolved,
    pub(super) snapshot: Snapshot,
}

pub(super) fn migrate(db: &Db) -> Result<()> {
    Ok(db.migrate("source-http", SCHEMA)?)
}

/// The earlier answers for an address; those whose snapshot is gone are forgotten.
pub(super) fn find(snapshots: &Snapshots, fingerprint: &Digest) -> Result<Vec<Known>> {
    let db = snapshots.content().db();
    type Row = (i64, String, String, String, Option<String>, String);
    let rows: Vec<Row> = db.with(|c| {
        c.prepare_cached(
            "SELECT id, etag, digest, filename, last_modified, snapshot FROM http_sources
             WHERE fingerprint = ?1 ORDER BY id DESC",
        )?
        .query_map([fingerprint.to_string()], |r| {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?))
        })?
        .collect()
    })?;
    let mut known = Vec::new();
    for (row, etag, digest, filename, last_modified, id) in rows {
        let found = id.parse().ok().and_then(|id| snapshots.get(&id)).zip(digest.parse().ok());
        let Some((snapshot, digest)) = found else {
            db.write(|tx| tx.execute("DELETE FROM http_sources WHERE id = ?1", [row]))?;
            continue;
        };
        let resolved = Resolved { digest, filename, last_modified, snapshot: Some(snapshot.id().clone()) };
        known.push(Known { etag, resolved, snapshot });
    }
    Ok(known)
}

/// Remembers an answer.
pub(super) fn remember(
    snapshots: &Snapshots,
    fingerprint: &Digest,
    etag: &str,
    resolved: &Resolved,
) -> Result<()> {
    let Some(id) = &resolved.snapshot else { return Ok(()) };
    let (fingerprint, digest) = (fingerprint.to_string(), resolved.digest.to_string());
    Ok(snapshots.content().db().write(|tx| {
        tx.execute(
            "DELETE FROM http_sources WHERE fingerprint = ?1 AND etag = ?2 AND digest = ?3",
            (&fingerprint, etag, &digest),
        )?;
        tx.execute(
            "INSERT INTO http_sources (fingerprint, etag, digest, filename, last_modified, snapshot)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            (&fingerprint, etag, &digest, &resolved.filename, &resolved.last_modified, id.as_str()),
        )?;
        tx.execute(
            "DELETE FROM http_sources WHERE fingerprint = ?1 AND id NOT IN
             (SELECT id FROM http_sources WHERE fingerprint = ?1 ORDER BY id DESC LIMIT ?2)",
            (&fingerprint, KEPT),
        )
        .map(drop)
    })?)
}
