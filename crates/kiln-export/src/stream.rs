//! A stream of bytes to the client, written by code that blocks.

use crate::{ExportContext, ExportError};
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use kiln_session::{FileRequest, Incoming, RawStream, Session};
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Bytes sent at once.
const CHUNK: usize = 256 << 10;
/// gRPC code of a client that has the file already.
const ALREADY_EXISTS: i32 = 6;

/// Sends what `write` writes, and tells of it as `id`. That the client needs nothing is a success.
pub(crate) async fn stream(
    id: &str,
    session: &Session,
    request: &FileRequest,
    cx: &ExportContext<'_>,
    write: impl FnOnce(ChunkWriter) -> Result<(), ExportError> + Send + 'static,
) -> Result<(), ExportError> {
    let mut upload = Upload::new(session.send_files(request)?);
    let (sender, mut chunks) = mpsc::channel::<Bytes>(8);
    let sent = AtomicU64::new(0);
    let work = async {
        let writer = tokio::task::spawn_blocking(move || write(ChunkWriter::new(sender)));
        while let Some(chunk) = chunks.recv().await {
            let size = chunk.len() as u64;
            if upload.write(chunk).await? == Client::Content {
                return Ok(());
            }
            sent.fetch_add(size, Ordering::Relaxed);
        }
        writer.await.map_err(|e| ExportError::Internal(e.to_string()))??;
        upload.finish().await
    };
    cx.counting(id, &sent, work).await
}

/// What the client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    More,
    /// Nothing: it has the file.
    Content,
}

/// An upload that is cut off, not ended, when it is dropped before [`finish`](Upload::finish): the client must not
/// take a torn file for a whole one.
struct Upload(Option<(mpsc::Sender<Bytes>, Incoming)>);

impl Upload {
    fn new(stream: RawStream) -> Self {
        Self(Some((stream.outgoing, stream.incoming)))
    }

    async fn write(&mut self, data: Bytes) -> Result<Client, ExportError> {
        let Some((outgoing, incoming)) = &mut self.0 else { return Ok(Client::Content) };
        if outgoing.send(message(&data)).await.is_ok() {
            return Ok(Client::More);
        }
        // The client ended the call; its status says why.
        match verdict(incoming).await? {
            Client::Content => Ok(Client::Content),
            Client::More => Err(ExportError::Archive("the client stopped reading".into())),
        }
    }

    async fn finish(&mut self) -> Result<(), ExportError> {
        let Some((outgoing, mut incoming)) = self.0.take() else { return Ok(()) };
        drop(outgoing);
        verdict(&mut incoming).await.map(drop)
    }
}

/// Waits for the end of the call.
async fn verdict(incoming: &mut Incoming) -> Result<Client, ExportError> {
    while let Some(answer) = incoming.next().await {
        match answer {
            Ok(_) => {}
            Err(status) if status.code() as i32 == ALREADY_EXISTS => return Ok(Client::Content),
            Err(status) => return Err(ExportError::Archive(status.message().to_string())),
        }
    }
    Ok(Client::More)
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some((outgoing, incoming)) = self.0.take() else { return };
        // Without its reader the call is reset. The end of our messages would be a proper end if it came first, so
        // they stay open until nobody listens any more.
        drop(incoming);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { outgoing.closed().await });
        }
    }
}

/// `BytesMessage {data = 1}` (spec wire.md section 5).
fn message(data: &Bytes) -> Bytes {
    const FIELD_1_BYTES: u8 = 1 << 3 | 2;
    let mut out = BytesMut::with_capacity(data.len() + 11);
    out.put_u8(FIELD_1_BYTES);
    let mut left = data.len() as u64;
    while left >= 0x80 {
        out.put_u8(left as u8 | 0x80);
        left >>= 7;
    }
    out.put_u8(left as u8);
    out.put_slice(data);
    out.freeze()
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
