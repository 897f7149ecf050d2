//! The whole daemon in this process, with its listeners, and clients of it. No step runs: these need no privileges.

mod bad_input;
mod drain;
mod intake;
mod observe;
mod tls;

use crate::options::{OciOptions, Options};
use crate::serve::{DaemonError, serve};
use crate::settings::Settings;
use crate::stop::Signals;
use hyper_util::rt::TokioIo;
use kiln_proto::control::control_client::ControlClient;
use kiln_proto::{control, pb};
use prost::Message;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

struct Daemon {
    dir: tempfile::TempDir,
    stop: mpsc::Sender<()>,
    ended: JoinHandle<Result<(), DaemonError>>,
}

/// Flags for a state directory: no launcher, for it would run this test as its helper.
fn options(dir: &tempfile::TempDir) -> Options {
    let config = dir.path().join("empty.toml");
    std::fs::write(&config, "").unwrap();
    Options {
        config: Some(config),
        root: Some(dir.path().join("state")),
        addr: vec![format!("unix://{}/s.sock", dir.path().display())],
        oci: OciOptions {
            snapshotter: Some("native".into()),
            binary: Some("true".into()),
            gc: Some(false),
            ..OciOptions::default()
        },
        ..Options::default()
    }
}

impl Daemon {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut o = options(&dir);
        change(&mut o);
        let (stop, signals) = mpsc::channel(4);
        let ended = tokio::spawn(serve(Settings::new(o).unwrap(), Signals::of(signals)));
        let daemon = Self { dir, stop, ended };
        daemon.control().await.info(control::InfoRequest {}).await.unwrap();
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s.sock")
    }

    /// A connection of its own.
    async fn channel(&self) -> Channel {
        let socket = self.socket();
        let connect = async {
            loop {
                let socket = socket.clone();
                let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
                    let socket = socket.clone();
                    async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
                });
                let endpoint = Endpoint::from_static("http://localhost");
                match endpoint.connect_with_connector(connector).await {
                    Ok(channel) => return channel,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        tokio::time::timeout(LIMIT, connect).await.expect("the daemon answers")
    }

    async fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel().await)
    }

    /// Stops it and waits.
    async fn stop(self) -> Result<(), DaemonError> {
        self.stop.send(()).await.unwrap();
        tokio::time::timeout(LIMIT, self.ended).await.expect("ends in time").unwrap()
    }
}

/// A build of nothing, which needs no worker.
fn scratch(id: &str) -> control::SolveRequest {
    control::SolveRequest {
        r#ref: id.into(),
        definition: Some(pb::Definition { def: Vec::new(), ..Default::default() }),
        ..Default::default()
    }
}

/// A build that does not end by itself: its client is to drive it, and does not.
fn endless(id: &str) -> control::SolveRequest {
    control::SolveRequest { r#ref: id.into(), ..Default::default() }
}

/// A vertex that reads a local directory, of a session that may not be there.
fn local_source() -> Vec<u8> {
    let source = pb::SourceOp { identifier: "local://context".into(), ..Default::default() };
    pb::Op { op: Some(pb::op::Op::Source(source)), ..Default::default() }.encode_to_vec()
}
