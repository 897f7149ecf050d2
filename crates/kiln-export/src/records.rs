//! Names of images that stay on this machine: room `images` of the database (docs/formats/state.md).

use kiln_content::{ContentStore, Db, DbError};
use kiln_digest::Digest;
use kiln_oci::Descriptor;
use std::time::Duration;

const SCHEMA: &[&str] = &["
    CREATE TABLE images (name TEXT PRIMARY KEY, descriptor TEXT NOT NULL, updated INTEGER NOT NULL) WITHOUT ROWID;
"];

/// Image names and what they stand for. Clones are the same.
#[derive(Clone, Debug)]
pub struct ImageRecords(Db);

impl ImageRecords {
    /// Opens the room.
    ///
    /// # Errors
    /// If the database fails.
    pub fn open(db: Db) -> Result<Self, DbError> {
        db.migrate("images", SCHEMA)?;
        Ok(Self(db))
    }

    /// What a name stands for.
    ///
    /// # Errors
    /// If the database fails.
    pub fn get(&self, name: &str) -> Result<Option<Descriptor>, DbError> {
        let text: Option<String> = self.0.with(|c| {
            let mut rows = c.prepare_cached("SELECT descriptor FROM images WHERE name = ?1")?;
            let mut rows = rows.query([name])?;
            rows.next()?.map(|row| row.get(0)).transpose()
        })?;
        Ok(text.and_then(|t| serde_json::from_str(&t).ok()))
    }

    /// Lets `name` stand for an image whose blobs are `blobs`; they are kept until the name goes or stands for another.
    ///
    /// # Errors
    /// If the database fails.
    pub fn set(&self, name: &str, root: &Descriptor, blobs: &[Digest]) -> Result<(), DbError> {
        let text = serde_json::to_string(root).unwrap_or_default();
        let owner = owner(name);
        let now = jiff::Timestamp::now().as_second();
        self.0.write(|tx| {
            ContentStore::remove_owner_in(tx, &owner)?;
            for blob in blobs {
                ContentStore::add_ref_in(tx, &owner, blob)?;
            }
            tx.execute(
                "INSERT OR REPLACE INTO images (name, descriptor, updated) VALUES (?1, ?2, ?3)",
                (name, &text, now),
            )?;
            Ok(())
        })
    }

    /// Forgets names that were not given in the last `keep`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn forget(&self, keep: Duration) -> Result<(), DbError> {
        let keep = i64::try_from(keep.as_secs()).unwrap_or(i64::MAX);
        let before = jiff::Timestamp::now().as_second().saturating_sub(keep);
        self.0.write(|tx| {
            let mut old = tx.prepare("SELECT name FROM images WHERE updated <= ?1")?;
            let names: Vec<String> =
                old.query_map([before], |row| row.get(0))?.collect::<kiln_content::rusqlite::Result<_>>()?;
            names.iter().try_for_each(|name| ContentStore::remove_owner_in(tx, &owner(name)))?;
            tx.execute("DELETE FROM images WHERE updated <= ?1", [before]).map(drop)
        })
    }

    /// Forgets a name.
    ///
    /// # Errors
    /// If the database fails.
    pub fn remove(&self, name: &str) -> Result<(), DbError> {
        self.0.write(|tx| {
            ContentStore::remove_owner_in(tx, &owner(name))?;
            tx.execute("DELETE FROM images WHERE name = ?1", [name]).map(drop)
        })
    }
}

fn owner(name: &str) -> String {
    format!("image:{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_the_last_image() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::in_memory().unwrap();
        let content = ContentStore::open(dir.path(), db.clone()).unwrap();
        let records = ImageRecords::open(db).unwrap();
        let (a, b) = (content.put(b"a").unwrap(), content.put(b"b").unwrap());
        records.set("x", &Descriptor::of("t", b"a"), &[a]).unwrap();
        records.set("x", &Descriptor::of("t", b"b"), &[b]).unwrap();
        assert_eq!(records.get("x").unwrap().unwrap().digest, b);
        assert_eq!(content.refs(&owner("x")).unwrap(), [b]);
        records.remove("x").unwrap();
        assert!(records.get("x").unwrap().is_none());
        records.set("y", &Descriptor::of("t", b"b"), &[b]).unwrap();
        records.forget(Duration::from_secs(60)).unwrap();
        assert!(records.get("y").unwrap().is_some());
        records.forget(Duration::ZERO).unwrap();
        assert!(records.get("y").unwrap().is_none() && content.refs(&owner("y")).unwrap().is_empty());
    }
}
