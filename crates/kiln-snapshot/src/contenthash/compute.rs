//! Digests of files, by several threads.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_digest::Digest;
use kiln_fs::Root;
use rustix::fs::{AtFlags, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::header::{FileHasher, FileHeader, xattr_counts};
use super::resolve::{Walker, path_of};
use super::tree::{Dir, Name, Names, Node};
use crate::SnapshotError;
use crate::error::Result;

/// Which digests are needed.
pub(crate) enum Wanted<'a> {
    /// A record and all below it.
    Subtree(&'a [Name]),
    /// These records; of a directory, its header.
    Each(Vec<Names>),
}

/// Files of one directory, the unit of work of a thread.
struct Batch {
    dir: Names,
    names: Vec<Name>,
}

const BATCH: usize = 128;
const MAX_THREADS: usize = 8;

impl Walker<'_> {
    /// Computes what is wanted and not known.
    pub(crate) fn compute(&mut self, wanted: &Wanted<'_>) -> Result<()> {
        let batches = match wanted {
            Wanted::Subtree(path) => self.missing_below(path),
            Wanted::Each(paths) => self.missing_of(paths),
        };
        for (dir, results) in hash_batches(self.root, batches)? {
            let mut path = dir;
            for (name, digest) in results {
                // The root is its own directory under the name "."; no child can be called that.
                if &*name != b"." {
                    path.push(name);
                    self.tree.learn(&path, digest);
                    path.pop();
                } else {
                    self.tree.learn(&path, digest);
                }
            }
        }
        Ok(())
    }

    fn missing_of(&self, paths: &[Names]) -> Vec<Batch> {
        let mut dirs: BTreeMap<&[Name], Vec<Name>> = BTreeMap::new();
        for path in paths {
            match path.split_last() {
                None if self.tree.root.header.is_none() => dirs.entry(&[]).or_default().push((*b".").into()),
                Some((name, parent)) if self.tree.get(path).is_some_and(|node| node.own().is_none()) => {
                    dirs.entry(parent).or_default().push(name.clone());
                }
                _ => {}
            }
        }
        let mut batches = Vec::new();
        dirs.into_iter().for_each(|(dir, names)| split(dir.to_vec(), names, &mut batches));
        batches
    }

    fn missing_below(&self, path: &[Name]) -> Vec<Batch> {
        let mut batches = Vec::new();
        let Some(dir) = self.tree.dir(path) else { return self.missing_of(&[path.to_vec()]) };
        if dir.total.is_none() {
            if dir.header.is_none() {
                let (dir, name) = match path.split_last() {
                    Some((name, parent)) => (parent.to_vec(), name.clone()),
                    None => (Names::new(), (*b".").into()),
                };
                batches.push(Batch { dir, names: vec![name] });
            }
            missing_in(dir, &mut path.to_vec(), &mut batches);
        }
        batches
    }
}

fn missing_in(dir: &Dir, path: &mut Names, batches: &mut Vec<Batch>) {
    let missing = dir.children.iter().filter(|(_, node)| node.own().is_none()).map(|(name, _)| name.clone());
    split(path.clone(), missing.collect(), batches);
    for (name, node) in &dir.children {
        if let Node::Dir(next) = node
            && next.total.is_none()
        {
            path.push(name.clone());
            missing_in(next, path, batches);
            path.pop();
        }
    }
}

fn split(dir: Names, names: Vec<Name>, batches: &mut Vec<Batch>) {
    batches.extend(names.chunks(BATCH).map(|names| Batch { dir: dir.clone(), names: names.to_vec() }));
}

type Hashed = (Names, Vec<(Name, Digest)>);

fn hash_batches(root: &Root, batches: Vec<Batch>) -> Result<Vec<Hashed>> {
    let files: usize = batches.iter().map(|batch| batch.names.len()).sum();
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    // A thread costs about as much as a handful of files.
    let threads = cores.min(files.div_ceil(16)).min(batches.len());
    if threads <= 1 {
        let mut buffer = Vec::new();
        return batches.into_iter().map(|batch| hash_batch(root, batch, &mut buffer)).collect();
    }
    let next = AtomicUsize::new(0);
    let batches: Vec<Mutex<Option<Batch>>> = batches.into_iter().map(|b| Mutex::new(Some(b))).collect();
    let work = || {
        let mut done = Vec::new();
        let mut buffer = Vec::new();
        while let Some(slot) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
            let batch = slot.lock().ok().and_then(|mut slot| slot.take());
            if let Some(batch) = batch {
                done.push(hash_batch(root, batch, &mut buffer)?);
            }
        }
        Ok::<_, SnapshotError>(done)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(done) => all.extend(done?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    })
}

fn hash_batch(root: &Root, batch: Batch, buffer: &mut Vec<u8>) -> Result<Hashed> {
    // The path has no links: it was made of names that were read.
    let dir = root.open_dir(path_of(&batch.dir))?;
    let mut done = Vec::with_capacity(batch.names.len());
    for name in batch.names {
        let digest = hash_file(dir.as_fd(), OsStr::from_bytes(&name), buffer).map_err(|errno| {
            let mut path = path_of(&batch.dir);
            path.push(OsStr::from_bytes(&name));
            SnapshotError::io("checksum", path.display(), errno)
        })?;
        done.push((name, digest));
    }
    Ok((batch.dir, done))
}

fn hash_file(dir: BorrowedFd<'_>, name: &OsStr, buffer: &mut Vec<u8>) -> Result<Digest, Errno> {
    let stat = rustix::fs::statx(
        dir,
        name,
        AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
        StatxFlags::BASIC_STATS,
    )?;
    let mut header = header_of(&stat);
    let regular = header.mode & 0o170_000 == 0o100_000;
    if !regular {
        if header.mode & 0o170_000 == 0o120_000 {
            header.link =
                OsStr::from_bytes(rustix::fs::readlinkat(dir, name, Vec::new())?.as_bytes()).to_os_string();
        }
        // No descriptor can be opened of a link or a device, so the name goes through the directory's.
        let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
        path.extend_from_slice(name.as_bytes());
        let list = |buf: &mut [u8]| rustix::fs::llistxattr(&*path, buf);
        header.xattrs = xattrs(list, |key, buf: &mut [u8]| rustix::fs::lgetxattr(&*path, key, buf))?;
        return Ok(FileHasher::new(&header).finish());
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let list = |buf: &mut [u8]| rustix::fs::flistxattr(&fd, buf);
    header.xattrs = xattrs(list, |key, buf: &mut [u8]| rustix::fs::fgetxattr(&fd, key, buf))?;
    let mut hasher = FileHasher::new(&header);
    if header.size > 0 {
        let mut file = File::from(fd);
        buffer.resize(128 << 10, 0);
        loop {
            let n = file.read(buffer).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
            if n == 0 {
                break;
            }
            hasher.write(&buffer[..n]);
        }
    }
    Ok(hasher.finish())
}

fn header_of(stat: &Statx) -> FileHeader {
    FileHeader {
        mode: u32::from(stat.stx_mode),
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        size: stat.stx_size,
        rdev: (stat.stx_rdev_major, stat.stx_rdev_minor),
        ..FileHeader::default()
    }
}

/// The attributes that count, of the usual file none.
fn xattrs(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&OsStr, &mut [u8]) -> Result<usize, Errno>,
) -> Result<BTreeMap<std::ffi::OsString, Vec<u8>>, Errno> {
    let names = match growing(&list) {
        Ok(names) if names.is_empty() => return Ok(BTreeMap::new()),
        Ok(names) => names,
        Err(Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        Err(errno) => return Err(errno),
    };
    let mut found = BTreeMap::new();
    for name in names.split(|b| *b == 0).filter(|n| !n.is_empty()).map(OsStr::from_bytes) {
        // An attribute that may not be read does not count, as in the reference.
        if xattr_counts(name)
            && let Ok(value) = growing(&|buf: &mut [u8]| get(name, buf))
        {
            found.insert(name.to_os_string(), value);
        }
    }
    Ok(found)
}

/// Calls with a small buffer, then with the largest the kernel ever fills (xattr(7)).
fn growing(call: &impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 256];
    match call(&mut small) {
        Ok(n) => Ok(small[..n].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0; 64 << 10];
            let n = call(&mut large)?;
            large.truncate(n);
            Ok(large)
        }
        Err(errno) => Err(errno),
    }
}
