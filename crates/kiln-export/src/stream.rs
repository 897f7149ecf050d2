//! A stream of bytes to the client, written by code that blocks.

use crate::{ExportContext, ExportError};
use bytes::Bytes;
use kiln_session::{FileRequest, Session, Wanted};
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Bytes sent at once.
const CHUNK: usize = 256 << 10;

/// Sends what `write` writes, and tells of it as `id`. That the client needs nothing is a success.
pub(crate) async fn stream(
    id: &str,
    session: &Session,
    request: &FileRequest,
    cx: &ExportContext<'_>,
    write: impl FnOnce(ChunkWriter) -> Result<(), ExportError> + Send + 'static,
) -> Result<(), ExportError> {
    let mut upload = session.send_bytes(request)?;
    let (sender, mut chunks) = mpsc::channel::<Bytes>(8);
    let sent = AtomicU64::new(0);
    let work = async {
        let writer = tokio::task::spawn_blocking(move || write(ChunkWriter::new(sender)));
        while let Some(chunk) = chunks.recv().await {
            let size = chunk.len() as u64;
            if upload.write(chunk).await.map_err(|s| refused(s.message()))? == Wanted::Nothing {
                return Ok(());
            }
            sent.fetch_add(size, Ordering::Relaxed);
        }
        writer.await.map_err(|e| ExportError::Internal(e.to_string()))??;
        upload.finish().await.map_err(|s| refused(s.message()))
    };
    cx.counting(id, &sent, work).await
}

fn refused(message: &str) -> ExportError {
    ExportError::Archive(message.to_string())
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
