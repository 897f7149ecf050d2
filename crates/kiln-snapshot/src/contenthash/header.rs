//! The digest of one file: a tarsum-like header, then the content.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use kiln_digest::{Digest, Hasher};

const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFIFO: u32 = 0o010_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFREG: u32 = 0o100_000;
const S_IFSOCK: u32 = 0o140_000;

/// What of a file's metadata counts. Times do not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileHeader {
    /// `st_mode`: type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes; counts for regular files only.
    pub size: u64,
    /// Target of a symbolic link.
    pub link: OsString,
    /// Major and minor number; counts for devices only.
    pub rdev: (u32, u32),
    /// Extended attributes; those that do not count are left out of the digest here.
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// Whether an extended attribute is part of the digest. Overlayfs' own marks never are: they are not part of the
/// filesystem that a user sees.
pub(crate) fn xattr_counts(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let starts = |prefix: &str| name.starts_with(prefix.as_bytes());
    if starts("trusted.overlay.") || starts("user.overlay.") {
        return false;
    }
    name == b"security.capability" || !(starts("security.") || starts("system."))
}

/// Hashes one file: the header on creation, the content as it comes.
#[derive(Clone, Debug)]
pub struct FileHasher(Hasher);

impl FileHasher {
    /// Hashes the header.
    pub fn new(header: &FileHeader) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&header.bytes());
        Self(hasher)
    }

    /// Hashes the next part of the content.
    pub fn write(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The hasher, with the header already in it.
    pub fn into_hasher(self) -> Hasher {
        self.0
    }

    /// The record's digest.
    pub fn finish(self) -> Digest {
        self.0.finish()
    }
}

impl FileHeader {
    fn bytes(&self) -> Vec<u8> {
        let kind = self.mode & S_IFMT;
        let is_link = kind == S_IFLNK;
        let is_device = kind == S_IFCHR || kind == S_IFBLK;
        let permissions = self.mode & 0o7777 | if is_link { 0o777 } else { 0 };
        // A socket loses its type bit and is then like an empty regular file.
        let regular = kind == S_IFREG || kind == S_IFSOCK;
        let size = if regular { self.size } else { 0 };
        let type_flag = match kind {
            S_IFDIR => b'5',
            S_IFLNK => b'2',
            S_IFCHR => b'3',
            S_IFBLK => b'4',
            S_IFIFO => b'6',
            _ => b'0',
        };
        let (major, minor) = if is_device { self.rdev } else { (0, 0) };
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(
            format!("namemode{permissions}uid{}gid{}size{size}typeflag", self.uid, self.gid).as_bytes(),
        );
        out.push(type_flag);
        out.extend_from_slice(b"linkname");
        if is_link {
            out.extend_from_slice(self.link.as_bytes());
        }
        out.extend_from_slice(format!("unamegnamedevmajor{major}devminor{minor}").as_bytes());
        for (name, value) in self.xattrs.iter().filter(|(name, _)| xattr_counts(name)) {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(value);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_documented_form() {
        let mut header =
            FileHeader { mode: S_IFREG | 0o4644, uid: 1, gid: 2, size: 5, ..FileHeader::default() };
        header.xattrs.insert("user.b".into(), b"2".to_vec());
        header.xattrs.insert("security.capability".into(), b"c".to_vec());
        for ignored in ["security.selinux", "system.posix_acl_access", "trusted.overlay.opaque"] {
            header.xattrs.insert(ignored.into(), b"y".to_vec());
        }
        assert_eq!(
            String::from_utf8(header.bytes()).unwrap(),
            "namemode2468uid1gid2size5typeflag0linknameunamegnamedevmajor0devminor0security.capabilitycuser.b2"
        );
    }

    #[test]
    fn links_devices_and_sockets() {
        let text = |header: FileHeader| String::from_utf8(header.bytes()).unwrap();
        let link = FileHeader { mode: S_IFLNK, size: 3, link: "abc".into(), ..FileHeader::default() };
        assert_eq!(text(link), "namemode511uid0gid0size0typeflag2linknameabcunamegnamedevmajor0devminor0");
        let device = FileHeader { mode: S_IFBLK | 0o600, rdev: (8, 1), ..FileHeader::default() };
        assert_eq!(text(device), "namemode384uid0gid0size0typeflag4linknameunamegnamedevmajor8devminor1");
        let socket = FileHeader { mode: S_IFSOCK | 0o755, ..FileHeader::default() };
        assert_eq!(text(socket), "namemode493uid0gid0size0typeflag0linknameunamegnamedevmajor0devminor0");
    }

    #[test]
    fn a_file_has_the_digest_of_the_reference() {
        let mut hasher =
            FileHasher::new(&FileHeader { mode: S_IFREG | 0o644, size: 5, ..FileHeader::default() });
        hasher.write(b"data0");
        assert_eq!(hasher.finish().hex(), "cd8e75bca50f2d695f220d0cb0997d8ead387e4f926e8669a92d7f104cc9885b");
    }
}
