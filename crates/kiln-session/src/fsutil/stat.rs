//! Entries of a tree on the wire, and what they mean here.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytes::Bytes;
use kiln_fs::{FileKind, FileTime, Metadata};

/// Bits of Go's `os.FileMode`, which is what travels as mode.
mod go {
    pub(super) const DIR: u32 = 1 << 31;
    pub(super) const SYMLINK: u32 = 1 << 27;
    pub(super) const DEVICE: u32 = 1 << 26;
    pub(super) const NAMED_PIPE: u32 = 1 << 25;
    pub(super) const SOCKET: u32 = 1 << 24;
    pub(super) const SETUID: u32 = 1 << 23;
    pub(super) const SETGID: u32 = 1 << 22;
    pub(super) const CHAR_DEVICE: u32 = 1 << 21;
    pub(super) const STICKY: u32 = 1 << 20;
    pub(super) const IRREGULAR: u32 = 1 << 19;
    /// Everything that says what a thing is; a file has none of these.
    pub(super) const TYPE: u32 = DIR | SYMLINK | DEVICE | NAMED_PIPE | SOCKET | CHAR_DEVICE | IRREGULAR;
}

/// One entry of a tree, as it travels. Names are bytes: Linux does not care for UTF-8.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stat {
    /// Relative path with slashes.
    #[prost(bytes = "bytes", tag = "1")]
    pub path: Bytes,
    /// Go's `os.FileMode` bits, not `st_mode`; see [`Stat::kind`] and [`Stat::permissions`].
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    /// Owner.
    #[prost(uint32, tag = "3")]
    pub uid: u32,
    /// Group.
    #[prost(uint32, tag = "4")]
    pub gid: u32,
    /// Bytes; 0 for directories.
    #[prost(int64, tag = "5")]
    pub size: i64,
    /// Nanoseconds since the epoch.
    #[prost(int64, tag = "6")]
    pub mod_time: i64,
    /// Target of a symbolic link; for a file the earlier path that it is a hard link of.
    #[prost(bytes = "bytes", tag = "7")]
    pub linkname: Bytes,
    /// Of a device.
    #[prost(int64, tag = "8")]
    pub devmajor: i64,
    /// Of a device.
    #[prost(int64, tag = "9")]
    pub devminor: i64,
    /// Extended attributes.
    #[prost(btree_map = "string, bytes", tag = "10")]
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A file with contents.
    File,
    /// Another name of an earlier file.
    HardLink,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl Kind {
    /// As the filesystem sees it.
    pub fn file_kind(self) -> FileKind {
        match self {
            Self::File | Self::HardLink => FileKind::File,
            Self::Dir => FileKind::Dir,
            Self::Symlink => FileKind::Symlink,
            Self::Fifo => FileKind::Fifo,
            Self::CharDevice => FileKind::CharDevice,
            Self::BlockDevice => FileKind::BlockDevice,
        }
    }
}

impl Stat {
    /// The entry that `metadata` describes, without link name and attributes. A socket travels as an empty file, as
    /// the reference does it.
    pub fn new(path: impl Into<Bytes>, metadata: &Metadata) -> Self {
        Self {
            path: path.into(),
            mode: mode_of(metadata.kind, metadata.mode),
            uid: metadata.uid,
            gid: metadata.gid,
            size: match metadata.kind {
                FileKind::File | FileKind::Symlink => i64::try_from(metadata.size).unwrap_or(i64::MAX),
                _ => 0,
            },
            mod_time: metadata.mtime.as_nanos(),
            devmajor: metadata.rdev.0.into(),
            devminor: metadata.rdev.1.into(),
            ..Self::default()
        }
    }

    /// A directory with these permission bits, of root, at the epoch.
    pub fn dir(path: impl Into<Bytes>, permissions: u32) -> Self {
        Self { path: path.into(), mode: mode_of(FileKind::Dir, permissions), ..Self::default() }
    }

    /// A file with these permission bits, of root, at the epoch.
    pub fn file(path: impl Into<Bytes>, permissions: u32, size: u64) -> Self {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        Self { path: path.into(), mode: mode_of(FileKind::File, permissions), size, ..Self::default() }
    }

    /// The path, relative to the root of the tree.
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// The link target, or the file this is a hard link of.
    pub fn linkname(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.linkname))
    }

    /// What it is; `None` for a mode that is two things at once, or one that does not travel.
    pub fn kind(&self) -> Option<Kind> {
        Some(match self.mode & go::TYPE {
            0 if self.linkname.is_empty() => Kind::File,
            0 => Kind::HardLink,
            go::DIR => Kind::Dir,
            go::SYMLINK => Kind::Symlink,
            go::NAMED_PIPE => Kind::Fifo,
            go::DEVICE => Kind::BlockDevice,
            DEVICE_CHAR => Kind::CharDevice,
            _ => return None,
        })
    }

    /// Whether its contents can be asked for. Both sides must agree on this: no type bit is set, so a hard link counts.
    pub(crate) fn has_contents(&self) -> bool {
        self.mode & go::TYPE == 0
    }

    /// Permission bits with setuid (04000), setgid (02000) and sticky (01000).
    pub fn permissions(&self) -> u32 {
        let bit = |go: u32, unix: u32| if self.mode & go != 0 { unix } else { 0 };
        self.mode & 0o777 | bit(go::SETUID, 0o4000) | bit(go::SETGID, 0o2000) | bit(go::STICKY, 0o1000)
    }

    /// Modification time.
    pub fn mtime(&self) -> FileTime {
        FileTime::from_nanos(self.mod_time)
    }

    /// Major and minor number of a device.
    pub fn rdev(&self) -> Option<(u32, u32)> {
        Some((u32::try_from(self.devmajor).ok()?, u32::try_from(self.devminor).ok()?))
    }
}

const DEVICE_CHAR: u32 = go::DEVICE | go::CHAR_DEVICE;

fn mode_of(kind: FileKind, permissions: u32) -> u32 {
    let kind = match kind {
        FileKind::File | FileKind::Socket => 0,
        FileKind::Dir => go::DIR,
        FileKind::Symlink => go::SYMLINK,
        FileKind::Fifo => go::NAMED_PIPE,
        FileKind::CharDevice => DEVICE_CHAR,
        FileKind::BlockDevice => go::DEVICE,
    };
    let bit = |unix: u32, go: u32| if permissions & unix != 0 { go } else { 0 };
    kind | permissions & 0o777 | bit(0o4000, go::SETUID) | bit(0o2000, go::SETGID) | bit(0o1000, go::STICKY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_go() {
        let stat = |kind, mode| mode_of(kind, mode);
        assert_eq!(stat(FileKind::Dir, 0o755), 0x8000_01ed);
        assert_eq!(stat(FileKind::Symlink, 0o777), 0x0800_01ff);
        assert_eq!(stat(FileKind::File, 0o4755), 1 << 23 | 0o755);
        assert_eq!(stat(FileKind::CharDevice, 0o600), 1 << 26 | 1 << 21 | 0o600);
        assert_eq!(stat(FileKind::Socket, 0o600), 0o600);
        for (kind, mode) in
            [(FileKind::Dir, 0o1777), (FileKind::Fifo, 0o2644), (FileKind::BlockDevice, 0o7000)]
        {
            let s = Stat { mode: mode_of(kind, mode), ..Stat::default() };
            assert_eq!((s.kind().unwrap().file_kind(), s.permissions()), (kind, mode));
        }
    }

    #[test]
    fn an_entry_is_one_thing_only() {
        for mode in [1 << 31 | 1 << 27, 1 << 24, 1 << 21, 1 << 19, 1 << 31 | 1 << 26] {
            assert_eq!(Stat { mode, ..Stat::default() }.kind(), None, "{mode:b}");
        }
    }
}
