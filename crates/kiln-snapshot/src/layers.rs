//! Snapshots as layer blobs.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::SystemTime;

use kiln_digest::{Digest, Hasher};
use kiln_fs::compress::{self, Compression, Encoder};
use kiln_oci::{Descriptor, annotation, media_type};

use crate::diff_tar::DiffTar;
use crate::error::Result;
use crate::image::{blocking, variant_of};
use crate::record::{Record, StoredBlob};
use crate::snapshots::Inner;
use crate::{RecordKind, Snapshot, SnapshotError, SnapshotId, Snapshots, catalog, stack};

/// How new layer blobs are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressionOpts {
    /// Gzip, Zstd or Uncompressed.
    pub kind: Compression,
    /// See `kiln_fs::compress::Encoder::new`.
    pub level: Option<i32>,
    /// Also repack layers that exist in another compression.
    pub force: bool,
}

impl Default for CompressionOpts {
    fn default() -> Self {
        Self { kind: Compression::Gzip, level: None, force: false }
    }
}

/// A layer as a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// OCI media type (a pulled layer keeps what it was pulled with), digest, size, and the annotations that travel
    /// inside kiln: diff id, creation time, distribution source.
    pub descriptor: Descriptor,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// When the layer's snapshot was made.
    pub created_at: SystemTime,
    /// The description of the layer's snapshot.
    pub description: String,
}

/// A layer of a snapshot, whether it has a blob or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// The snapshot whose own files these are.
    pub id: SnapshotId,
    /// See [`UsageRecord`](crate::UsageRecord).
    pub description: String,
    /// See [`UsageRecord`](crate::UsageRecord).
    pub kind: RecordKind,
    /// When it was made.
    pub created_at: SystemTime,
    /// Known for pulled layers, and once a blob was made.
    pub diff_id: Option<Digest>,
    /// Blobs that hold it, best known first.
    pub blobs: Vec<Descriptor>,
}

impl Snapshots {
    /// The layers of a snapshot, bottom first. Reads nothing but memory.
    pub fn layers(&self, snapshot: &Snapshot) -> Vec<LayerInfo> {
        let info = |record: &Arc<Record>| {
            let meta = record.meta();
            LayerInfo {
                id: record.id.clone(),
                description: meta.description.clone(),
                kind: meta.kind,
                created_at: record.created,
                diff_id: meta.diff_id,
                blobs: meta.blobs.iter().map(|blob| blob.descriptor.clone()).collect(),
            }
        };
        stack::leaves(&snapshot.record).iter().map(info).collect()
    }

    /// The snapshot's layers as blobs, bottom first. A layer that has a blob keeps it (unless `force` asks for another
    /// compression), also when the blob is only known by descriptor; see [`fetch`](Self::fetch) for its bytes. Other
    /// layers are packed, several at once, each once however many ask, and their blobs live as long as the snapshot.
    pub async fn layer_blobs(&self, snapshot: &Snapshot, opts: &CompressionOpts) -> Result<Vec<LayerBlob>> {
        let _lease = self.0.content.lease();
        // Two at a time: packing one layer keeps several threads busy already.
        let slots = tokio::sync::Semaphore::new(2);
        let (layers, slots) = (stack::leaves(&snapshot.record), &slots);
        let blobs = layers.iter().map(|record| async move {
            if let Some(blob) = usable(record, opts) {
                return Ok(blob);
            }
            let _slot = slots.acquire().await;
            let _work = record.work.lock().await;
            if let Some(blob) = usable(record, opts) {
                return Ok(blob);
            }
            let (inner, record, opts) = (self.0.clone(), record.clone(), *opts);
            blocking(move || inner.pack(&record, &opts)).await
        });
        futures::future::try_join_all(blobs).await
    }

    /// Writes the snapshot's own changes (its topmost layer) as an uncompressed layer archive. It must not be lazy.
    /// Blocks.
    pub fn write_layer_tar(&self, snapshot: &Snapshot, out: impl Write) -> Result<()> {
        let Some(top) = stack::leaves(&snapshot.record).pop() else { return Ok(()) };
        self.0.write_diff(&top, out).map(drop)
    }
}

fn variant_name(kind: Compression) -> &'static str {
    match kind {
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
        _ => "uncompressed",
    }
}

/// A blob of the layer that the options allow.
pub(crate) fn usable(record: &Record, opts: &CompressionOpts) -> Option<LayerBlob> {
    let meta = record.meta();
    let wanted = |blob: &&StoredBlob| blob.variant == variant_name(opts.kind);
    let found = meta.blobs.iter().find(wanted).or_else(|| meta.blobs.first().filter(|_| !opts.force))?;
    let mut descriptor = found.descriptor.clone();
    let diff_id = meta.diff_id?;
    descriptor.annotations.insert(annotation::UNCOMPRESSED.into(), diff_id.to_string());
    let created = jiff::Timestamp::try_from(record.created).ok();
    if let Some(created) = created.filter(|_| !descriptor.annotations.contains_key(annotation::CREATED_AT)) {
        descriptor.annotations.insert(annotation::CREATED_AT.into(), created.to_string());
    }
    Some(LayerBlob { descriptor, diff_id, created_at: record.created, description: meta.description.clone() })
}

impl Inner {
    /// Makes a blob of a layer: from another blob of it, else from its files.
    fn pack(self: &Arc<Self>, record: &Arc<Record>, opts: &CompressionOpts) -> Result<LayerBlob> {
        let source = record.meta().blobs.iter().map(|blob| blob.descriptor.digest).collect::<Vec<_>>();
        let mut present = None;
        for digest in &source {
            if self.content.info(digest)?.is_some() {
                present = Some(*digest);
                break;
            }
        }
        // The bytes of a pulled layer cannot be made from its files.
        if present.is_none() && !source.is_empty() {
            return Err(SnapshotError::Lazy(record.id.clone()));
        }
        let media_type = match opts.kind {
            Compression::Gzip => media_type::OCI_LAYER_GZIP,
            Compression::Zstd => media_type::OCI_LAYER_ZSTD,
            _ => media_type::OCI_LAYER,
        };
        let (digest, size, diff_id) = self.write_blob(record, present, opts)?;
        let blob = StoredBlob {
            variant: variant_name(opts.kind).into(),
            descriptor: Descriptor::new(media_type, digest, size),
        };
        debug_assert_eq!(blob.variant, variant_of(&blob.descriptor));
        let known = record.meta().diff_id;
        if let Some(expected) = known.filter(|known| *known != diff_id) {
            return Err(SnapshotError::DiffId { digest, expected, found: diff_id });
        }
        self.db.write(|tx| {
            catalog::insert_blob(tx, &record.id, &blob)?;
            kiln_content::ContentStore::add_ref_in(tx, &catalog::owner(&record.id), &digest)?;
            catalog::save_diff_id(tx, &record.id, diff_id)
        })?;
        {
            let mut meta = record.meta();
            meta.blobs.push(blob);
            meta.diff_id = Some(diff_id);
        }
        usable(record, &CompressionOpts { force: true, ..*opts })
            .ok_or_else(|| SnapshotError::Lazy(record.id.clone()))
    }

    fn write_blob(
        self: &Arc<Self>,
        record: &Arc<Record>,
        from: Option<Digest>,
        opts: &CompressionOpts,
    ) -> Result<(Digest, u64, Digest)> {
        let pack = |e: io::Error| SnapshotError::io("compress", format!("layer {}", record.id), e);
        let blob = self.content.writer(None, None)?;
        let encoder = Encoder::new(blob, opts.kind, opts.level, 0).map_err(pack)?;
        let (sender, receiver) = sync_channel::<Vec<u8>>(8);
        let (packed, diff_id) = std::thread::scope(|scope| {
            let hasher = scope.spawn(move || {
                let mut hasher = Hasher::new();
                receiver.iter().for_each(|chunk| hasher.update(&chunk));
                hasher.finish()
            });
            let out = Tee { inner: encoder, sender: Some(sender), buffer: Vec::new() };
            let packed = match from {
                Some(digest) => self.copy_plain(&digest, out),
                None => self.write_diff(record, out),
            };
            let packed = packed.and_then(|tee| tee.finish().map_err(pack));
            let diff_id = hasher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (packed, diff_id)
        });
        let blob = packed?.finish().map_err(pack)?;
        let size = blob.offset();
        Ok((blob.commit(Some(size))?, size, diff_id))
    }

    fn copy_plain<W: Write>(&self, digest: &Digest, mut out: W) -> Result<W> {
        let fail = |e: io::Error| SnapshotError::io("repack", format!("layer {digest}"), e);
        let (_, mut plain) = compress::auto_decoder(self.content.reader(digest)?).map_err(fail)?;
        io::copy(&mut plain, &mut out).map_err(fail)?;
        Ok(out)
    }

    fn write_diff<W: Write>(self: &Arc<Self>, leaf: &Arc<Record>, out: W) -> Result<W> {
        let mut tar = DiffTar::new(out);
        self.layer_changes(leaf, &mut |change| tar.write(change))?;
        tar.finish()
    }
}

/// Hands a copy of what is written to the hashing thread, in large pieces.
struct Tee<W> {
    inner: W,
    sender: Option<std::sync::mpsc::SyncSender<Vec<u8>>>,
    buffer: Vec<u8>,
}

const CHUNK: usize = 256 << 10;

impl<W: Write> Tee<W> {
    fn pass(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.inner.write_all(&chunk)?;
        if let Some(sender) = &self.sender {
            // The other side reads to the end; if it is gone, its join reports why.
            let _ = sender.send(chunk);
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<W> {
        self.pass()?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for Tee<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(buf);
        if self.buffer.len() >= CHUNK {
            self.pass()?;
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
