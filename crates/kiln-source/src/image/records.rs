//! Which image was last seen under which name, and what keeps its documents.

use kiln_content::rusqlite::{self, OptionalExtension};
use kiln_content::{ContentStore, Db};
use kiln_digest::Digest;
use kiln_oci::{Descriptor, Reference};

use crate::Result;

/// Names remembered; beyond that the longest unused are forgotten and their documents become garbage.
const KEPT: i64 = 1000;

const SCHEMA: &[&str] = &["
    CREATE TABLE image_sources (
        name TEXT PRIMARY KEY, digest TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL,
        used INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX image_sources_used ON image_sources (used);
    CREATE INDEX image_sources_digest ON image_sources (digest);
"];

pub(super) fn migrate(db: &Db) -> Result<()> {
    Ok(db.migrate("source-image", SCHEMA)?)
}

/// What the name stood for when it was last resolved.
pub(super) fn find(db: &Db, reference: &Reference) -> Result<Option<Descriptor>> {
    let row: Option<(String, String, i64)> = db.with(|c| {
        c.prepare_cached("SELECT digest, media_type, size FROM image_sources WHERE name = ?1")?
            .query_row([reference.to_string()], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
            .optional()
    })?;
    Ok(row.and_then(|(digest, media_type, size)| {
        Some(Descriptor::new(media_type, digest.parse().ok()?, u64::try_from(size).ok()?))
    }))
}

/// Remembers what a name stands for, and keeps the documents it takes to use it.
pub(super) fn remember(
    content: &ContentStore,
    reference: &Reference,
    root: &Descriptor,
    documents: &[Digest],
    now: i64,
) -> Result<()> {
    let digest = root.digest.to_string();
    content.db().write(|tx| {
        tx.prepare_cached(
            "INSERT OR REPLACE INTO image_sources (name, digest, media_type, size, used) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute((reference.to_string(), &digest, &root.media_type, root.size as i64, now))?;
        for document in documents {
            ContentStore::add_ref_in(tx, &owner(&digest), document)?;
        }
        forget_oldest(tx)
    })?;
    Ok(())
}

/// Forgets what was last used before `used`.
pub(super) fn forget_before(db: &Db, used: i64) -> Result<()> {
    Ok(db.write(|tx| {
        let mut old = tx.prepare("SELECT name, digest FROM image_sources WHERE used < ?1")?;
        let rows: Vec<(String, String)> =
            old.query_map([used], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
        rows.iter().try_for_each(|(name, digest)| forget(tx, name, digest))
    })?)
}

fn forget_oldest(tx: &rusqlite::Transaction<'_>) -> rusqlite::Result<()> {
    let count: i64 = tx.query_row("SELECT count(*) FROM image_sources", [], |r| r.get(0))?;
    if count <= KEPT {
        return Ok(());
    }
    let mut oldest = tx.prepare("SELECT name, digest FROM image_sources ORDER BY used, name LIMIT ?1")?;
    let rows: Vec<(String, String)> =
        oldest.query_map([count - KEPT], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    rows.iter().try_for_each(|(name, digest)| forget(tx, name, digest))
}

fn forget(tx: &rusqlite::Transaction<'_>, name: &str, digest: &str) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM image_sources WHERE name = ?1", [name])?;
    let others: bool =
        tx.query_row("SELECT EXISTS (SELECT 1 FROM image_sources WHERE digest = ?1)", [digest], |r| {
            r.get(0)
        })?;
    if others { Ok(()) } else { ContentStore::remove_owner_in(tx, &owner(digest)) }
}

fn owner(digest: &str) -> String {
    format!("image-source:{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_and_forgets() {
        let dir = tempfile::tempdir().unwrap();
        let content = ContentStore::open(dir.path(), Db::open(&dir.path().join("db")).unwrap()).unwrap();
        migrate(content.db()).unwrap();
        let document = content.put(b"document").unwrap();
        let name = |i: i64| Reference::parse_normalized(&format!("a/b:{i}")).unwrap();
        let root = |i: i64| Descriptor::of("t", i.to_string().as_bytes());
        for i in 0..=KEPT {
            remember(&content, &name(i), &root(i), &[document], i).unwrap();
        }
        assert_eq!(find(content.db(), &name(0)).unwrap(), None);
        assert_eq!(find(content.db(), &name(1)).unwrap(), Some(root(1)));
        assert!(content.refs(&owner(&root(0).digest.to_string())).unwrap().is_empty());
        assert_eq!(content.refs(&owner(&root(1).digest.to_string())).unwrap(), [document]);
        remember(&content, &name(1), &root(7), &[], 9999).unwrap();
        assert_eq!(find(content.db(), &name(1)).unwrap(), Some(root(7)));
        forget_before(content.db(), 9999).unwrap();
        assert_eq!(find(content.db(), &name(2)).unwrap(), None);
        assert!(content.refs(&owner(&root(2).digest.to_string())).unwrap().is_empty());
        assert_eq!(find(content.db(), &name(1)).unwrap(), Some(root(7)));
    }
}
