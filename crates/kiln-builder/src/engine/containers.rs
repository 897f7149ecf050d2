//! Containers, what runs in them, and their volumes.

use std::io;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::header::CONTENT_TYPE;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::io::StreamReader;

use super::{Demux, Engine, escape, whole};
use crate::Error;

/// A container to be made: bodies of `Config` and `HostConfig`.
#[derive(Debug)]
pub(crate) struct ContainerSpec {
    pub(crate) config: Value,
    pub(crate) host: Value,
}

/// What `GET /containers/<name>/json` says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ContainerState {
    pub(crate) state: State,
    #[serde(default)]
    pub(crate) mounts: Vec<Mount>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct State {
    pub(crate) running: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Mount {
    #[serde(default)]
    pub(crate) name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ExecState {
    exit_code: Option<i64>,
}

/// What a command in a container said, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) exit_code: i64,
}

impl Engine {
    /// None = there is no such container.
    pub(crate) async fn container(&self, name: &str) -> Result<Option<ContainerState>, Error> {
        match self.json(Method::GET, &format!("/containers/{}/json", escape(name)), None).await {
            Ok(state) => Ok(Some(state)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// False = there is one of this name.
    pub(crate) async fn create_container(&self, name: &str, spec: ContainerSpec) -> Result<bool, Error> {
        let mut body = spec.config;
        body["HostConfig"] = spec.host;
        let path = format!("/containers/create?name={}", escape(name));
        match self.json::<Created>(Method::POST, &path, Some(body)).await {
            Ok(_) => Ok(true),
            Err(Error::Engine { status: 409, .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    pub(crate) async fn start_container(&self, name: &str) -> Result<(), Error> {
        let path = format!("/containers/{}/start", escape(name));
        self.send(Method::POST, &path, None).await.map(drop)
    }

    pub(crate) async fn stop_container(&self, name: &str) -> Result<(), Error> {
        let path = format!("/containers/{}/stop", escape(name));
        self.send(Method::POST, &path, None).await.map(drop)
    }

    /// Removes a container, running or not, and its anonymous volumes.
    pub(crate) async fn remove_container(&self, name: &str) -> Result<(), Error> {
        let path = format!("/containers/{}?force=1&v=1", escape(name));
        self.send(Method::DELETE, &path, None).await.map(drop)
    }

    pub(crate) async fn remove_volume(&self, name: &str) -> Result<(), Error> {
        self.send(Method::DELETE, &format!("/volumes/{}", escape(name)), None).await.map(drop)
    }

    /// Unpacks an archive in a container.
    pub(crate) async fn copy_to(&self, name: &str, dir: &str, archive: Vec<u8>) -> Result<(), Error> {
        let path = format!("/containers/{}/archive?path={}", escape(name), escape(dir));
        let request =
            Request::builder().method(Method::PUT).uri(path).header(CONTENT_TYPE, "application/x-tar");
        self.request(request, whole(Bytes::from(archive))).await.map(drop)
    }

    /// What a container said so far: stdout and stderr.
    pub(crate) async fn logs(&self, name: &str) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let path = format!("/containers/{}/logs?stdout=1&stderr=1&tail=200", escape(name));
        let answer = self.send(Method::GET, &path, None).await?;
        let stream = answer.into_body().into_data_stream();
        let stream = futures::TryStreamExt::map_err(stream, io::Error::other);
        Demux::new(StreamReader::new(stream)).collect().await.map_err(|e| self.unreachable(e))
    }

    /// Starts a command in a container; the stream carries its three streams.
    pub(crate) async fn exec(
        &self,
        name: &str,
        command: &[&str],
    ) -> Result<(String, TokioIo<Upgraded>), Error> {
        let body = json!({"Cmd": command, "AttachStdin": true, "AttachStdout": true, "AttachStderr": true});
        let path = format!("/containers/{}/exec", escape(name));
        let exec: Created = self.json(Method::POST, &path, Some(body)).await?;
        let path = format!("/exec/{}/start", escape(&exec.id));
        let stream = self.hijack(&path, "tcp", Some(json!({"Detach": false, "Tty": false}))).await?;
        Ok((exec.id, stream))
    }

    /// Runs a command in a container to its end.
    pub(crate) async fn run(&self, name: &str, command: &[&str]) -> Result<Ran, Error> {
        let (id, stream) = self.exec(name, command).await?;
        let (stdout, stderr) = Demux::new(stream).collect().await.map_err(|e| self.unreachable(e))?;
        let state: ExecState = self.json(Method::GET, &format!("/exec/{}/json", escape(&id)), None).await?;
        Ok(Ran { stdout, stderr, exit_code: state.exit_code.unwrap_or(-1) })
    }
}
