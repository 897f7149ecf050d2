//! From an archive to a tree.
//!
//! Every entry is placed through the handle of its parent directory, resolved below the target as in a chroot: links
//! that earlier entries planted, `..`, absolute names and link targets stay inside. Nothing is written through a link
//! in the last place; what is there is replaced.

mod extract;
mod layer;
mod target;

use std::io::{self, Read};
use std::path::PathBuf;

use self::extract::Extractor;
use crate::compress;
use crate::error::Error;
use crate::root::Root;
use crate::tar::{EntryKind, Reader, TarError};

/// Why an archive could not be unpacked. The tree is then incomplete and must be thrown away.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive is broken or cannot be read.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// An entry could not be made.
    #[error("unpack {}: {source}", .entry.display())]
    Place {
        /// The name in the archive.
        entry: PathBuf,
        /// What failed.
        source: Error,
    },
    /// The content of an entry could not be read or written.
    #[error("unpack {}: {source}", .entry.display())]
    Content {
        /// The name in the archive.
        entry: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// An entry of a kind that has no place in a filesystem.
    #[error("unpack {}: unhandled tar entry type {flag}", .entry.display())]
    UnknownKind {
        /// The name in the archive.
        entry: PathBuf,
        /// The type flag.
        flag: u8,
    },
    /// A whiteout for `.`, `..` or nothing.
    #[error("unpack {}: invalid whiteout", .entry.display())]
    BadWhiteout {
        /// The name in the archive.
        entry: PathBuf,
    },
    /// The compressed stream could not be opened.
    #[error("decompress: {0}")]
    Decompress(io::Error),
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unpacked {
    /// Entries in the archive.
    pub entries: u64,
    /// Bytes of file content, as the archive announces them.
    pub bytes: u64,
}

/// How deletions of a layer (`.wh.` names, OCI image-spec layer.md) are put into the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// As overlayfs wants them in an upper directory: character devices 0:0 and the `opaque` attribute. The tree holds
    /// this layer only.
    Overlay {
        /// Use `user.overlay.*` attributes: the mount option `userxattr`, for rootless mounts.
        user_xattr: bool,
    },
    /// By removing what earlier layers put there. The tree holds all layers so far.
    Delete,
}

/// How a layer is applied.
#[derive(Debug, Clone, Copy)]
pub struct LayerOptions<'a> {
    /// What becomes of deletions.
    pub whiteouts: Whiteouts,
    /// Lower layers, topmost first, where directories that the archive does not list take their owner, mode, times and
    /// attributes from. May be empty.
    pub parents: &'a [Root],
}

/// How an archive is unpacked for ADD.
#[derive(Debug, Clone, Copy, Default)]
pub struct ArchiveOptions {
    /// Owner of everything unpacked instead of the archive's.
    pub owner: Option<(u32, u32)>,
}

/// Applies an uncompressed layer to a tree.
pub fn apply_layer(
    stream: impl Read,
    root: &Root,
    options: LayerOptions<'_>,
) -> Result<Unpacked, UnpackError> {
    let mut extractor = Extractor::for_layer(root, options);
    unpack(stream, &mut extractor)
}

/// Unpacks an archive below `root`, which is the `/` of its names and links. The stream may be compressed. Names like
/// `.wh.x` are ordinary, what exists is replaced (directories are merged), the root's own entry is skipped; attributes
/// that the filesystem refuses are left out.
pub fn unpack_archive(
    stream: impl Read + Send,
    root: &Root,
    options: ArchiveOptions,
) -> Result<Unpacked, UnpackError> {
    let (_, plain) = compress::auto_decoder(stream).map_err(UnpackError::Decompress)?;
    let mut extractor = Extractor::for_archive(root, options);
    unpack(plain, &mut extractor)
}

/// Whether a stream is an archive: it decompresses and its first entry can be read. An empty stream is none.
pub fn is_archive(stream: impl Read + Send) -> bool {
    match compress::auto_decoder(stream) {
        Ok((_, plain)) => matches!(Reader::new(plain).next_entry(), Ok(Some(_))),
        Err(_) => false,
    }
}

fn unpack(stream: impl Read, extractor: &mut Extractor<'_>) -> Result<Unpacked, UnpackError> {
    let mut reader = Reader::new(stream);
    let mut sum = Unpacked::default();
    while let Some(entry) = reader.next_entry()? {
        if entry.kind == EntryKind::GlobalHeader {
            continue;
        }
        sum.entries += 1;
        sum.bytes = sum.bytes.saturating_add(entry.size);
        extractor.place(&entry, &mut reader)?;
    }
    extractor.finish()?;
    Ok(sum)
}

#[cfg(test)]
mod tests;
