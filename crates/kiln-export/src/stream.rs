//! A stream of bytes to the client, written by code that blocks.

use crate::{ExportContext, ExportError};
use bytes::Bytes;
use kiln_session::ByteUpload;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Bytes sent at once.
const CHUNK: usize = 256 << 10;
/// gRPC code of a client that has the file already.
const ALREADY_EXISTS: i32 = 6;

/// Sends what `write` writes, and tells of it as `id`. That the client needs nothing is a success.
///
/// If anything fails the call to the client ends without its end mark, so that the client drops what it got.
pub(crate) async fn stream(
    id: &str,
    mut upload: ByteUpload,
    cx: &ExportContext<'_>,
    write: impl FnOnce(ChunkWriter) -> Result<(), ExportError> + Send + 'static,
) -> Result<(), ExportError> {
    let (sender, mut chunks) = mpsc::channel::<Bytes>(8);
    let sent = AtomicU64::new(0);
    let work = async {
        let writer = tokio::task::spawn_blocking(move || write(ChunkWriter::new(sender)));
        while let Some(chunk) = chunks.recv().await {
            let size = chunk.len() as u64;
            match upload.write(chunk).await {
                Ok(()) => drop(sent.fetch_add(size, Ordering::Relaxed)),
                Err(status) if status.code() as i32 == ALREADY_EXISTS => return Ok(()),
                Err(status) => return Err(ExportError::Archive(status.message().to_string())),
            }
        }
        writer.await.map_err(|e| ExportError::Internal(e.to_string()))??;
        upload.finish().await.map_err(|status| ExportError::Archive(status.message().to_string()))
    };
    cx.counting(id, &sent, work).await
}

/// Gathers writes into chunks for a channel.
pub(crate) struct ChunkWriter {
    sender: mpsc::Sender<Bytes>,
    buffer: Vec<u8>,
}

impl ChunkWriter {
    fn new(sender: mpsc::Sender<Bytes>) -> Self {
        Self { sender, buffer: Vec::with_capacity(CHUNK) }
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = data.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&data[..n]);
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        // The receiver goes when the client does.
        self.sender.blocking_send(chunk.into()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
