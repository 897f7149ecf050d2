//! Bytes that arrive, as a snapshot with one file.

use std::io::Write;

use bytes::Bytes;
use jiff::Timestamp;
use kiln_blocking::{Feed, Lost};
use kiln_digest::{Digest, HashingWriter};
use kiln_fs::FileTime;
use kiln_snapshot::{ActiveSnapshot, Mounted, NewRef, Snapshot, Snapshots};

use super::date;
use crate::blocking::blocking;
use crate::{Result, SourceError};

const DEFAULT_PERM: u32 = 0o600;

/// The file to make.
#[derive(Clone, Debug)]
pub(crate) struct FileSpec {
    /// Its name; never a path.
    pub(crate) name: String,
    /// Permission bits; 0 means 0600.
    pub(crate) perm: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Of the snapshot.
    pub(crate) description: String,
    /// Where the bytes come from, redacted; for errors.
    pub(crate) source: String,
}

impl FileSpec {
    fn perm(&self) -> u32 {
        if self.perm == 0 { DEFAULT_PERM } else { self.perm & 0o777 }
    }

    fn failed(&self, Failed(source): Failed) -> SourceError {
        SourceError::Io { step: format!("write {}", self.name), source }
    }
}

/// Receives the bytes of one file; dropped unfinished, it leaves nothing. A server that is slow holds no thread.
pub(crate) struct Save {
    spec: FileSpec,
    feed: Feed<Writing, Bytes, Failed>,
}

/// The file goes before the mount, and that before what it is of.
struct Writing {
    file: HashingWriter<std::fs::File>,
    mounted: Mounted,
    active: ActiveSnapshot,
}

/// Why nothing more is written.
struct Failed(std::io::Error);

impl From<Lost> for Failed {
    fn from(e: Lost) -> Self {
        Self(e.into())
    }
}

impl Save {
    pub(crate) async fn begin(snapshots: &Snapshots, spec: FileSpec) -> Result<Self> {
        let (snapshots, description) = (snapshots.clone(), spec.description.clone());
        let (name, perm) = (spec.name.clone(), spec.perm());
        let begun = blocking(move || {
            let active = snapshots.new_active(None, NewRef::regular(description))?;
            let mounted = active.mount()?;
            let file = HashingWriter::new(mounted.root().create_file(&name, perm)?);
            Ok(Writing { file, mounted, active })
        });
        let work = |w: &mut Writing, piece: Bytes| w.file.write_all(&piece).map_err(Failed);
        Ok(Self { spec, feed: Feed::new(begun.await?, work) })
    }

    /// Takes the next piece.
    pub(crate) async fn write(&mut self, piece: Bytes) -> Result<()> {
        let size = piece.len();
        self.feed.give(piece, size).await.map_err(|e| self.spec.failed(e))
    }

    /// Ends the file. `expected` is checked before anything becomes visible.
    pub(crate) async fn finish(
        self,
        modified: Option<Timestamp>,
        expected: Option<Digest>,
    ) -> Result<(Digest, Snapshot)> {
        let spec = self.spec;
        let Writing { file, mounted, active } = self.feed.finish().await.map_err(|e| spec.failed(e))?;
        blocking(move || {
            let (file, digest, _) = file.finish();
            drop(file);
            if let Some(expected) = expected.filter(|e| *e != digest) {
                return Err(SourceError::Digest { url: spec.source, found: digest, expected });
            }
            let (root, name) = (mounted.root(), &spec.name);
            root.chmod(name, spec.perm())?;
            if (spec.uid, spec.gid) != (0, 0) {
                root.chown(name, spec.uid, spec.gid)?;
            }
            let time = modified.map_or(FileTime::EPOCH, |t| date::system_time(t).into());
            root.utimens(name, time, time)?;
            drop(mounted);
            Ok((digest, active.commit()?))
        })
        .await
    }
}
