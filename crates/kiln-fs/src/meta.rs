//! What the kernel says about a file, in our own types.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, Statx, StatxTimestamp, Timespec};

/// A point in time with the resolution of the filesystem; seconds may be negative, `nanos` is below 10^9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileTime {
    /// Seconds since the epoch.
    pub secs: i64,
    /// Nanoseconds to add.
    pub nanos: u32,
}

impl FileTime {
    /// 1970-01-01.
    pub const EPOCH: FileTime = FileTime { secs: 0, nanos: 0 };

    /// From nanoseconds since the epoch.
    pub fn from_nanos(ns: i64) -> FileTime {
        FileTime { secs: ns.div_euclid(1_000_000_000), nanos: ns.rem_euclid(1_000_000_000) as u32 }
    }

    /// To nanoseconds since the epoch; saturates outside the years 1677 to 2262.
    pub fn as_nanos(self) -> i64 {
        let ns = i128::from(self.secs) * 1_000_000_000 + i128::from(self.nanos);
        i64::try_from(ns).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX })
    }

    /// Without the part below one second.
    pub fn truncated(self) -> FileTime {
        FileTime { secs: self.secs, nanos: 0 }
    }

    pub(crate) fn timespec(self) -> Timespec {
        Timespec { tv_sec: self.secs, tv_nsec: self.nanos.into() }
    }

    fn from_statx(t: StatxTimestamp) -> FileTime {
        FileTime { secs: t.tv_sec, nanos: t.tv_nsec }
    }
}

impl From<SystemTime> for FileTime {
    fn from(t: SystemTime) -> FileTime {
        match t.duration_since(UNIX_EPOCH) {
            Ok(d) => FileTime { secs: d.as_secs() as i64, nanos: d.subsec_nanos() },
            Err(before) => {
                let d = before.duration();
                let secs = -(d.as_secs() as i64);
                match d.subsec_nanos() {
                    0 => FileTime { secs, nanos: 0 },
                    n => FileTime { secs: secs - 1, nanos: 1_000_000_000 - n },
                }
            }
        }
    }
}

impl From<FileTime> for SystemTime {
    fn from(t: FileTime) -> SystemTime {
        let whole = Duration::from_secs(t.secs.unsigned_abs());
        let base = if t.secs < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
        base.and_then(|b| b.checked_add(Duration::from_nanos(t.nanos.into()))).unwrap_or(UNIX_EPOCH)
    }
}

/// The type of a filesystem object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Unix socket.
    Socket,
}

impl FileKind {
    /// The kernel's answer as a kind; `None` when the filesystem does not say (`DT_UNKNOWN`).
    pub(crate) fn from_file_type(t: FileType) -> Option<FileKind> {
        Some(match t {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Dir,
            FileType::Symlink => FileKind::Symlink,
            FileType::Fifo => FileKind::Fifo,
            FileType::CharacterDevice => FileKind::CharDevice,
            FileType::BlockDevice => FileKind::BlockDevice,
            FileType::Socket => FileKind::Socket,
            FileType::Unknown => return None,
        })
    }

    pub(crate) fn to_file_type(self) -> FileType {
        match self {
            FileKind::File => FileType::RegularFile,
            FileKind::Dir => FileType::Directory,
            FileKind::Symlink => FileType::Symlink,
            FileKind::Fifo => FileType::Fifo,
            FileKind::CharDevice => FileType::CharacterDevice,
            FileKind::BlockDevice => FileType::BlockDevice,
            FileKind::Socket => FileType::Socket,
        }
    }

    /// The type bits of `st_mode` (inode(7)).
    pub fn type_bits(self) -> u32 {
        self.to_file_type().as_raw_mode()
    }
}

/// What `statx(2)` says about one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Its type.
    pub kind: FileKind,
    /// Permission bits with setuid (04000), setgid (02000) and sticky (01000); without the type.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes; for a symbolic link the length of its target.
    pub size: u64,
    /// Last access.
    pub atime: FileTime,
    /// Last change of the content.
    pub mtime: FileTime,
    /// Last change of the inode.
    pub ctime: FileTime,
    /// Major and minor number; zero for anything but devices.
    pub rdev: (u32, u32),
    /// Inode number.
    pub ino: u64,
    /// Device the inode number belongs to, as major and minor.
    pub dev: (u32, u32),
    /// Number of hard links.
    pub nlink: u32,
    /// Disk space in units of 512 bytes.
    pub blocks: u64,
}

impl Metadata {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Dir
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.kind == FileKind::Symlink
    }

    /// Whether it is overlayfs' mark of a deleted file: the character device 0:0
    /// (Documentation/filesystems/overlayfs.rst, "whiteouts").
    pub fn is_overlay_whiteout(&self) -> bool {
        self.kind == FileKind::CharDevice && self.rdev == (0, 0)
    }

    /// The whole `st_mode`: type and permission bits.
    pub fn st_mode(&self) -> u32 {
        self.kind.type_bits() | self.mode
    }

    pub(crate) fn from_statx(st: &Statx) -> Metadata {
        let raw = u32::from(st.stx_mode);
        Metadata {
            // The kernel always fills the type in for statx; an unknown one is treated as a socket: never opened.
            kind: FileKind::from_file_type(FileType::from_raw_mode(raw)).unwrap_or(FileKind::Socket),
            mode: raw & 0o7777,
            uid: st.stx_uid,
            gid: st.stx_gid,
            size: st.stx_size,
            atime: FileTime::from_statx(st.stx_atime),
            mtime: FileTime::from_statx(st.stx_mtime),
            ctime: FileTime::from_statx(st.stx_ctime),
            rdev: (st.stx_rdev_major, st.stx_rdev_minor),
            ino: st.stx_ino,
            dev: (st.stx_dev_major, st.stx_dev_minor),
            nlink: st.stx_nlink,
            blocks: st.stx_blocks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_convert_both_ways_also_before_the_epoch() {
        for ns in [0, 1, -1, 1_500_000_000, -1_500_000_000, 1_600_000_000_123_456_789, i64::MIN, i64::MAX] {
            let t = FileTime::from_nanos(ns);
            assert_eq!(t.as_nanos(), ns);
            assert_eq!(FileTime::from(SystemTime::from(t)), t);
        }
        assert_eq!(FileTime::from_nanos(-1), FileTime { secs: -1, nanos: 999_999_999 });
    }
}
