//! Channels to a daemon.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::command::CommandStream;
use crate::preface::Preface;
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
        let not_daemon = |reason: String| ConnectError::NotDaemon { address: address.clone(), reason };
        let connect = async {
            let io = dial(address).await.map_err(|e| failed(e.to_string()))?;
            let Some((connector, name)) = secure else {
                return match address {
                    // A socket that the system listens at for a daemon that is yet to start says nothing for a while.
                    Address::Unix(_) => Self::from_stream(io).await.map_err(|e| not_daemon(e.to_string())),
                    Address::Tcp(_) | Address::Remote(_) => answering(io).await.map_err(not_daemon),
                };
            };
            let io = tls::encrypt(&connector, name, io).await.map_err(|e| failed(e.to_string()))?;
            answering(io).await.map_err(not_daemon)
        };
        match tokio::time::timeout(timeout, connect).await {
            Ok(result) => result,
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
        let stream = CommandStream::start(program, args).map_err(|e| e.to_string())?;
        let name = format!("[{program} {}]", args.join(" "));
        answering(stream)
            .await
            .map_err(|why| if why.contains(&name) { why } else { format!("{name}: {why}") })
    }
}

/// A client of what answers at the other end, if that is a gRPC server.
async fn answering<I>(io: I) -> Result<Client, String>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (io, answer) = Preface::new(io);
    let client = Client::from_stream(io).await.map_err(|e| e.to_string());
    match answer.await {
        Ok(Ok(())) => client,
        Ok(Err(why)) => Err(why),
        // The connection was given up before anything came.
        Err(_) => client.and(Err("it closed the connection".into())),
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn dial(address: &Address) -> io::Result<Box<dyn Io>> {
    Ok(match address {
        Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        Address::Tcp(host) => {
            let stream = TcpStream::connect(host).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        Address::Remote(remote) => {
            let (program, args) = remote.command();
            Box::new(CommandStream::start(program, &args)?)
        }
    })
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
