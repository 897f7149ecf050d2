//! The content store: blobs as files, metadata in one SQLite database, leases and garbage collection roots.
//!
//! - [`Db`]: the database. Every room (crate) keeps its own versioned tables in it.
//! - [`ContentStore`]: immutable blobs named by digest. A blob is visible only when it is complete and verified;
//!   the row in the database is the truth, a file without a row is left-over.
//! - [`Lease`]: while one is held, nothing that was touched since then is collected.
//!
//! Durability. The process may be killed at any moment: rows are committed after the files they name, and the page
//! cache outlives the process. After a power cut, rows whose data was not yet known to be on disk (see
//! [`ContentStore::sync`]) are dropped at the next open, because their files may be torn.
//!
//! All calls block on the file system; from async code use `spawn_blocking` for anything but small lookups.

mod db;
mod error;
mod gc;
mod lease;
mod reader;
mod store;
mod writer;

pub use db::{Db, DbError};
pub use error::ContentError;
pub use gc::GcStats;
pub use lease::Lease;
pub use reader::BlobReader;
pub use rusqlite;
pub use store::{BlobDetail, BlobInfo, ContentStore};
pub use writer::BlobWriter;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;
