//! Where clients connect: `unix://`, `tcp://`, `fd://` (sockets that systemd opened).

mod activation;
mod conn;
mod tls;
mod unix;

pub(crate) use conn::{Conn, incoming};
pub(crate) use tls::TlsFiles;
pub(crate) use unix::SocketPath;

use std::path::PathBuf;
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// No scheme.
    #[error("address {0} does not contain proto, you meant unix://{0} ?")]
    NoScheme(String),
    /// Not of a form that is known.
    #[error("address {0} not supported: expected unix://, tcp:// or fd://")]
    Scheme(String),
    /// Windows.
    #[error("address {0} not supported: named pipes are for Windows")]
    NamedPipe(String),
    /// A live daemon listens there.
    #[error("address unix://{0}: another daemon listens there")]
    InUse(PathBuf),
    /// The path is taken by something else.
    #[error("address unix://{0}: the path exists and is not a socket")]
    NotASocket(PathBuf),
    /// No socket was handed over.
    #[error("address {address}: {why}: make sure the service was started by systemd")]
    Activation {
        /// As given.
        address: String,
        /// What is missing.
        why: String,
    },
    /// Certificates.
    #[error("{0}")]
    Tls(String),
    /// Anything else.
    #[error("address {address}: {step}: {source}")]
    Io {
        /// As given.
        address: String,
        /// What was done.
        step: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: Socket,
    /// What clients must speak on it.
    pub(crate) tls: Option<Tls>,
}

/// The socket itself.
#[derive(Debug)]
pub(crate) enum Socket {
    /// The path is removed when this is dropped; a socket of systemd has none.
    Unix(UnixListener, Option<SocketPath>),
    Tcp(TcpListener),
}

/// The server's side of TLS.
#[derive(Clone)]
pub(crate) struct Tls(pub(crate) TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// Listens on all addresses. Only the owner and the group of a unix socket may connect to it.
///
/// # Errors
/// If one of them cannot be listened on; the sockets of the others are closed and removed again.
pub(crate) async fn listen_all(
    addresses: &[String],
    tls: Option<&TlsFiles>,
    owner: (Option<u32>, Option<u32>),
) -> Result<Vec<Listener>, ListenError> {
    let tls = tls.map(TlsFiles::load).transpose()?;
    let mut listeners = Vec::new();
    for address in addresses {
        listeners.push(listen(address, tls.clone(), owner).await?);
    }
    Ok(listeners)
}

/// Listens without TLS, and without a word about that.
///
/// # Errors
/// If it cannot be listened on.
pub(crate) async fn listen_unsecured(address: &str) -> Result<Listener, ListenError> {
    Ok(Listener { socket: open(address, (None, None)).await?, tls: None })
}

async fn open(address: &str, owner: (Option<u32>, Option<u32>)) -> Result<Socket, ListenError> {
    let Some((scheme, rest)) = address.split_once("://") else {
        return Err(ListenError::NoScheme(address.into()));
    };
    match scheme {
        "unix" => unix::listen(rest, owner),
        "tcp" => Ok(Socket::Tcp(tcp(address, rest).await?)),
        "fd" => activation::listen(address, rest),
        "npipe" => Err(ListenError::NamedPipe(address.into())),
        _ => Err(ListenError::Scheme(address.into())),
    }
}

async fn listen(
    address: &str,
    tls: Option<Tls>,
    owner: (Option<u32>, Option<u32>),
) -> Result<Listener, ListenError> {
    let socket = open(address, owner).await?;
    let tls = match (&socket, tls) {
        (Socket::Unix(..), Some(_)) => {
            tracing::warn!("TLS is disabled for {address}");
            None
        }
        (Socket::Tcp(tcp), None) => {
            warn_if_open(address, tcp);
            None
        }
        (_, tls) => tls,
    };
    Ok(Listener { socket, tls })
}

/// Whoever reaches the port has root's rights here.
fn warn_if_open(address: &str, tcp: &TcpListener) {
    if tcp.local_addr().is_ok_and(|a| !a.ip().is_loopback()) {
        tracing::warn!(
            "TLS is not enabled for {address}. enabling mutual TLS authentication is highly recommended"
        );
    }
}

/// `host:port`; no host means all addresses.
async fn tcp(address: &str, rest: &str) -> Result<TcpListener, ListenError> {
    let io = |step| move |source| ListenError::Io { address: address.into(), step, source };
    let Some(port) = rest.strip_prefix(':') else {
        return TcpListener::bind(rest).await.map_err(io("bind"));
    };
    match TcpListener::bind(format!("[::]:{port}")).await {
        Ok(listener) => Ok(listener),
        // A machine without IPv6.
        Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await.map_err(io("bind")),
    }
}

#[cfg(test)]
mod tests;
