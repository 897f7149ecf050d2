//! Unpacking one image layer into a directory of its own.
//!
//! Layers are unpacked at the same time and without their parents. Directories that an archive uses but does not list
//! are noted on the way, and get the attributes they have in the parents afterwards.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use kiln_digest::{Digest, HashingReader};
use kiln_fs::tar::{EntryKind, Reader};
use kiln_fs::unpack::{LayerOptions, Whiteouts, apply_layer};
use kiln_fs::{Root, compress};

use crate::driver::Driver;
use crate::error::Result;
use crate::snapshots::Inner;
use crate::{LayerDesc, SnapshotError};

/// A layer's files, not yet visible to anybody; dropped, they are removed.
pub(crate) struct UnpackedLayer {
    inner: Arc<Inner>,
    pub(crate) dir: u64,
    /// Directories that the archive did not list.
    implicit: BTreeSet<PathBuf>,
    /// The archive links to files of its parents, so it has to be unpacked on top of them.
    needs_parents: bool,
    kept: bool,
}

impl Drop for UnpackedLayer {
    fn drop(&mut self) {
        if !self.kept {
            self.inner.discard_dir(self.dir);
        }
    }
}

impl UnpackedLayer {
    /// The row is written.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Inner {
    /// Unpacks a layer whose blob is in the content store and checks that it is what `layer` says. `below` are the
    /// parents' directories if they are there already; `bottom` says that it has none. Blocks.
    pub(crate) fn unpack(
        self: &Arc<Self>,
        layer: &LayerDesc,
        bottom: bool,
        cancel: &Arc<AtomicBool>,
    ) -> Result<UnpackedLayer> {
        let dir = self.make_dir()?;
        let mut unpacked = UnpackedLayer {
            inner: self.clone(),
            dir,
            implicit: BTreeSet::new(),
            needs_parents: false,
            kept: false,
        };
        let root = Root::open(self.fs_dir(dir))?;
        let whiteouts = match (self.driver, bottom) {
            // Nothing lies below, so there is nothing to mark.
            (_, true) | (Driver::Native, _) => Whiteouts::Delete,
            (Driver::Overlay { userxattr }, false) => Whiteouts::Overlay { user_xattr: userxattr },
        };
        match self.unpack_into(layer, &root, whiteouts, cancel) {
            Ok(implicit) => unpacked.implicit = implicit,
            // A hard link to a file of a parent is the usual reason; with the parents below, everything else fails again.
            Err(error @ SnapshotError::Unpack { .. }) if !bottom => {
                tracing::debug!(%error, digest = %layer.descriptor.digest, "layer needs its parents to be unpacked");
                unpacked.needs_parents = true;
            }
            Err(error) => return Err(error),
        }
        Ok(unpacked)
    }

    /// Native driver: applies the layer to a copy of its parent.
    pub(crate) fn unpack_on(
        self: &Arc<Self>,
        layer: &LayerDesc,
        below: &[u64],
        cancel: &Arc<AtomicBool>,
    ) -> Result<UnpackedLayer> {
        let dir = self.make_dir()?;
        let unpacked = UnpackedLayer {
            inner: self.clone(),
            dir,
            implicit: BTreeSet::new(),
            needs_parents: false,
            kept: false,
        };
        if let Some(parent) = below.last() {
            crate::placing::copy_tree(
                &self.fs_dir(*parent),
                &self.fs_dir(dir),
                crate::placing::Content::Copy,
            )?;
        }
        let root = Root::open(self.fs_dir(dir))?;
        self.unpack_into(layer, &root, Whiteouts::Delete, cancel)?;
        Ok(unpacked)
    }

    /// Completes a layer when its parents are there.
    pub(crate) fn settle(
        self: &Arc<Self>,
        unpacked: UnpackedLayer,
        layer: &LayerDesc,
        below: &[u64],
        cancel: &Arc<AtomicBool>,
    ) -> Result<UnpackedLayer> {
        if below.is_empty() {
            return Ok(unpacked);
        }
        if unpacked.needs_parents {
            let dir = self.make_dir()?;
            let fresh = UnpackedLayer {
                inner: self.clone(),
                dir,
                implicit: BTreeSet::new(),
                needs_parents: false,
                kept: false,
            };
            // Written through the mount, so the kernel makes the whiteouts.
            let mounted = self.mount_active(below, dir, None)?;
            self.unpack_into(layer, mounted.root(), Whiteouts::Delete, cancel)?;
            drop(mounted);
            let _ = std::fs::remove_dir_all(self.work_dir(dir));
            return Ok(fresh);
        }
        if !unpacked.implicit.is_empty() {
            let parents = self.mount_stack(below, None)?;
            let target = Root::open(self.fs_dir(unpacked.dir))?;
            unpacked.implicit.iter().try_for_each(|dir| inherit(parents.root(), &target, dir))?;
        }
        Ok(unpacked)
    }

    fn unpack_into(
        &self,
        layer: &LayerDesc,
        root: &Root,
        whiteouts: Whiteouts,
        cancel: &Arc<AtomicBool>,
    ) -> Result<BTreeSet<PathBuf>> {
        let digest = layer.descriptor.digest;
        let fail = |reason: String| SnapshotError::Unpack { digest, reason };
        let blob = Cancellable { inner: self.content.open_blob(&digest)?, cancel: cancel.clone() };
        let (_, plain) = compress::auto_decoder(blob).map_err(|e| fail(e.to_string()))?;
        let (sender, receiver) = sync_channel(8);
        let (result, (implicit, found)) = std::thread::scope(|scope| {
            let watcher = scope.spawn(move || watch(receiver));
            let mut tee = Tee { inner: plain, sender: Some(sender) };
            let applied = apply_layer(&mut tee, root, LayerOptions { whiteouts, parents: &[] });
            // What follows the archive's end is part of the diff id.
            let drained = io::copy(&mut tee, &mut io::sink());
            tee.sender = None;
            let watched = watcher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (
                applied
                    .map_err(|e| fail(e.to_string()))
                    .and_then(|_| drained.map_err(|e| fail(e.to_string()))),
                watched,
            )
        });
        if cancel.load(Ordering::Relaxed) {
            return Err(SnapshotError::Cancelled);
        }
        result?;
        if found != layer.diff_id {
            // Either the image lies or the blob is damaged; the verified read removes it in the second case.
            let mut reader = self.content.reader(&digest)?;
            io::copy(&mut reader, &mut io::sink()).map_err(|e| fail(e.to_string()))?;
            return Err(SnapshotError::DiffId { digest, expected: layer.diff_id, found });
        }
        Ok(implicit)
    }
}

/// Gives a directory the owner, mode, attributes and times that it has in the parents.
fn inherit(parents: &Root, target: &Root, dir: &Path) -> Result<()> {
    let meta = match parents.metadata(dir, false) {
        Ok(meta) if meta.is_dir() => meta,
        Ok(_) => return Ok(()),
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !target.metadata(dir, false).is_ok_and(|m| m.is_dir()) {
        return Ok(());
    }
    target.chown(dir, meta.uid, meta.gid)?;
    target.chmod(dir, meta.mode)?;
    for (name, value) in parents.xattrs(dir)? {
        target.set_xattr(dir, name, &value)?;
    }
    Ok(target.utimens(dir, meta.atime, meta.mtime)?)
}

/// Hashes the plain archive and notes which directories it uses without listing them.
fn watch(chunks: Receiver<Vec<u8>>) -> (BTreeSet<PathBuf>, Digest) {
    let mut tar = Reader::new(HashingReader::new(Chunks { chunks, current: Vec::new(), at: 0 }));
    let (mut listed, mut used) = (BTreeSet::new(), BTreeSet::new());
    // An archive that does not parse fails in the unpacking thread, with a better message.
    while let Ok(Some(entry)) = tar.next_entry() {
        let path = kiln_fs::paths::absolute(&entry.path);
        let path = path.strip_prefix("/").unwrap_or(&path);
        for parent in path.ancestors().skip(1) {
            // Once a directory is there, so are its parents.
            if parent.as_os_str().is_empty() || !used.insert(parent.to_path_buf()) {
                break;
            }
        }
        if entry.kind == EntryKind::Dir {
            listed.insert(path.to_path_buf());
        }
    }
    let mut rest = tar.into_inner();
    let _ = io::copy(&mut rest, &mut io::sink());
    used.retain(|dir| !listed.contains(dir));
    (used, rest.finish().0)
}

/// Hands a copy of what passes to another thread.
struct Tee<R> {
    inner: R,
    sender: Option<SyncSender<Vec<u8>>>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        if let Some(sender) = self.sender.as_ref().filter(|_| n > 0) {
            // The other side reads to the end; if it is gone, its join reports why.
            let _ = sender.send(buf[..n].to_vec());
        }
        Ok(n)
    }
}

struct Chunks {
    chunks: Receiver<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl Read for Chunks {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.current.len() {
            match self.chunks.recv() {
                Ok(chunk) => (self.current, self.at) = (chunk, 0),
                Err(_) => return Ok(0),
            }
        }
        let n = buf.len().min(self.current.len() - self.at);
        buf[..n].copy_from_slice(&self.current[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// Fails once nobody waits for the layer any more.
struct Cancellable<R> {
    inner: R,
    cancel: Arc<AtomicBool>,
}

impl<R: Read> Read for Cancellable<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        self.inner.read(buf)
    }
}
