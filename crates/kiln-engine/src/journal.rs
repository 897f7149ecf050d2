//! Cache records in the database: loaded once, then written behind the solver in order.
//!
//! Format: docs/formats/state.md, room `cache`.

use kiln_content::{Db, DbError};
use kiln_digest::Digest;
use kiln_solver::{CacheIndex, Change, Journal, KeyId, Link, ResultId};
use rusqlite::{Row, Transaction, params};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SCHEMA: &[&str] = &["
    CREATE TABLE cache_keys (id INTEGER PRIMARY KEY, root TEXT);
    CREATE TABLE cache_links (
        source INTEGER NOT NULL, target INTEGER NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL,
        digest TEXT NOT NULL, selector TEXT NOT NULL, PRIMARY KEY (source, target, input, output, digest, selector)
    ) WITHOUT ROWID;
    CREATE INDEX cache_links_target ON cache_links (target);
    CREATE TABLE cache_results (
        key INTEGER NOT NULL, result TEXT NOT NULL, created INTEGER NOT NULL, PRIMARY KEY (key, result)
    ) WITHOUT ROWID;
    CREATE INDEX cache_results_result ON cache_results (result);
"];

/// Writes changes on a thread of its own.
pub(crate) struct DbJournal(mpsc::Sender<Message>);

enum Message {
    Changes(Vec<Change>),
    Flush(tokio::sync::oneshot::Sender<()>),
}

impl DbJournal {
    /// Loads what is there and starts the writer.
    pub(crate) fn open(db: Db) -> Result<(Self, CacheIndex), DbError> {
        db.migrate("cache", SCHEMA)?;
        let index = CacheIndex::load(load(&db)?);
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new().name("cache-journal".into());
        if let Err(error) = thread.spawn(move || write_all(&db, &receiver)) {
            tracing::error!(%error, "start the thread that writes cache records: they will be lost");
        }
        Ok((Self(sender), index))
    }

    /// Waits until everything appended so far is in the database.
    pub(crate) async fn flush(&self) {
        let (sender, done) = tokio::sync::oneshot::channel();
        if self.0.send(Message::Flush(sender)).is_ok() {
            let _ = done.await;
        }
    }
}

impl Journal for DbJournal {
    fn append(&self, changes: Vec<Change>) {
        let _ = self.0.send(Message::Changes(changes));
    }
}

/// Everything that waits goes into one transaction.
fn write_all(db: &Db, receiver: &mpsc::Receiver<Message>) {
    while let Ok(first) = receiver.recv() {
        let mut changes = Vec::new();
        let mut waiting = Vec::new();
        for message in std::iter::once(first).chain(receiver.try_iter()) {
            match message {
                Message::Changes(more) => changes.extend(more),
                Message::Flush(sender) => waiting.push(sender),
            }
        }
        if !changes.is_empty()
            && let Err(error) = db.write(|tx| changes.iter().try_for_each(|c| apply(tx, c)))
        {
            tracing::error!(%error, "write cache records: later builds may not find these results");
        }
        for sender in waiting {
            // Who waited may have gone.
            let _ = sender.send(());
        }
    }
}

fn apply(tx: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| tx.prepare_cached(sql)?.execute(values).map(drop);
    match change {
        Change::AddKey { key, root } => run(
            "INSERT OR REPLACE INTO cache_keys (id, root) VALUES (?1, ?2)",
            &[&number(*key), &root.map(|r| r.to_string())],
        ),
        Change::AddLink { from, link, to } => run(
            "INSERT OR IGNORE INTO cache_links (source, target, input, output, digest, selector) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            &[
                &number(*from),
                &number(*to),
                &link.input,
                &link.output,
                &link.digest.to_string(),
                &link.selector.map(|s| s.to_string()).unwrap_or_default(),
            ],
        ),
        Change::AddResult { key, id, created_at } => run(
            "INSERT OR REPLACE INTO cache_results (key, result, created) VALUES (?1, ?2, ?3)",
            &[&number(*key), &id.as_str(), &nanos(*created_at)],
        ),
        Change::RemoveKey { key } => {
            run("DELETE FROM cache_keys WHERE id = ?1", &[&number(*key)])?;
            run("DELETE FROM cache_links WHERE source = ?1 OR target = ?1", &[&number(*key)])?;
            run("DELETE FROM cache_results WHERE key = ?1", &[&number(*key)])
        }
        Change::RemoveResult { id } => run("DELETE FROM cache_results WHERE result = ?1", &[&id.as_str()]),
    }
}

fn load(db: &Db) -> Result<Vec<Change>, DbError> {
    db.with(|c| {
        let mut changes = Vec::new();
        let mut add =
            |sql: &str, read: fn(&Row<'_>) -> rusqlite::Result<Option<Change>>| -> rusqlite::Result<()> {
                let mut statement = c.prepare(sql)?;
                let mut rows = statement.query(params![])?;
                while let Some(row) = rows.next()? {
                    changes.extend(read(row)?);
                }
                Ok(())
            };
        add("SELECT id, root FROM cache_keys", |row| {
            let root: Option<String> = row.get(1)?;
            let root = root.and_then(|r| r.parse().ok());
            Ok(Some(Change::AddKey { key: key(row.get(0)?), root }))
        })?;
        add("SELECT source, target, input, output, digest, selector FROM cache_links", |row| {
            let (digest, selector): (String, String) = (row.get(4)?, row.get(5)?);
            let Ok(digest) = digest.parse::<Digest>() else { return Ok(None) };
            let link =
                Link { input: row.get(2)?, output: row.get(3)?, digest, selector: selector.parse().ok() };
            Ok(Some(Change::AddLink { from: key(row.get(0)?), link, to: key(row.get(1)?) }))
        })?;
        add("SELECT key, result, created FROM cache_results ORDER BY created", |row| {
            let id: String = row.get(1)?;
            let nanos: i64 = row.get(2)?;
            let created_at = UNIX_EPOCH + Duration::from_nanos(nanos.unsigned_abs());
            Ok(Some(Change::AddResult { key: key(row.get(0)?), id: ResultId::new(id), created_at }))
        })?;
        Ok(changes)
    })
}

fn number(key: KeyId) -> i64 {
    i64::from_ne_bytes(key.0.to_ne_bytes())
}

fn key(number: i64) -> KeyId {
    KeyId(u64::from_ne_bytes(number.to_ne_bytes()))
}

fn nanos(t: SystemTime) -> i64 {
    let since = t.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_appended_is_loaded_again() {
        let db = Db::in_memory().unwrap();
        let (journal, index) = DbJournal::open(db.clone()).unwrap();
        assert!(index.is_empty());
        let d = Digest::sha256("op");
        let link = Link { input: 0, output: 0, digest: d, selector: Some(d) };
        let at = UNIX_EPOCH + Duration::from_secs(5);
        journal.append(vec![
            Change::AddKey { key: KeyId(1), root: Some(d) },
            Change::AddKey { key: KeyId(2), root: None },
            Change::AddLink { from: KeyId(1), link, to: KeyId(2) },
            Change::AddResult { key: KeyId(2), id: ResultId::new("r"), created_at: at },
        ]);
        journal.flush().await;
        let (_, index) = DbJournal::open(db.clone()).unwrap();
        assert_eq!(index.len(), 2);
        assert_eq!(index.records(KeyId(2))[0].created_at, at);
        journal.append(vec![
            Change::RemoveResult { id: ResultId::new("r") },
            Change::RemoveKey { key: KeyId(2) },
        ]);
        journal.flush().await;
        let (_, index) = DbJournal::open(db).unwrap();
        assert_eq!(index.results().count(), 0);
    }
}
