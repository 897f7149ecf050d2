//! Files that appear under their name complete and on disk, or not at all.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, fsync, openat, renameat, renameat_with, unlinkat};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::{Error, Result};
use crate::root::Root;

/// Prefix of unfinished files. A store may remove what it finds with it at start.
pub const TEMP_PREFIX: &str = ".tmp-";

/// Writes `bytes` to `name` in `dir`: to a new file, flushed, renamed into place, directory flushed. What was there is
/// replaced; a reader sees the old or the new content, never a part.
pub fn write_atomic(dir: &Root, name: impl AsRef<OsStr>, bytes: &[u8]) -> Result<()> {
    let mut file = TempFile::create_in(dir)?;
    file.write_all(bytes).map_err(|e| Error::io("write", name.as_ref(), &e))?;
    file.persist(name)
}

/// An unfinished file in the directory it will appear in. Dropped without [`TempFile::persist`] it is removed.
#[derive(Debug)]
pub struct TempFile {
    dir: Root,
    file: File,
    name: OsString,
    done: bool,
}

impl TempFile {
    /// A new file with mode 0644 (less the umask) and a random name.
    pub fn create_in(dir: &Root) -> Result<TempFile> {
        let dir = dir.try_clone()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let name = random_name()?;
            match openat(&dir, &name, flags, Mode::from_raw_mode(0o644)) {
                Ok(fd) => return Ok(TempFile { dir, file: File::from(fd), name, done: false }),
                Err(Errno::EXIST) => {}
                Err(e) => return Err(Error::sys("create", name, e)),
            }
        }
    }

    /// The open file, for reading and writing.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Flushes the file and gives it its final name (one element), replacing what is there.
    pub fn persist(mut self, name: impl AsRef<OsStr>) -> Result<()> {
        let name = single(name.as_ref())?;
        self.settle("rename", name, |dir, temp| renameat(dir, temp, dir, name))
    }

    /// As [`TempFile::persist`], but fails with `EXIST` when the name is taken.
    pub fn persist_new(mut self, name: impl AsRef<OsStr>) -> Result<()> {
        let name = single(name.as_ref())?;
        self.settle("rename", name, |dir, temp| renameat_with(dir, temp, dir, name, RenameFlags::NOREPLACE))
    }

    fn settle(
        &mut self,
        op: &'static str,
        name: &OsStr,
        rename: impl Fn(BorrowedFd<'_>, &OsStr) -> Result<(), Errno>,
    ) -> Result<()> {
        fsync(&self.file).map_err(|e| Error::sys("sync", name, e))?;
        rename(self.dir.as_fd(), &self.name).map_err(|e| Error::sys(op, name, e))?;
        self.done = true;
        self.dir.sync()
    }
}

impl Write for TempFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl AsFd for TempFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.done
            && let Err(e) = unlinkat(&self.dir, &self.name, AtFlags::empty())
        {
            tracing::warn!(name = ?self.name, error = %e, "unfinished file stays behind");
        }
    }
}

/// Names here never come with a directory: one that does is a mistake or an attack.
fn single(name: &OsStr) -> Result<&OsStr> {
    let bytes = name.as_encoded_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
        return Err(Error::sys("rename", name, Errno::INVAL));
    }
    Ok(name)
}

fn random_name() -> Result<OsString> {
    let mut bytes = [0u8; 12];
    getrandom(&mut bytes[..], GetRandomFlags::empty()).map_err(|e| Error::sys("random", "", e))?;
    let mut name = String::from(TEMP_PREFIX);
    for b in bytes {
        name.push_str(&format!("{b:02x}"));
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_complete_or_not_at_all() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = Root::open(tmp.path()).unwrap();
        write_atomic(&dir, "a", b"one").unwrap();
        write_atomic(&dir, "a", b"two").unwrap();
        assert_eq!(dir.read("a", 10).unwrap(), b"two");

        let mut unfinished = TempFile::create_in(&dir).unwrap();
        unfinished.write_all(b"half").unwrap();
        assert_eq!(dir.read_dir(".").unwrap().len(), 2);
        drop(unfinished);
        assert_eq!(dir.read_dir(".").unwrap().len(), 1);

        let e = TempFile::create_in(&dir).unwrap().persist_new("a").unwrap_err();
        assert_eq!(e.errno(), Some(Errno::EXIST));
        for bad in ["", ".", "..", "x/y", "../x", "/x"] {
            assert!(TempFile::create_in(&dir).unwrap().persist(bad).is_err(), "{bad}");
        }
        assert_eq!(dir.read_dir(".").unwrap().len(), 1);
    }
}
