//! A proxy, a server behind it, and a client that writes what it likes.

use crate::policy::{AllowAll, Denied, Policy, Verdict};
use crate::serve::{Proxy, Serving};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// No test takes that long; it ends one that hangs.
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) struct World {
    pub(super) at: SocketAddr,
    pub(super) serving: Serving,
    /// Heads of the requests that came to the server, and bodies of known length.
    pub(super) seen: Seen,
    pub(super) server: SocketAddr,
}

pub(super) type Seen = Arc<Mutex<Vec<String>>>;

pub(super) async fn world() -> World {
    world_with(Arc::new(AllowAll)).await
}

pub(super) async fn world_with(policy: Arc<dyn Policy>) -> World {
    let seen = Seen::default();
    let (listener, server) = listen().await;
    tokio::spawn(serve(listener, seen.clone()));
    let (at, serving) = proxy(Proxy::default(), policy);
    World { at, serving, seen, server }
}

pub(super) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

pub(super) fn proxy(proxy: Proxy, policy: Arc<dyn Policy>) -> (SocketAddr, Serving) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    (at, proxy.begin(listener, policy).unwrap())
}

/// A proxy whose servers' certificates are made by others than the system's authorities.
pub(super) fn trusting(tls: rustls::ClientConfig) -> Proxy {
    Proxy(Arc::new(OnceLock::from(tls)))
}

impl World {
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server)
    }

    /// Sends `text` and reads until the proxy closes, which it may do before it has read all.
    pub(super) async fn raw(&self, text: &str) -> String {
        let mut stream = TcpStream::connect(self.at).await.unwrap();
        let _ = stream.write_all(text.as_bytes()).await;
        all(&mut stream).await
    }

    /// A request that closes the connection.
    pub(super) async fn ask(&self, method: &str, url: &str, headers: &str) -> String {
        self.raw(&format!("{method} {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n")).await
    }

    pub(super) fn heads(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until something has come to the server.
    pub(super) async fn reached(&self) {
        let reached = async {
            while self.heads().is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(DEADLINE, reached).await.unwrap();
    }
}

pub(super) async fn all(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut out = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut out)).await.expect("the end in time");
    // A peer that is cut off is one that has ended.
    let _ = read;
    String::from_utf8_lossy(&out).into_owned()
}

/// Reads a head, and the body of the length it names.
pub(super) async fn message(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(text.clone()).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    text.extend(body);
    String::from_utf8(text).ok()
}

async fn serve(listener: TcpListener, seen: Seen) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answers(stream, seen.clone()));
    }
}

/// Answers requests by their paths.
pub(super) async fn answers(mut stream: impl AsyncRead + AsyncWrite + Unpin, seen: Seen) {
    while let Some(request) = message(&mut stream).await {
        let path = request.split(' ').nth(1).unwrap_or_default().to_string();
        seen.lock().unwrap().push(request);
        let answer: &[u8] = match path.as_str() {
            "/hangs" => std::future::pending().await,
            "/closes" => return,
            "/half" => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            "/chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=9\r\nX-Kept: 1\r\n\r\n4\r\npart\r\n5\r\n, end\r\n0\r\nX-Trailer: 1\r\n\r\n",
            "/none" => b"HTTP/1.1 204 No Content\r\n\r\n",
            "/same" => b"HTTP/1.1 304 Not Modified\r\nETag: \"e\"\r\nContent-Length: 9\r\n\r\n",
            "/head" => b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
            "/part" => b"HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\n\r\npart",
            "/moved" => b"HTTP/1.1 302 Found\r\nLocation: /file?token=t\r\nContent-Length: 0\r\n\r\n",
            "/missing" => b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
            "/until-close" => b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
            "/switch" => b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n",
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfile",
        };
        if stream.write_all(answer).await.is_err() || ["/half", "/until-close"].contains(&path.as_str()) {
            return;
        }
    }
}

/// A policy with three kinds of answers, by what the URL contains.
#[derive(Debug, Default)]
pub(super) struct ByPath {
    pub(super) asked: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl Policy for ByPath {
    async fn decide(&self, url: &str) -> Result<Verdict, Denied> {
        self.asked.lock().unwrap().push(url.to_string());
        if url.contains("/no") {
            return Err(Denied("not\nthis".into()));
        }
        Ok(match url.contains("/old") {
            true => Verdict::Instead(url.replace("/old", "/new")),
            false => Verdict::Allowed,
        })
    }
}
