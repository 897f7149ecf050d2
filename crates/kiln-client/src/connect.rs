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

use crate::command::CommandStream;
use crate::{Address, Client, ConnectError, Tls, tls};

/// HTTP/2 windows, in bytes: whole file transfers run inside one stream.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Largest headers, in bytes, as in Go's gRPC: an error brings the whole Dockerfile in its trailers.
const HEADER_LIST: u32 = 16 << 20;
/// Time for one attempt.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Least time for a program that has to reach another machine first.
const REMOTE_ATTEMPT: Duration = Duration::from_secs(20);

/// How to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Encryption; none if None.
    pub tls: Option<Tls>,
    /// Time until there has to be a connection; more for one through another program.
    pub timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { tls: None, timeout: ATTEMPT }
    }
}

fn endpoint() -> Endpoint {
    // The address of the socket is the connector's affair; this only names the authority of requests.
    Endpoint::from_static("http://localhost")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADER_LIST)
}

impl Client {
    /// Connects to a daemon that is there, in plain text.
    pub async fn connect(address: &Address) -> Result<Self, ConnectError> {
        Self::connect_with(address, &ConnectOptions::default()).await
    }

    /// Connects to a daemon that is there.
    pub async fn connect_with(address: &Address, options: &ConnectOptions) -> Result<Self, ConnectError> {
        let failed = |reason: String| ConnectError::NoDaemon { address: address.clone(), reason };
        let secure = match &options.tls {
            Some(tls) => Some((tls.connector()?, tls.name(&address.host())?)),
            None => None,
        };
        let timeout = match address {
            Address::Remote(_) => options.timeout.max(REMOTE_ATTEMPT),
            Address::Unix(_) | Address::Tcp(_) => options.timeout,
        };
        let connect = async {
            let Some((connector, name)) = secure else { return dial(address).await };
            let encrypted = async {
                let io = dial_stream(address).await?;
                let io = tls::encrypt(&connector, name, io).await?;
                once(io).await.map_err(io::Error::other)
            };
            encrypted.await.map(Self::new).map_err(|e| e.to_string())
        };
        match tokio::time::timeout(timeout, connect).await {
            Ok(result) => result.map_err(failed),
            Err(_) => Err(failed(format!("no connection in {} s", timeout.as_secs()))),
        }
    }

    /// Talks to a daemon over any byte stream, such as one end of [`tokio::io::duplex`] or of an exec session.
    pub async fn from_stream<I>(io: I) -> io::Result<Self>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Ok(Self::new(once(io).await.map_err(io::Error::other)?))
    }

    /// As [`Client::from_stream`].
    pub async fn from_duplex<I>(io: I) -> io::Result<Self>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::from_stream(io).await
    }

    /// Runs a program that connects its stdin and stdout to a daemon, and waits until that answers. The error is what
    /// the program said.
    pub async fn over_command(program: &str, args: &[String]) -> Result<Self, String> {
        let (stream, answer) =
            CommandStream::start(program, args).map_err(|e| format!("start {program}: {e}"))?;
        let client = Self::from_stream(stream).await.map_err(|e| e.to_string());
        // Whatever became of the connection: the program knows better why.
        match answer.await {
            Ok(Ok(())) => client,
            Ok(Err(why)) => Err(why),
            Err(_) => client.and(Err(format!("{program} ended before a daemon answered"))),
        }
    }
}

async fn dial(address: &Address) -> Result<Client, String> {
    let channel = match address {
        Address::Unix(path) => over_unix(path).await,
        Address::Tcp(host) => over_tcp(host).await,
        Address::Remote(remote) => {
            let (program, args) = remote.command();
            return Client::over_command(program, &args).await;
        }
    };
    channel.map(Client::new).map_err(|e| e.to_string())
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn dial_stream(address: &Address) -> io::Result<Box<dyn Io>> {
    Ok(match address {
        Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        Address::Tcp(host) => Box::new(tcp(host).await?),
        Address::Remote(remote) => {
            let (program, args) = remote.command();
            let start = CommandStream::start(program, &args);
            Box::new(start.map_err(|e| io::Error::new(e.kind(), format!("start {program}: {e}")))?.0)
        }
    })
}

async fn over_unix(path: &Path) -> io::Result<Channel> {
    // The first attempt is made by hand: its error says what is wrong, the channel's does not.
    once(UnixStream::connect(path).await?).await.map_err(io::Error::other)
}

async fn tcp(host: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(host).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn over_tcp(host: &str) -> io::Result<Channel> {
    once(tcp(host).await?).await.map_err(io::Error::other)
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
