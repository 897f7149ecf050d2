//! What belongs to a file besides its content.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Gid, Mode, Uid, XattrFlags, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, futimens};
use rustix::io::Errno;

use super::tree::{Result, Tree};
use crate::meta::{FileTime, Metadata};
use crate::root::at;

impl Tree<'_> {
    /// Owner, permissions, attributes and times of a file or directory. Attributes come after the owner, whose change
    /// removes capabilities; times come last.
    pub(super) fn finish_fd(&self, src: BorrowedFd<'_>, meta: &Metadata, dst: BorrowedFd<'_>) -> Result<()> {
        let (uid, gid) = self.owner(meta);
        let own = (uid != u32::MAX).then(|| Uid::from_raw(uid));
        let group = (gid != u32::MAX).then(|| Gid::from_raw(gid));
        fchown(dst, own, group).map_err(|e| self.fail("chown", e))?;
        fchmod(dst, Mode::from_raw_mode(self.mode(meta))).map_err(|e| self.fail("chmod", e))?;
        self.xattrs_fd(src, dst);
        self.set_times(meta, dst)
    }

    pub(super) fn set_times(&self, meta: &Metadata, dst: BorrowedFd<'_>) -> Result<()> {
        let (atime, mtime) = self.times(meta);
        futimens(dst, &at::times(atime, mtime)).map_err(|e| self.fail("utimes", e))
    }

    pub(super) fn xattrs_fd(&self, src: BorrowedFd<'_>, dst: BorrowedFd<'_>) {
        let mut list = [0u8; 512];
        let names = match flistxattr(src, &mut list[..]) {
            Ok(0) => return,
            Ok(n) => list[..n].to_vec(),
            Err(Errno::RANGE) => {
                let mut large = vec![0u8; 64 << 10];
                let n = flistxattr(src, &mut large[..]).unwrap_or(0);
                large.truncate(n);
                large
            }
            Err(e) => return self.xattr_result(OsStr::new(""), Err(e)),
        };
        let mut value = vec![0u8; 64 << 10];
        for key in names.split(|&b| b == 0).filter(|k| !k.is_empty()) {
            let done = fgetxattr(src, key, &mut value[..])
                .and_then(|n| fsetxattr(dst, key, &value[..n], XattrFlags::empty()));
            self.xattr_result(OsStr::from_bytes(key), done);
        }
    }

    /// Attributes are copied as far as the destination takes them, as in the original.
    pub(super) fn xattr_result(&self, key: &OsStr, result: Result<(), Errno>) {
        if let Err(e) = result
            && e != Errno::OPNOTSUPP
        {
            tracing::debug!(path = %self.path().display(), ?key, error = %e, "extended attribute not copied");
        }
    }

    pub(super) fn owner(&self, meta: &Metadata) -> (u32, u32) {
        self.copier.options.owner.unwrap_or((meta.uid, meta.gid))
    }

    pub(super) fn mode(&self, meta: &Metadata) -> u32 {
        match &self.copier.options.mode {
            Some(change) => change.apply(meta.mode, meta.is_dir()),
            None => meta.mode,
        }
    }

    pub(super) fn times(&self, meta: &Metadata) -> (FileTime, FileTime) {
        self.copier.options.time.map_or((meta.atime, meta.mtime), |t| (t, t))
    }
}
