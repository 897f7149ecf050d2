//! Bytes that arrive, as a snapshot with one file.

use std::io::Write;

use bytes::Bytes;
use jiff::Timestamp;
use kiln_digest::{Digest, HashingWriter};
use kiln_fs::FileTime;
use kiln_snapshot::{ActiveSnapshot, Mounted, NewRef, Snapshot, Snapshots};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::date;
use crate::blocking::blocking;
use crate::{Result, SourceError};

const DEFAULT_PERM: u32 = 0o600;
/// Pieces between network and disk.
const QUEUE: usize = 32;

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

/// Receives the bytes of one file; dropped unfinished, it leaves nothing.
pub(crate) struct Save {
    spec: FileSpec,
    pieces: mpsc::Sender<Bytes>,
    written: JoinHandle<Result<Written>>,
}

/// The mount goes before what it is of.
struct Written {
    mounted: Mounted,
    active: ActiveSnapshot,
    digest: Digest,
}

impl Save {
    pub(crate) fn begin(snapshots: &Snapshots, spec: FileSpec) -> Self {
        let (snapshots, file) = (snapshots.clone(), spec.clone());
        let (pieces, mut queue) = mpsc::channel::<Bytes>(QUEUE);
        let written = tokio::task::spawn_blocking(move || {
            let FileSpec { name, perm, uid, gid, description, source: _ } = file;
            let active = snapshots.new_active(None, NewRef::regular(description))?;
            let mounted = active.mount()?;
            let root = mounted.root();
            let perm = if perm == 0 { DEFAULT_PERM } else { perm & 0o777 };
            let step = || SourceError::io(format!("write {name}"));
            let mut out = HashingWriter::new(root.create_file(&name, perm)?);
            while let Some(piece) = queue.blocking_recv() {
                out.write_all(&piece).map_err(step())?;
            }
            let (file, digest, _) = out.finish();
            drop(file);
            root.chmod(&name, perm)?;
            if (uid, gid) != (0, 0) {
                root.chown(&name, uid, gid)?;
            }
            Ok(Written { active, mounted, digest })
        });
        Self { spec, pieces, written }
    }

    /// Takes the next piece.
    pub(crate) async fn write(&mut self, piece: Bytes) -> Result<()> {
        if self.pieces.send(piece).await.is_ok() {
            return Ok(());
        }
        // The writer gave up; it says why.
        match (&mut self.written).await {
            Ok(Err(e)) => Err(e),
            _ => Err(lost()),
        }
    }

    /// Ends the file. `expected` is checked before anything becomes visible.
    pub(crate) async fn finish(
        self,
        modified: Option<Timestamp>,
        expected: Option<Digest>,
    ) -> Result<(Digest, Snapshot)> {
        drop(self.pieces);
        let written = self.written.await.map_err(|_| lost())??;
        if let Some(expected) = expected.filter(|e| *e != written.digest) {
            return Err(SourceError::Digest { url: self.spec.source, found: written.digest, expected });
        }
        let name = self.spec.name;
        blocking(move || {
            let Written { active, mounted, digest } = written;
            let time = modified.map_or(FileTime::EPOCH, |t| date::system_time(t).into());
            mounted.root().utimens(&name, time, time)?;
            drop(mounted);
            Ok((digest, active.commit()?))
        })
        .await
    }
}

fn lost() -> SourceError {
    SourceError::Io {
        step: "write download".to_string(),
        source: std::io::Error::other("the writing thread ended"),
    }
}
