//! Images of an engine.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response};
use kiln_client::{DockerConfig, Login, OutputWriter};
use kiln_oci::Reference;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio_util::io::{ReaderStream, StreamReader};
use tokio_util::task::AbortOnDropHandle;

use super::{Engine, escape, whole};
use crate::Error;

/// Bytes in flight of an archive.
const PIPE: usize = 1 << 20;
/// Longest message of an engine, in bytes.
const MAX_LINE: usize = 1 << 20;
const AUTH: &str = "X-Registry-Auth";

#[derive(Deserialize)]
struct Progress {
    error: Option<String>,
    stream: Option<String>,
}

/// An archive that is being loaded into an engine.
#[derive(Debug)]
pub struct ImageLoad {
    /// Takes the archive, once.
    pub writer: OutputWriter,
    done: AbortOnDropHandle<Result<String, Error>>,
}

impl ImageLoad {
    /// Waits until the engine has taken the archive; what it says of it.
    ///
    /// # Errors
    /// The engine refused the archive.
    pub async fn finish(self) -> Result<String, Error> {
        drop(self.writer);
        self.done.await.map_err(|e| Error::Invalid(format!("loading into the engine: {e}")))?
    }

    /// Why the engine does not take the archive; None = it would have taken it. Waits until it is known.
    pub async fn refused(self) -> Option<Error> {
        // The writer stays open: an archive that ends early is refused for that, and not by the engine's fault.
        let Self { writer, done } = self;
        let refused = done.await.ok()?.err();
        drop(writer);
        refused
    }
}

impl Engine {
    /// Begins to load an archive.
    pub fn load(&self) -> ImageLoad {
        let (to, from) = tokio::io::duplex(PIPE);
        let engine = self.clone();
        let load = async move {
            let body = futures::StreamExt::map(ReaderStream::new(from), |data| data.map(Frame::data));
            let request = Request::builder()
                .method(Method::POST)
                .uri("/images/load?quiet=1")
                .header(CONTENT_TYPE, "application/x-tar");
            let answer = engine.request(request, StreamBody::new(body).boxed()).await?;
            engine.messages(answer).await
        };
        ImageLoad { writer: OutputWriter::new(to), done: AbortOnDropHandle::new(tokio::spawn(load)) }
    }

    /// Whether it has an image.
    pub(crate) async fn has_image(&self, name: &str) -> Result<bool, Error> {
        match self.send(Method::GET, &format!("/images/{}/json", escape(name)), None).await {
            Ok(_) => Ok(true),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Pulls an image with the credentials of this user.
    pub(crate) async fn pull(&self, name: &str, logins: &DockerConfig) -> Result<(), Error> {
        let reference = reference(name)?;
        // The name carries tag or digest; without one it would mean all tags.
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/images/create?fromImage={}", escape(&reference.to_string())))
            .header(AUTH, auth(&reference, logins).await?);
        let answer = self.request(request, whole(Bytes::new())).await?;
        self.messages(answer).await.map(drop)
    }

    /// Pushes an image that the engine has, with the credentials of this user.
    ///
    /// # Errors
    /// The registry or the engine refuses it.
    pub async fn push(&self, name: &str, logins: &DockerConfig) -> Result<(), Error> {
        let reference = reference(name)?;
        let tag = reference.tag().unwrap_or_default();
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/images/{}/push?tag={}", reference.name(), escape(tag)))
            .header(AUTH, auth(&reference, logins).await?);
        let answer = self.request(request, whole(Bytes::new())).await?;
        self.messages(answer).await.map(drop)
    }

    /// Reads messages to their end; the last text, or the error that is among them.
    async fn messages(&self, answer: Response<Incoming>) -> Result<String, Error> {
        let stream = futures::TryStreamExt::map_err(answer.into_body().into_data_stream(), io::Error::other);
        let mut lines = BufReader::new(StreamReader::new(stream));
        let (mut line, mut text) = (Vec::new(), String::new());
        loop {
            line.clear();
            let mut limited = tokio::io::AsyncReadExt::take(&mut lines, MAX_LINE as u64);
            if limited.read_until(b'\n', &mut line).await.map_err(|e| self.unreachable(e))? == 0 {
                return Ok(text);
            }
            let Ok(message) = serde_json::from_slice::<Progress>(&line) else { continue };
            if let Some(message) = message.error {
                return Err(Error::Engine { status: 500, message });
            }
            text.extend(message.stream);
        }
    }
}

fn reference(name: &str) -> Result<Reference, Error> {
    let reference = Reference::parse_docker(name).map_err(|e| Error::Invalid(e.to_string()))?;
    Ok(reference.with_default_tag())
}

/// The credentials for an image's registry, as the engine wants them.
async fn auth(reference: &Reference, logins: &DockerConfig) -> Result<String, Error> {
    let (host, server) = match reference.domain() {
        "docker.io" => ("registry-1.docker.io", "https://index.docker.io/v1/"),
        other => (other, other),
    };
    let login = logins.login(host).await.map_err(|e| Error::Invalid(e.to_string()))?;
    let auth = match login {
        Login::Anonymous => json!({}),
        Login::Password(user, password) => {
            json!({"username": user, "password": password, "serveraddress": server})
        }
        Login::IdentityToken(token) => json!({"identitytoken": token, "serveraddress": server}),
        Login::RegistryToken(token) => json!({"registrytoken": token, "serveraddress": server}),
    };
    Ok(URL_SAFE.encode(auth.to_string()))
}
