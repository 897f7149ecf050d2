//! Records of builds: what was asked, what came of it, and its whole progress.
//!
//! [`History::begin`] gives a [`Recording`], which is told the progress while the build runs and writes it to a blob,
//! and what came of the build in the end. [`History::listen`] tells of the records there are and of what happens.
//!
//! A record exists from the end of its build on: a build that dies with the daemon leaves none, as in BuildKit. The
//! row of a record and its hold on its blobs are written in one transaction after the blobs; what a crash leaves
//! before it is collected like any blob that nobody needs.
//!
//! Records and logs are stored as the wire messages that clients read (docs/formats/state.md).

mod attrs;
mod error;
mod failure;
mod history;
mod images;
mod listen;
mod log;
mod query;
mod recording;
mod sink;
mod store;
mod trace;
mod wire;

pub use error::HistoryError;
pub use history::{History, Limits};
pub use listen::{Event, EventKind, Listener, Query};
pub use log::LogReader;
pub use recording::{Exporter, Image, Outcome, Recording, Start};
pub use wire::{status_response, timestamp};

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;
