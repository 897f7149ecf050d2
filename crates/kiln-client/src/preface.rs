//! The first bytes of a daemon: whether what is at the other end speaks gRPC at all.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// Length of the header of an HTTP/2 frame.
const FRAME_HEADER: usize = 9;
/// What an error repeats of other words, in bytes.
const QUOTED: usize = 256;

/// A stream whose first bytes are looked at as they pass.
#[derive(Debug)]
pub(crate) struct Preface<I> {
    io: I,
    head: Vec<u8>,
    report: Option<oneshot::Sender<Result<(), String>>>,
}

impl<I> Preface<I> {
    /// The receiver tells whether an HTTP/2 server answers, else what happens instead.
    pub(crate) fn new(io: I) -> (Self, oneshot::Receiver<Result<(), String>>) {
        let (report, answer) = oneshot::channel();
        (Self { io, head: Vec::new(), report: Some(report) }, answer)
    }

    fn saw(&mut self, bytes: &[u8]) {
        if self.report.is_none() {
            return;
        }
        if bytes.is_empty() {
            return self.tell(Err("it closed the connection before it said anything".into()));
        }
        let missing = FRAME_HEADER - self.head.len();
        self.head.extend(bytes.iter().take(missing));
        // A server begins with a SETTINGS frame (type 4) on stream 0.
        let expected = [(3, 4), (5, 0), (6, 0), (7, 0), (8, 0)];
        if expected.iter().any(|(at, byte)| self.head.get(*at).is_some_and(|b| b != byte)) {
            self.tell(Err(instead(bytes)));
        } else if self.head.len() == FRAME_HEADER {
            self.tell(Ok(()));
        }
    }

    fn tell(&mut self, answer: Result<(), String>) {
        if let Some(report) = self.report.take() {
            let _ = report.send(answer);
        }
    }
}

/// What somebody speaks who does not speak gRPC.
fn instead(bytes: &[u8]) -> String {
    // A fatal alert, of any version of TLS: what we said was no greeting.
    if let [0x15, 3, _, 0, 2, ..] = bytes {
        return "it speaks TLS: a certificate of its authority is needed to talk to it".into();
    }
    let said = String::from_utf8_lossy(&bytes[..bytes.len().min(QUOTED)]);
    format!("it does not speak gRPC; it says {:?}", said.trim())
}

impl<I: AsyncRead + Unpin> AsyncRead for Preface<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let has_room = buf.remaining() > 0;
        match ready!(Pin::new(&mut this.io).poll_read(cx, buf)) {
            Ok(()) if has_room => this.saw(&buf.filled()[before..]),
            Ok(()) => {}
            Err(e) => {
                this.tell(Err(e.to_string()));
                return Poll::Ready(Err(e));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Preface<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn answer(pieces: &[&[u8]]) -> Option<Result<(), String>> {
        let (near, mut far) = tokio::io::duplex(64);
        let (mut preface, mut answer) = Preface::new(near);
        for piece in pieces {
            far.write_all(piece).await.unwrap();
            let mut buffer = vec![0; piece.len()];
            preface.read_exact(&mut buffer).await.unwrap();
        }
        if let Ok(answer) = answer.try_recv() {
            return Some(answer);
        }
        drop(far);
        let _ = preface.read(&mut [0; 8]).await;
        answer.try_recv().ok()
    }

    #[tokio::test]
    async fn settings_come_first_in_any_number_of_pieces() {
        let settings: &[u8] = &[0, 0, 6, 4, 0, 0, 0, 0, 0, 9, 9];
        assert_eq!(answer(&[settings]).await, Some(Ok(())));
        assert_eq!(answer(&[&settings[..2], &settings[2..4], &settings[4..]]).await, Some(Ok(())));
        let error = answer(&[b"HTTP/1.1 400 Bad\r\n"]).await.unwrap().unwrap_err();
        assert_eq!(error, "it does not speak gRPC; it says \"HTTP/1.1 400 Bad\"");
        let error = answer(&[&[0x15, 3, 3, 0, 2, 2, 0x32]]).await.unwrap().unwrap_err();
        assert!(error.starts_with("it speaks TLS"), "{error}");
        let error = answer(&[&settings[..3]]).await.unwrap().unwrap_err();
        assert_eq!(error, "it closed the connection before it said anything");
    }
}
