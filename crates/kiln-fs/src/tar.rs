//! Reading and writing tar archives as streams.
//!
//! The reader takes what image builders meet: V7, USTAR, GNU (long names, base-256 numbers, sparse files) and PAX
//! (any field, extended attributes, GNU sparse 0.0, 0.1 and 1.0), names as bytes, with bounded memory. The writer is
//! deterministic and decides as Go's `archive/tar` does: USTAR where it fits, PAX records where not.
//!
//! Formats: POSIX.1-2017 pax(1), GNU tar manual "Tar Internals", star(5) for `SCHILY.xattr`.

mod header;
mod pax;
mod reader;
mod sparse;
mod sparse_reader;
mod writer;

use std::io;
use std::path::PathBuf;

pub use self::reader::Reader;
pub use self::writer::Writer;
use crate::meta::{FileKind, FileTime, Metadata};
use crate::root::Xattrs;

/// Size of a header and the unit that content is padded to.
pub const BLOCK: usize = 512;
/// The most bytes of metadata (PAX records, a long name, a sparse map) for one entry; libarchive's limit and Go's.
pub const MAX_METADATA: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// Regular file with content.
    File,
    /// Another name for the earlier entry in [`Entry::link`].
    HardLink,
    /// Symbolic link to [`Entry::link`].
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Directory.
    Dir,
    /// Named pipe.
    Fifo,
    /// PAX global records. They are checked and not applied, as in Go's reader.
    GlobalHeader,
    /// A type flag nobody agreed on.
    Other(u8),
}

impl EntryKind {
    fn from_flag(flag: u8) -> EntryKind {
        match flag {
            // '7' (contiguous) is to be treated as a regular file where it means nothing; 'S' is GNU sparse.
            0 | b'0' | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharDevice,
            b'4' => EntryKind::BlockDevice,
            b'5' => EntryKind::Dir,
            b'6' => EntryKind::Fifo,
            b'g' => EntryKind::GlobalHeader,
            other => EntryKind::Other(other),
        }
    }

    fn flag(self) -> u8 {
        match self {
            EntryKind::File => b'0',
            EntryKind::HardLink => b'1',
            EntryKind::Symlink => b'2',
            EntryKind::CharDevice => b'3',
            EntryKind::BlockDevice => b'4',
            EntryKind::Dir => b'5',
            EntryKind::Fifo => b'6',
            EntryKind::GlobalHeader => b'g',
            EntryKind::Other(flag) => flag,
        }
    }

    /// Whether no content follows whatever the size field says.
    fn is_header_only(self) -> bool {
        !matches!(self, EntryKind::File | EntryKind::GlobalHeader | EntryKind::Other(_))
    }
}

/// One entry, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name in the archive, as written there; may have a trailing slash, a leading slash, `..`.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner; numbers beyond 32 bits are cut as the kernel would.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of content, holes of sparse files included. Zero for anything but files.
    pub size: u64,
    /// Modification time.
    pub mtime: FileTime,
    /// Access time, when recorded. Not written.
    pub atime: Option<FileTime>,
    /// Target of a symbolic or hard link.
    pub link: PathBuf,
    /// Major and minor number of a device.
    pub rdev: (u32, u32),
    /// Extended attributes (`SCHILY.xattr.*`); values are binary and may be empty.
    pub xattrs: Xattrs,
}

impl Entry {
    /// An empty entry: mode 0, root's, 1970.
    pub fn new(path: impl Into<PathBuf>, kind: EntryKind) -> Entry {
        Entry {
            path: path.into(),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: FileTime::EPOCH,
            atime: None,
            link: PathBuf::new(),
            rdev: (0, 0),
            xattrs: Xattrs::new(),
        }
    }

    /// An entry for an object of a filesystem, without link target and attributes. `None` for a socket, which no
    /// archive can hold.
    pub fn from_metadata(path: impl Into<PathBuf>, meta: &Metadata) -> Option<Entry> {
        let kind = match meta.kind {
            FileKind::File => EntryKind::File,
            FileKind::Dir => EntryKind::Dir,
            FileKind::Symlink => EntryKind::Symlink,
            FileKind::Fifo => EntryKind::Fifo,
            FileKind::CharDevice => EntryKind::CharDevice,
            FileKind::BlockDevice => EntryKind::BlockDevice,
            FileKind::Socket => return None,
        };
        let mut entry = Entry::new(path, kind);
        entry.mode = meta.mode;
        (entry.uid, entry.gid) = (meta.uid, meta.gid);
        entry.mtime = meta.mtime;
        if kind == EntryKind::File {
            entry.size = meta.size;
        }
        if matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
            entry.rdev = meta.rdev;
        }
        Some(entry)
    }
}

/// Why an archive cannot be read or an entry not be written.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream below failed.
    #[error("tar stream: {0}")]
    Io(#[from] io::Error),
    /// The archive ends inside an entry.
    #[error("tar archive ends early, at byte {offset}")]
    Truncated {
        /// Where in the archive.
        offset: u64,
    },
    /// A header that breaks the format.
    #[error("malformed tar header at byte {offset}: {what}")]
    Malformed {
        /// Where in the archive.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// An entry that the format has no room for.
    #[error("cannot write {} to a tar archive: {what}", .path.display())]
    Unwritable {
        /// The entry.
        path: PathBuf,
        /// What does not fit.
        what: &'static str,
    },
}

impl From<TarError> for io::Error {
    fn from(e: TarError) -> io::Error {
        match e {
            TarError::Io(e) => e,
            TarError::Truncated { .. } => io::Error::new(io::ErrorKind::UnexpectedEof, e),
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}

#[cfg(test)]
mod tests;
