//! The file transfer protocol of sessions (spec wire.md section 5).
//!
//! The sender walks a tree and announces every entry; the receiver asks for the contents it lacks, by number; both
//! end with FIN. [`send`] serves a [`Tree`], [`receive`] writes below a [`kiln_fs::Root`]. Both sides take the other
//! for hostile: what is announced must be in order and whole, memory is bounded, and no path leaves the root.

mod announced;
mod dirs;
mod error;
mod filter;
mod follow;
mod merged_tree;
mod mirror;
mod options;
mod packet;
mod place;
mod receive;
mod send;
mod stat;
mod tree;
mod validate;
mod virtual_tree;
mod workers;
mod writer;

pub use error::TransferError;
pub use filter::Filter;
pub use merged_tree::MergedTree;
pub use options::{
    Compare, ContentHasher, Limits, MetadataOnly, Observer, ReceiveOptions, Received, Style, Update,
};
pub use packet::Packet;
pub use receive::receive;
pub use send::{Sent, send};
pub use stat::{Kind, Stat};
pub use tree::{DirTree, Entries, Tree};
pub use virtual_tree::{JoinedTree, MemoryTree, OverlaidTree};

#[cfg(test)]
mod tests;
