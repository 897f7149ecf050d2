//! Output of a process in a container, both streams in one (Docker Engine API, "Stream format").

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

const HEADER: usize = 8;
const STDOUT: u8 = 1;
/// What is kept of each stream of a short command, in bytes.
const MAX_OUTPUT: usize = 1 << 20;

/// The process's stdout when read, its stdin when written; what it says on stderr is dropped.
#[derive(Debug)]
pub(crate) struct Demux<S> {
    inner: S,
    header: [u8; HEADER],
    have: usize,
    /// Bytes of the frame that are still to come.
    left: usize,
    is_stdout: bool,
}

impl<S> Demux<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, header: [0; HEADER], have: 0, left: 0, is_stdout: false }
    }
}

impl<S: AsyncRead + Unpin> Demux<S> {
    /// Reads the next header; false at the end of the stream.
    fn poll_header(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.have < HEADER {
            let mut buf = ReadBuf::new(&mut self.header[self.have..]);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf))?;
            match (buf.filled().len(), self.have) {
                (0, 0) => return Poll::Ready(Ok(false)),
                (0, _) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                (n, _) => self.have += n,
            }
        }
        let [kind, _, _, _, a, b, c, d] = self.header;
        if kind > 3 {
            return Poll::Ready(Err(io::Error::other(format!("unrecognized input header: {kind}"))));
        }
        self.have = 0;
        self.is_stdout = kind <= STDOUT;
        self.left = u32::from_be_bytes([a, b, c, d]) as usize;
        Poll::Ready(Ok(true))
    }

    /// Reads both streams to their end.
    pub(crate) async fn collect(mut self) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        while std::future::poll_fn(|cx| self.poll_header(cx)).await? {
            let to = if self.is_stdout { &mut out } else { &mut err };
            let mut frame = (&mut self.inner).take(self.left as u64);
            let room = MAX_OUTPUT.saturating_sub(to.len()) as u64;
            (&mut frame).take(room).read_to_end(to).await?;
            tokio::io::copy(&mut frame, &mut tokio::io::sink()).await?;
            self.left = 0;
        }
        Ok((out, err))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Demux<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.left == 0 {
                if !ready!(this.poll_header(cx))? {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let mut dropped = [0; 4096];
            let limit = this.left.min(if this.is_stdout { to.remaining() } else { dropped.len() });
            let mut buf = match this.is_stdout {
                true => ReadBuf::new(to.initialize_unfilled_to(limit)),
                false => ReadBuf::new(&mut dropped[..limit]),
            };
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buf))?;
            let n = buf.filled().len();
            if n == 0 && limit > 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            this.left -= n;
            if this.is_stdout {
                to.advance(n);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Demux<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, data: &[u8]) -> Vec<u8> {
        let mut out = vec![kind, 0, 0, 0];
        out.extend((data.len() as u32).to_be_bytes());
        out.extend(data);
        out
    }

    #[tokio::test]
    async fn stdout_is_read_and_stderr_dropped() {
        let stream = [frame(1, b"ab"), frame(2, &[b'x'; 9000]), frame(1, b""), frame(1, b"cd")].concat();
        let mut text = String::new();
        // Whatever the pieces are.
        let pieces = tokio_test_pieces(&stream, 3);
        Demux::new(pieces).read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "abcd");
        let (out, err) = Demux::new(&stream[..]).collect().await.unwrap();
        assert_eq!((out.as_slice(), err.len()), (&b"abcd"[..], 9000));
    }

    #[tokio::test]
    async fn what_is_cut_off_is_an_error() {
        let whole = frame(1, b"abcd");
        for cut in [3, 10] {
            let mut data = Vec::new();
            let error = Demux::new(&whole[..cut]).read_to_end(&mut data).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
        assert!(Demux::new(&b"HTTP/1.1 200"[..]).read_to_end(&mut Vec::new()).await.is_err());
    }

    /// A reader that gives few bytes at a time.
    fn tokio_test_pieces(data: &[u8], size: usize) -> impl AsyncRead + Unpin + use<> {
        let (mut to, from) = tokio::io::duplex(size);
        let data = data.to_vec();
        tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut to, &data).await });
        from
    }

    proptest::proptest! {
        /// An engine may say anything: reading ends, with no more than was sent, and both ways of reading agree.
        #[test]
        fn any_stream_ends(kinds in proptest::collection::vec((0..5_u8, 0..40_usize), 0..6), tail: Vec<u8>) {
            let mut stream: Vec<u8> = kinds.iter().flat_map(|(kind, size)| frame(*kind, &vec![b'x'; *size])).collect();
            stream.extend(tail);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (mut read, collected) = (Vec::new(), runtime.block_on(Demux::new(&stream[..]).collect()));
            let ended = runtime.block_on(Demux::new(&stream[..]).read_to_end(&mut read));
            assert!(read.len() <= stream.len());
            if let (Ok(_), Ok((out, _))) = (ended, collected) {
                assert_eq!(out, read);
            }
        }
    }
}
