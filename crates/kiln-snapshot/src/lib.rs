//! Layered filesystems: snapshots, mounts, layer diffs, content checksums.
//!
//! A *snapshot* is an immutable filesystem, named by a random [`SnapshotId`] that is never used twice. It is a layer on a
//! parent, a merge of several snapshots, or the difference of two (spec llb-and-solver.md section 7). The empty
//! filesystem is no snapshot: `Option<&Snapshot>` stands for it where it is allowed.
//!
//! - [`Snapshots`]: all snapshots of one state directory. Start here.
//! - [`ActiveSnapshot`]: a filesystem that is being made; [`ActiveSnapshot::commit`] turns it into a [`Snapshot`].
//! - [`Mounted`]: a filesystem as a directory handle, for reading in the daemon or for a sandbox.
//! - [`LayerDesc`], [`LayerProvider`]: image layers that are fetched and unpacked when they are needed.
//! - [`contenthash`]: the checksums of BuildKit's cache keys.
//!
//! # On disk
//!
//! `snapshots/<n>/fs` holds the files, `snapshots/<n>/work` overlayfs' scratch space. With overlayfs a layer's `fs` is the
//! upper directory of the mount it was written through; without it, it is a whole tree. The table `snapshots` says which
//! directories count: a directory without a row was never finished and is removed at the next start.
//!
//! # Durability
//!
//! A snapshot exists when its row is committed, which happens after its files are complete and nothing writes to them any
//! more. The death of the process loses nothing, because both the files and the row are in the kernel. A power cut may
//! lose the newest files, so a row carries the number of the boot that wrote it until [`Snapshots::sync`] has seen the
//! files on disk; rows of another boot are dropped at the next start, together with what was built on them.

mod active;
mod cache_mount;
mod catalog;
mod changes;
pub mod contenthash;
mod diff_tar;
mod driver;
mod error;
mod filter;
mod hashes;
mod image;
mod keyed;
mod layers;
mod mounts;
mod placing;
mod prune;
mod reaper;
mod record;
mod schema;
mod snapshots;
mod stack;
mod types;
mod unpack;
mod usage;

pub use active::ActiveSnapshot;
pub use cache_mount::{CacheMount, CacheMountSpec, Sharing};
pub use driver::{Driver, DriverChoice};
pub use error::SnapshotError;
pub use filter::{Filter, FilterError};
pub use image::{LayerDesc, LayerEvent, LayerProgress, LayerProvider};
pub use keyed::KeyedUpdate;
pub use layers::{CompressionOpts, LayerBlob, LayerInfo};
pub use mounts::Mounted;
pub use prune::{PruneOpts, keep_budget};
pub use record::Snapshot;
pub use snapshots::Snapshots;
pub use types::{NewRef, RecordKind, SnapshotId, UsageRecord};

#[cfg(test)]
mod tests;
