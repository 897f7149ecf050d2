//! Rooted paths, atomic files, tar, compression, tree walks, ignore patterns.
//!
//! Every path that comes from a user, an archive, an image or a client is resolved below a [`Root`], a directory
//! handle that behaves like the `/` of a chroot: `..` and absolute symbolic links stay inside.

pub mod atomic;
pub mod compress;
pub mod copy;
mod error;
mod meta;
pub mod paths;
pub mod patterns;
mod root;
pub mod tar;
#[cfg(test)]
mod testing;
pub mod unpack;
pub mod users;
pub mod walk;

pub use error::{Error, Result};
pub use meta::{FileKind, FileTime, Metadata};
pub use root::{DirEntry, Root, Xattrs};
