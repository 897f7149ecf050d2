//! Connections, whatever they came in by.

use super::{Listener, Socket, SocketPath, Tls};
use rustix::net::sockopt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// How long a client may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at the same time; further clients wait in the queue of the socket.
const HANDSHAKES: usize = 128;
/// Connections at the same time; each may hold two windows of unread data.
const CONNECTIONS: usize = 256;
/// After a failed accept, such as for lack of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// A connection of a client.
pub(crate) struct Conn {
    stream: Stream,
    _place: OwnedSemaphorePermit,
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Accepts on all listeners until the receiver is dropped. The sockets' paths are returned: they are removed when dropped.
pub(crate) fn incoming(listeners: Vec<Listener>) -> (mpsc::Receiver<io::Result<Conn>>, Vec<SocketPath>) {
    let (sender, receiver) = mpsc::channel(64);
    let mut paths = Vec::new();
    let limits = Limits {
        handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
        connections: Arc::new(Semaphore::new(CONNECTIONS)),
    };
    for Listener { mut socket, tls } in listeners {
        if let Socket::Unix(_, path) = &mut socket {
            paths.extend(path.take());
        }
        tokio::spawn(accept(sender.clone(), socket, tls, limits.clone()));
    }
    (receiver, paths)
}

/// Places, of all listeners together.
#[derive(Clone)]
struct Limits {
    handshakes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

async fn accept(sender: mpsc::Sender<io::Result<Conn>>, socket: Socket, tls: Option<Tls>, limits: Limits) {
    loop {
        // Further clients wait in the queue of the socket.
        let place = limits.connections.clone().acquire_owned();
        let accepted = tokio::select! {
            accepted = async { (next(&socket).await, place.await) } => accepted,
            () = sender.closed() => return,
        };
        let (stream, place) = match accepted {
            (Ok(stream), Ok(place)) => (stream, place),
            (Err(error), _) => {
                tracing::warn!(%error, "accept");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            (_, Err(_)) => return,
        };
        match (stream, &tls) {
            (Stream::Tcp(stream), Some(tls)) => {
                let Ok(permit) = limits.handshakes.clone().acquire_owned().await else { return };
                let (sender, tls) = (sender.clone(), tls.clone());
                // One that is slow keeps nobody else waiting.
                tokio::spawn(async move {
                    match tokio::time::timeout(HANDSHAKE, tls.0.accept(stream)).await {
                        Ok(Ok(stream)) => {
                            let stream = Stream::Tls(Box::new(stream));
                            drop(sender.send(Ok(Conn { stream, _place: place })).await);
                        }
                        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake"),
                        Err(_) => tracing::debug!("TLS handshake: too slow"),
                    }
                    drop(permit);
                });
            }
            (stream, _) => drop(sender.send(Ok(Conn { stream, _place: place })).await),
        }
    }
}

async fn next(socket: &Socket) -> io::Result<Stream> {
    match socket {
        Socket::Unix(socket, _) => Ok(Stream::Unix(socket.accept().await?.0)),
        Socket::Tcp(socket) => Ok(Stream::Tcp(prepared(socket.accept().await?.0))),
    }
}

/// Small messages go at once, and a client whose machine is gone is noticed.
fn prepared(stream: TcpStream) -> TcpStream {
    let set = || {
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, Duration::from_secs(60))?;
        sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(15))?;
        Ok::<_, io::Error>(sockopt::set_tcp_keepcnt(&stream, 4)?)
    };
    if let Err(error) = set() {
        tracing::debug!(%error, "set socket options");
    }
    stream
}

impl Connected for Conn {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Conn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Conn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Unix(s) => Pin::new(s).poll_write(cx, data),
            Stream::Tcp(s) => Pin::new(s).poll_write(cx, data),
            Stream::Tls(s) => Pin::new(s).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Unix(s) => Pin::new(s).poll_write_vectored(cx, data),
            Stream::Tcp(s) => Pin::new(s).poll_write_vectored(cx, data),
            Stream::Tls(s) => Pin::new(s).poll_write_vectored(cx, data),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Unix(s) => s.is_write_vectored(),
            Stream::Tcp(s) => s.is_write_vectored(),
            Stream::Tls(s) => s.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Unix(s) => Pin::new(s).poll_flush(cx),
            Stream::Tcp(s) => Pin::new(s).poll_flush(cx),
            Stream::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Stream::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Stream::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
