//! Layers whose file times are not later than a given one (spec outputs-and-cache.md section 5).

use std::io;

use jiff::Timestamp;
use kiln_content::{ContentStore, Lease};
use kiln_digest::{Digest, HashingWriter};
use kiln_fs::FileTime;
use kiln_fs::compress::{Compression, Encoder, auto_decoder};
use kiln_fs::tar::{EntryKind, Reader, Writer};
use kiln_oci::{Descriptor, ImageConfig, media_type};
use kiln_snapshot::{CompressionOpts, LayerBlob};

use crate::epoch::nanos;
use crate::{ExportContext, ExportError, ExportInput};

/// Says that a layer was rewritten, and with which time.
const REWRITTEN: &str = "buildkit/rewritten-timestamp";

/// The layers of the base image, which stay as they are.
fn base(input: &ExportInput, platform: &str) -> Result<Vec<Digest>, ExportError> {
    match input.value("containerimage.base.config", Some(platform)) {
        Some(json) => Ok(ImageConfig::parse(json).map_err(ExportError::json)?.rootfs.diff_ids),
        None => Ok(Vec::new()),
    }
}

/// Rewrites every layer that is not of the base image. One that cannot be rewritten stays, with a warning.
pub(crate) async fn layers(
    epoch: Timestamp,
    platform: &str,
    layers: &mut [LayerBlob],
    opts: &CompressionOpts,
    input: &ExportInput,
    cx: &ExportContext<'_>,
    lease: &Lease,
) -> Result<(), ExportError> {
    let base = base(input, platform)?;
    let same = layers.iter().zip(&base).take_while(|(layer, base)| layer.diff_id == **base).count();
    let shown = epoch.strftime("%Y-%m-%d %H:%M:%S +0000 UTC");
    let id = format!("rewriting layers with source-date-epoch {} ({shown})", epoch.as_second());
    let work = async {
        for layer in &mut layers[same..] {
            let (content, from, opts) = (cx.content.clone(), layer.clone(), *opts);
            let done = tokio::task::spawn_blocking(move || rewrite(&content, &from, epoch, &opts)).await;
            match done.map_err(|e| ExportError::Internal(e.to_string()))? {
                Ok(new) => {
                    lease.protect(&new.descriptor.digest);
                    *layer = new;
                }
                Err(error) => {
                    tracing::warn!(%error, layer = %layer.descriptor.digest, "layer keeps its file times");
                }
            }
        }
        Ok(())
    };
    cx.during(&id, work).await
}

fn rewrite(
    content: &ContentStore,
    layer: &LayerBlob,
    epoch: Timestamp,
    opts: &CompressionOpts,
) -> Result<LayerBlob, ExportError> {
    let failed = |e: io::Error| ExportError::Io(format!("rewrite layer {}", layer.descriptor.digest), e);
    let (_, plain) = auto_decoder(content.reader(&layer.descriptor.digest)?).map_err(failed)?;
    let blob = content.writer(None, None)?;
    let encoder = Encoder::new(blob, opts.kind, opts.level, 0).map_err(failed)?;
    let latest = FileTime::from_nanos(nanos(epoch));
    let out = clamp(plain, HashingWriter::new(encoder), latest).map_err(failed)?;
    let (encoder, diff_id, _) = out.finish();
    let blob = encoder.finish().map_err(failed)?;
    let size = blob.offset();
    let digest = blob.commit(Some(size))?;
    let kind = match opts.kind {
        Compression::Zstd => media_type::OCI_LAYER_ZSTD,
        Compression::Gzip => media_type::OCI_LAYER_GZIP,
        _ => media_type::OCI_LAYER,
    };
    let descriptor =
        Descriptor::new(kind, digest, size).with_annotation(REWRITTEN, epoch.as_second().to_string());
    Ok(LayerBlob { descriptor, diff_id, ..layer.clone() })
}

/// Copies an archive; what is later than `latest` becomes `latest`. Access and change times are left out.
fn clamp<W: io::Write>(from: impl io::Read, to: W, latest: FileTime) -> io::Result<W> {
    let (mut from, mut to) = (Reader::new(from), Writer::new(to));
    while let Some(mut entry) = from.next_entry().map_err(io::Error::other)? {
        if entry.kind == EntryKind::GlobalHeader {
            continue;
        }
        entry.mtime = entry.mtime.min(latest);
        to.append(&entry, &mut from).map_err(io::Error::other)?;
    }
    let out = to.finish().map_err(io::Error::other)?;
    // What follows the archive's end is part of the blob, which is verified when all of it was read.
    io::copy(&mut from.into_inner(), &mut io::sink())?;
    Ok(out)
}
