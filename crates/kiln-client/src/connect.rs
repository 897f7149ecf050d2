//! Channels to a daemon.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::{Address, Client, ConnectError};

/// HTTP/2 windows, in bytes: whole file transfers run inside one stream.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Largest headers, in bytes, as in Go's gRPC: an error brings the whole Dockerfile in its trailers.
const HEADER_LIST: u32 = 16 << 20;
/// Time for one attempt.
const ATTEMPT: Duration = Duration::from_secs(5);

fn endpoint() -> Endpoint {
    // The address of the socket is the connector's affair; this only names the authority of requests.
    Endpoint::from_static("http://localhost")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADER_LIST)
}

impl Client {
    /// Connects to a daemon that is there.
    pub async fn connect(address: &Address) -> Result<Self, ConnectError> {
        let failed = |reason: String| ConnectError::NoDaemon { address: address.clone(), reason };
        let connect = async {
            match address {
                Address::Unix(path) => over_unix(path).await,
                Address::Tcp(host) => over_tcp(host).await,
            }
        };
        match tokio::time::timeout(ATTEMPT, connect).await {
            Ok(Ok(channel)) => Ok(Self::new(channel)),
            Ok(Err(e)) => Err(failed(e.to_string())),
            Err(_) => Err(failed(format!("no connection in {} s", ATTEMPT.as_secs()))),
        }
    }

    /// Talks to a daemon over any byte stream, such as one end of [`tokio::io::duplex`].
    pub async fn from_duplex<I>(io: I) -> io::Result<Self>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Ok(Self::new(once(io).await.map_err(io::Error::other)?))
    }
}

async fn over_unix(path: &Path) -> io::Result<Channel> {
    // The first attempt is made by hand: its error says what is wrong, the channel's does not.
    once(UnixStream::connect(path).await?).await.map_err(io::Error::other)
}

async fn over_tcp(host: &str) -> io::Result<Channel> {
    let stream = TcpStream::connect(host).await?;
    stream.set_nodelay(true)?;
    once(stream).await.map_err(io::Error::other)
}

/// A channel over one connection: a session does not survive a second one anyway.
async fn once<I>(io: I) -> Result<Channel, tonic::transport::Error>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let io = Arc::new(Mutex::new(Some(io)));
    let connector = service_fn(move |_| {
        let io = io.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { io.map(TokioIo::new).ok_or_else(|| io::Error::other("the daemon closed the connection")) }
    });
    endpoint().connect_with_connector(connector).await
}
