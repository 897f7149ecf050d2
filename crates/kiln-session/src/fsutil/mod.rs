//! The file transfer protocol of sessions (spec wire.md section 5).
//!
//! The sender walks a tree and announces every entry; the receiver asks for the contents it lacks, by number; both
//! end with FIN. [`send`] serves a [`Tree`], [`receive`] writes below a [`kiln_fs::Root`]. Both sides take the other
//! for hostile: what is announced must be in order and whole, memory is bounded, and no path leaves the root.

mod dirs;
mod error;
mod filter;
mod follow;
mod mirror;
mod packet;
mod place;
mod receive;
mod send;
mod tree;
mod validate;
mod writer;

pub use error::TransferError;
pub use filter::Filter;
pub use packet::{Kind, Packet, Stat};
pub use receive::{
    Compare, ContentHasher, Limits, MetadataOnly, Observer, ReceiveOptions, Received, Style, Update, receive,
};
pub use send::{Sent, send};
pub use tree::{DirTree, JoinedTree, MemoryTree, OverlaidTree, Tree, Visit};

#[cfg(test)]
mod tests;
