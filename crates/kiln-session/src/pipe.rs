//! A stream of byte messages as a byte pipe.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures::Stream;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

/// Largest message that is sent, in bytes; peers read in buffers of this size.
pub const DEFAULT_CHUNK: usize = 32 << 10;
/// Messages that may wait to be sent.
const QUEUE: usize = 16;

/// Reads what comes as messages, writes messages of at most [`DEFAULT_CHUNK`] bytes. Shutting the write side down
/// ends the outgoing stream.
pub struct BytesPipe {
    incoming: BoxStream<'static, io::Result<Bytes>>,
    rest: Bytes,
    outgoing: PollSender<Bytes>,
}

impl BytesPipe {
    /// A pipe over `incoming`, and the receiver of what is written to it.
    pub fn new(incoming: BoxStream<'static, io::Result<Bytes>>) -> (Self, mpsc::Receiver<Bytes>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { incoming, rest: Bytes::new(), outgoing: PollSender::new(sender) }, receiver)
    }
}

impl std::fmt::Debug for BytesPipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BytesPipe")
    }
}

impl AsyncRead for BytesPipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Empty messages are allowed on the wire and must not look like the end.
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.incoming).poll_next(cx)) {
                Some(Ok(bytes)) => self.rest = bytes,
                Some(Err(e)) => return Poll::Ready(Err(e)),
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..n]);
        self.rest.advance(n);
        Poll::Ready(Ok(()))
    }
}

fn hung_up() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl BytesPipe {
    fn poll_send(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.outgoing.poll_reserve(cx)).map_err(|_| hung_up())?;
        let total: usize = parts.iter().map(|p| p.len()).sum();
        let mut message = Vec::with_capacity(total.min(DEFAULT_CHUNK));
        for part in parts {
            let room = DEFAULT_CHUNK - message.len();
            message.extend_from_slice(&part[..part.len().min(room)]);
        }
        let n = message.len();
        if n > 0 {
            self.outgoing.send_item(message.into()).map_err(|_| hung_up())?;
        }
        Poll::Ready(Ok(n))
    }
}

impl AsyncWrite for BytesPipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.close();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn reads_across_messages_and_skips_empty_ones() {
        let messages = ["ab", "", "cdef"].map(|m| Ok(Bytes::from_static(m.as_bytes())));
        let (mut pipe, _rx) = BytesPipe::new(futures::stream::iter(messages).boxed());
        let mut first = [0; 3];
        pipe.read_exact(&mut first).await.unwrap();
        let mut rest = String::new();
        pipe.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&first[..], rest.as_str()), (&b"abc"[..], "def"));
    }

    #[tokio::test]
    async fn writes_are_cut_into_chunks_and_shutdown_ends_the_stream() {
        let (mut pipe, mut rx) = BytesPipe::new(futures::stream::pending().boxed());
        let data = vec![7; DEFAULT_CHUNK * 2 + 5];
        let collect = tokio::spawn(async move {
            let mut sizes = vec![];
            while let Some(m) = rx.recv().await {
                sizes.push(m.len());
            }
            sizes
        });
        pipe.write_all(&data).await.unwrap();
        pipe.shutdown().await.unwrap();
        assert_eq!(collect.await.unwrap(), [DEFAULT_CHUNK, DEFAULT_CHUNK, 5]);
    }

    #[tokio::test]
    async fn writing_to_a_closed_pipe_fails() {
        let (mut pipe, rx) = BytesPipe::new(futures::stream::pending().boxed());
        drop(rx);
        assert_eq!(pipe.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
