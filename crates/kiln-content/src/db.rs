//! One SQLite file for all metadata.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

/// Why the database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The file could not be opened or set up.
    #[error("open database {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
    /// The tables were written by a newer program; nothing was changed.
    #[error(
        "database tables of {room} have version {found}, this kiln knows up to {known}: use a newer kiln or another state directory"
    )]
    Newer {
        /// The room whose tables these are.
        room: String,
        /// The version in the file.
        found: usize,
        /// The newest version known here.
        known: usize,
    },
    /// A migration step failed and was rolled back.
    #[error("bring database tables of {room} to version {version}: {source}")]
    Migrate {
        /// The room whose tables these are.
        room: String,
        /// The version that was to be reached.
        version: usize,
        /// The cause.
        source: rusqlite::Error,
    },
    /// A statement failed.
    #[error("database: {0}")]
    Sql(#[from] rusqlite::Error),
}

/// The handle to the database; clones share one connection.
///
/// WAL with `synchronous=NORMAL`: a commit survives the death of the process, a power cut loses at most the newest
/// commits and never corrupts (<https://sqlite.org/wal.html>). Opening after `kill -9` replays the log in milliseconds.
#[derive(Clone)]
pub struct Db {
    connection: Arc<Mutex<Connection>>,
    boot: i64,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Db")
    }
}

const CORE: &[&str] = &["CREATE TABLE boots (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE) STRICT;"];

impl Db {
    /// Opens or makes the database file. The directory must exist.
    pub fn open(path: &Path) -> Result<Self, DbError> {
        let open_error = |source| DbError::Open { path: path.to_path_buf(), source };
        let connection = Connection::open(path).map_err(open_error)?;
        Self::set_up(connection).map_err(|error| match error {
            DbError::Sql(source) => open_error(source),
            other => other,
        })
    }

    /// A database that lives and dies with the handle, for tests.
    pub fn in_memory() -> Result<Self, DbError> {
        Self::set_up(Connection::open_in_memory()?)
    }

    fn set_up(connection: Connection) -> Result<Self, DbError> {
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.set_prepared_statement_cache_capacity(64);
        // cache_size is negative KiB: an idle daemon shall stay small.
        connection.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-2048;
             PRAGMA temp_store=MEMORY; PRAGMA foreign_keys=ON;",
        )?;
        let mut db = Self { connection: Arc::new(Mutex::new(connection)), boot: 0 };
        db.migrate("core", CORE)?;
        let id = boot_id();
        let known = |c: &Connection| {
            c.query_row("SELECT n FROM boots WHERE id = ?1", [&id], |row| row.get(0)).optional()
        };
        // Written once per boot of the machine only: the first write after an open may wait for the disk.
        db.boot = match db.with(known)? {
            Some(boot) => boot,
            None => db.write(|tx| {
                tx.query_row("INSERT INTO boots (id) VALUES (?1) RETURNING n", [&id], |row| row.get(0))
            })?,
        };
        Ok(db)
    }

    /// A number for the running boot of the machine. A row that stores it was written since then, and its data may be
    /// in the page cache only; a row with another number was not known to be on disk when the machine went down.
    pub fn boot(&self) -> i64 {
        self.boot
    }

    /// Brings the tables of `room` to version `steps.len()`. Step `i` (SQL, several statements allowed) leads from
    /// version `i` to `i + 1`; each runs in its own transaction. Steps that were released never change.
    pub fn migrate(&self, room: &str, steps: &[&str]) -> Result<(), DbError> {
        let mut connection = self.lock();
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS rooms (name TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT;",
        )?;
        let found: Option<i64> = connection
            .query_row("SELECT version FROM rooms WHERE name = ?1", [room], |row| row.get(0))
            .optional()?;
        let found = usize::try_from(found.unwrap_or(0)).unwrap_or(usize::MAX);
        if found > steps.len() {
            return Err(DbError::Newer { room: room.to_string(), found, known: steps.len() });
        }
        for (index, step) in steps.iter().enumerate().skip(found) {
            let version = index + 1;
            let mut run = || -> rusqlite::Result<()> {
                let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                tx.execute_batch(step)?;
                tx.execute(
                    "INSERT OR REPLACE INTO rooms (name, version) VALUES (?1, ?2)",
                    (room, version as i64),
                )?;
                tx.commit()
            };
            run().map_err(|source| DbError::Migrate { room: room.to_string(), version, source })?;
        }
        Ok(())
    }

    /// Runs `f` with the connection, for reads. Statements that repeat should use `prepare_cached`.
    pub fn with<T>(&self, f: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, DbError> {
        Ok(f(&self.lock())?)
    }

    /// Runs `f` in one write transaction: all of it becomes visible, or nothing when `f` fails.
    pub fn write<T>(&self, f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, DbError> {
        let mut connection = self.lock();
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = f(&tx)?;
        tx.commit()?;
        Ok(value)
    }

    // A panic inside a closure rolled its transaction back, so the connection is still good.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kernel's id of this boot (random(4)); without one, every start counts as a new boot.
fn boot_id() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(text) => text.trim().to_string(),
        Err(_) => format!("unknown-{:032x}", rand::random::<u128>()),
    }
}
