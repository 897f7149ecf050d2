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
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// How long a client may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at the same time; further clients wait in the queue of the socket.
const HANDSHAKES: usize = 128;
/// After a failed accept, such as for lack of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// A connection of a client.
pub(crate) enum Conn {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Accepts on all listeners until the receiver is dropped. The sockets' paths are returned: they are removed when dropped.
pub(crate) fn incoming(listeners: Vec<Listener>) -> (mpsc::Receiver<io::Result<Conn>>, Vec<SocketPath>) {
    let (sender, receiver) = mpsc::channel(64);
    let mut paths = Vec::new();
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    for Listener { mut socket, tls } in listeners {
        if let Socket::Unix(_, path) = &mut socket {
            paths.extend(path.take());
        }
        tokio::spawn(accept(sender.clone(), socket, tls, handshakes.clone()));
    }
    (receiver, paths)
}

async fn accept(
    sender: mpsc::Sender<io::Result<Conn>>,
    socket: Socket,
    tls: Option<Tls>,
    handshakes: Arc<Semaphore>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = next(&socket) => accepted,
            () = sender.closed() => return,
        };
        match (accepted, &tls) {
            (Err(error), _) => {
                tracing::warn!(%error, "accept");
                tokio::time::sleep(PAUSE).await;
            }
            (Ok(Conn::Tcp(stream)), Some(tls)) => {
                let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
                let (sender, tls) = (sender.clone(), tls.clone());
                // One that is slow keeps nobody else waiting.
                tokio::spawn(async move {
                    match tokio::time::timeout(HANDSHAKE, tls.0.accept(stream)).await {
                        Ok(Ok(stream)) => drop(sender.send(Ok(Conn::Tls(Box::new(stream)))).await),
                        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake"),
                        Err(_) => tracing::debug!("TLS handshake: too slow"),
                    }
                    drop(permit);
                });
            }
            (Ok(conn), _) => drop(sender.send(Ok(conn)).await),
        }
    }
}

async fn next(socket: &Socket) -> io::Result<Conn> {
    match socket {
        Socket::Unix(socket, _) => Ok(Conn::Unix(socket.accept().await?.0)),
        Socket::Tcp(socket) => Ok(Conn::Tcp(prepared(socket.accept().await?.0))),
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
        match self.get_mut() {
            Self::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Conn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(s) => Pin::new(s).poll_write(cx, data),
            Self::Tcp(s) => Pin::new(s).poll_write(cx, data),
            Self::Tls(s) => Pin::new(s).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(s) => Pin::new(s).poll_write_vectored(cx, data),
            Self::Tcp(s) => Pin::new(s).poll_write_vectored(cx, data),
            Self::Tls(s) => Pin::new(s).poll_write_vectored(cx, data),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Unix(s) => s.is_write_vectored(),
            Self::Tcp(s) => s.is_write_vectored(),
            Self::Tls(s) => s.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(s) => Pin::new(s).poll_flush(cx),
            Self::Tcp(s) => Pin::new(s).poll_flush(cx),
            Self::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
