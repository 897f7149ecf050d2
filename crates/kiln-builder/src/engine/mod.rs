//! The Docker Engine's API, as far as builders need it: HTTP/1.1 over its socket, one connection per request.

mod containers;
mod demux;
mod images;

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, UnixStream};

use kiln_client::CommandStream;

use crate::Error;
use crate::docker::Endpoint;

pub(crate) use containers::ContainerSpec;
pub(crate) use demux::Demux;
pub use images::ImageLoad;

/// Largest answer that is read whole, in bytes.
const MAX_ANSWER: usize = 16 << 20;
/// Largest message of an error, in bytes.
const MAX_MESSAGE: usize = 64 << 10;

pub(crate) type Body = BoxBody<Bytes, io::Error>;

/// A Docker Engine. Nothing is sent before the first request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    host: String,
    socket: Socket,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Socket {
    Unix(PathBuf),
    Tcp(String),
    /// A program whose stdin and stdout are the connection.
    Program {
        name: &'static str,
        args: Vec<String>,
    },
}

/// What `GET /info` says.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Info {
    pub(crate) cgroup_driver: String,
    pub(crate) security_options: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Message {
    message: String,
}

impl Engine {
    /// The engine of an endpoint.
    ///
    /// # Errors
    /// What is no address.
    pub fn new(endpoint: &Endpoint) -> Result<Self, Error> {
        let host = endpoint.host.clone();
        let socket = match host.split_once("://") {
            Some(("unix", path)) => Socket::Unix(path.into()),
            Some(("tcp" | "http", address)) if !endpoint.tls => {
                Socket::Tcp(address.trim_end_matches('/').to_owned())
            }
            // The Docker CLI knows the certificates and how to reach the machine.
            Some(_) => {
                let dial = ["system", "dial-stdio"].map(str::to_owned);
                Socket::Program { name: "docker", args: [&endpoint.flags[..], &dial].concat() }
            }
            None => return Err(Error::Invalid(format!("invalid address of a Docker Engine: {host:?}"))),
        };
        Ok(Self { host, socket })
    }

    /// Its address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether an engine is there.
    ///
    /// # Errors
    /// It is not, or may not be used.
    pub async fn ping(&self) -> Result<(), Error> {
        self.send(Method::GET, "/_ping", None).await.map(drop)
    }

    pub(crate) async fn info(&self) -> Result<Info, Error> {
        self.json(Method::GET, "/info", None).await
    }

    fn unreachable(&self, why: impl ToString) -> Error {
        Error::NoEngine { host: self.host.clone(), why: why.to_string() }
    }

    /// Sends JSON, reads JSON.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> Result<T, Error> {
        let answer = self.send(method, path, body).await?;
        let bytes = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let bytes = bytes.map_err(|e| self.unreachable(e))?.to_bytes();
        serde_json::from_slice(&bytes).map_err(|e| self.unreachable(format!("{path}: {e}")))
    }

    /// Sends JSON; the answer is a success.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = Request::builder().method(method).uri(path);
        let bytes = match body {
            Some(value) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(value.to_string())
            }
            None => Bytes::new(),
        };
        self.request(request, whole(bytes)).await
    }

    /// Sends a request; the answer is a success or an upgrade.
    pub(crate) async fn request(
        &self,
        request: hyper::http::request::Builder,
        body: Body,
    ) -> Result<Response<Incoming>, Error> {
        let request = request.header(HOST, "docker").body(body).map_err(|e| self.unreachable(e))?;
        let answer = match &self.socket {
            Socket::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|e| {
                    self.unreachable(format!("dial unix {}: connect: {}", path.display(), plain(&e)))
                })?;
                exchange(stream, request).await
            }
            Socket::Tcp(address) => {
                let stream = TcpStream::connect(address)
                    .await
                    .map_err(|e| self.unreachable(format!("dial tcp {address}: connect: {}", plain(&e))))?;
                exchange(stream, request).await
            }
            Socket::Program { name, args } => {
                let stream = CommandStream::start(name, args).map_err(|e| self.unreachable(plain(&e)))?;
                exchange(stream, request).await
            }
        };
        let answer = answer.map_err(|e| self.unreachable(reason(&e)))?;
        let status = answer.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        let text = Limited::new(answer.into_body(), MAX_MESSAGE).collect().await;
        let text = text.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let message = serde_json::from_slice::<Message>(&text).map(|m| m.message);
        let message = message.unwrap_or_else(|_| String::from_utf8_lossy(&text).trim().to_owned());
        Err(Error::Engine { status: status.as_u16(), message })
    }

    /// Sends a request after which the connection is a stream of another kind.
    pub(crate) async fn hijack(
        &self,
        path: &str,
        protocol: &str,
        body: Option<serde_json::Value>,
    ) -> Result<TokioIo<Upgraded>, Error> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, protocol)
            .header(CONTENT_TYPE, "application/json");
        let body = body.map_or_else(Bytes::new, |v| Bytes::from(v.to_string()));
        let answer = self.request(request, whole(body)).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.unreachable(format!(
                "{path}: unable to upgrade to {protocol}, received {}",
                answer.status()
            )));
        }
        hyper::upgrade::on(answer).await.map(TokioIo::new).map_err(|e| self.unreachable(e))
    }
}

/// The system's words without the number behind them.
fn plain(e: &io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// What the connection said, below hyper's words, if it said something.
fn reason(e: &hyper::Error) -> String {
    let cause = std::error::Error::source(e).and_then(|e| e.downcast_ref::<io::Error>());
    cause.map_or_else(|| e.to_string(), ToString::to_string)
}

pub(crate) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

async fn exchange<S>(stream: S, request: Request<Body>) -> hyper::Result<Response<Incoming>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with its last request: the sender is dropped when there is an answer.
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await
}

/// What stays as it is in a part of a path or query (RFC 3986, unreserved).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A word as part of a path or query.
pub(crate) fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached_by(script: &str) -> Engine {
        let args = ["-c", script].map(str::to_owned).to_vec();
        Engine { host: "ssh://h".into(), socket: Socket::Program { name: "sh", args } }
    }

    #[test]
    fn the_docker_cli_reaches_what_is_far() {
        let program = |endpoint: Endpoint| match Engine::new(&endpoint).unwrap().socket {
            Socket::Program { name, args } => format!("{name} {}", args.join(" ")),
            near => format!("{near:?}"),
        };
        assert_eq!(program(Endpoint::at("ssh://u@h")), "docker --host ssh://u@h system dial-stdio");
        let tls = Endpoint { tls: true, ..Endpoint::at("tcp://h:2376") };
        assert_eq!(program(tls), "docker --host tcp://h:2376 system dial-stdio");
        assert_eq!(program(Endpoint::at("tcp://h:2375/")), "Tcp(\"h:2375\")");
        assert!(Engine::new(&Endpoint::at("h")).is_err());
    }

    #[tokio::test]
    async fn a_program_is_a_connection() {
        let answer =
            r#"read line; printf 'HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n{"CgroupDriver":"systemd"}'"#;
        assert_eq!(reached_by(answer).info().await.unwrap().cgroup_driver, "systemd");
    }

    #[tokio::test]
    async fn a_program_that_fails_says_why() {
        let error = reached_by("echo Permission denied >&2; exit 255").ping().await.unwrap_err().to_string();
        assert!(error.contains("Permission denied"), "{error}");
    }
}
