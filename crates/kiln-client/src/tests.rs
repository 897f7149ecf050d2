//! Whole builds against a daemon in memory that only moves files.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kiln_digest::Digest;
use kiln_fs::Root;
use kiln_llb::errdefs::Code;
use kiln_progress::Update;
use kiln_proto::control::control_server::{Control, ControlServer};
use kiln_proto::control::{PruneRequest as PruneRequestWire, *};
use kiln_proto::google::protobuf::Any;
use kiln_proto::google::rpc;
use kiln_session::fsutil::{Compare, DirTree, ReceiveOptions, Style, Update as How, receive, send};
use kiln_session::{DirectoryRequest, FileRequest, Lookup, SessionManager};
use prost::Message;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use crate::{BuildRequest, Client, Export, LocalDir, Output, PruneRequest, SecretOrigin, SecretSource, Work};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

#[derive(Clone)]
struct Daemon {
    sessions: SessionManager,
    /// Dropped with the last running build.
    running: Arc<()>,
}

impl Daemon {
    async fn build(&self, request: SolveRequest) -> Result<SolveResponse, Status> {
        let session = self.sessions.get(&request.session, Lookup::Wait).await?;
        match request.frontend.as_str() {
            "fail" => Err(failure()),
            "hang" => std::future::pending().await,
            _ => {
                let dir = tempfile::tempdir()?;
                let stream =
                    session.diff_copy(&DirectoryRequest { name: "context".into(), ..Default::default() })?;
                let options = ReceiveOptions::new(How::Mirror(Compare::Metadata), Style::InPlace);
                receive(stream, open(dir.path()), options).await?;
                let secret = session.get_secret("s").await?;
                std::fs::write(dir.path().join("secret"), secret)?;
                for exporter in 0..request.exporters.len() {
                    let to = FileRequest { exporter, ..Default::default() };
                    if request.exporters[exporter].r#type == "local" {
                        let tree = DirTree::new(Arc::new(open(dir.path())));
                        send(session.send_files(&to)?, Arc::new(tree)).await?;
                    } else {
                        let mut upload = session.send_bytes(&to)?;
                        upload.write(b"archive".as_slice().into()).await?;
                        upload.finish().await?;
                    }
                }
                Ok(SolveResponse { exporter_response: [("k".to_string(), "v".to_string())].into() })
            }
        }
    }
}

fn open(dir: &Path) -> Root {
    Root::open(dir).unwrap()
}

fn failure() -> Status {
    let detail = Any {
        type_url: "github.com/moby/buildkit/errdefs.Vertex+json".into(),
        value: format!(r#"{{"digest":"{}"}}"#, Digest::sha256("v")).into(),
    };
    let wire = rpc::Status { code: 5, message: "boom".into(), details: vec![detail] };
    Status::with_details(tonic::Code::NotFound, "boom", wire.encode_to_vec().into())
}

#[tonic::async_trait]
impl Control for Daemon {
    type PruneStream = Answers<UsageRecord>;
    type StatusStream = Answers<StatusResponse>;
    type SessionStream = Answers<BytesMessage>;
    type ListenBuildHistoryStream = Answers<BuildHistoryEvent>;

    async fn disk_usage(&self, r: Request<DiskUsageRequest>) -> Answer<DiskUsageResponse> {
        let record = UsageRecord {
            id: "one".into(),
            size: 5,
            description: r.into_inner().filter.join(","),
            ..Default::default()
        };
        Ok(Response::new(DiskUsageResponse { record: vec![record] }))
    }

    async fn prune(&self, _: Request<PruneRequestWire>) -> Answer<Self::PruneStream> {
        let records = [
            Ok(UsageRecord { id: "gone".into(), ..Default::default() }),
            Err(Status::unknown("disk on fire")),
        ];
        Ok(Response::new(Box::pin(futures::stream::iter(records))))
    }

    async fn solve(&self, r: Request<SolveRequest>) -> Answer<SolveResponse> {
        let _running = self.running.clone();
        self.build(r.into_inner()).await.map(Response::new)
    }

    async fn status(&self, r: Request<StatusRequest>) -> Answer<Self::StatusStream> {
        let vertex = Vertex {
            digest: Digest::sha256("v").to_string(),
            name: r.into_inner().r#ref,
            ..Default::default()
        };
        let status = StatusResponse { vertexes: vec![vertex], ..Default::default() };
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(status)]))))
    }

    async fn session(&self, r: Request<Streaming<BytesMessage>>) -> Answer<Self::SessionStream> {
        let (metadata, _, stream) = r.into_parts();
        Ok(Response::new(Box::pin(self.sessions.accept(&metadata, stream)?)))
    }

    async fn list_workers(&self, _: Request<ListWorkersRequest>) -> Answer<ListWorkersResponse> {
        let platform = kiln_proto::pb::Platform {
            architecture: "amd64".into(),
            os: "linux".into(),
            ..Default::default()
        };
        let record = kiln_proto::worker::WorkerRecord {
            id: "w".into(),
            platforms: vec![platform],
            ..Default::default()
        };
        Ok(Response::new(ListWorkersResponse { record: vec![record] }))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Answer<InfoResponse> {
        Err(Status::unimplemented("old daemon"))
    }

    async fn listen_build_history(
        &self,
        _: Request<BuildHistoryRequest>,
    ) -> Answer<Self::ListenBuildHistoryStream> {
        Err(Status::unimplemented("not here"))
    }

    async fn update_build_history(
        &self,
        _: Request<UpdateBuildHistoryRequest>,
    ) -> Answer<UpdateBuildHistoryResponse> {
        Err(Status::unimplemented("not here"))
    }
}

async fn world() -> (Client, Daemon) {
    let daemon = Daemon { sessions: SessionManager::new(), running: Arc::new(()) };
    let (near, far) = tokio::io::duplex(64 << 10);
    let incoming = futures::stream::iter([Ok::<_, std::io::Error>(far)]).chain(futures::stream::pending());
    let server = tonic::transport::Server::builder().add_service(ControlServer::new(daemon.clone()));
    tokio::spawn(server.serve_with_incoming(incoming));
    (Client::from_duplex(near).await.unwrap(), daemon)
}

fn request(frontend: &str) -> BuildRequest {
    BuildRequest::new(Work::Frontend {
        name: frontend.into(),
        attrs: Default::default(),
        inputs: Default::default(),
    })
}

fn updates() -> (mpsc::Sender<Update>, mpsc::Receiver<Update>) {
    mpsc::channel(16)
}

#[tokio::test]
async fn a_build_reads_the_context_and_delivers_its_exports() {
    let (client, daemon) = world().await;
    let (context, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(context.path().join("file"), "1").unwrap();
    std::fs::write(context.path().join("private"), "1").unwrap();
    let mut build = request("move");
    build.reference = "mine".into();
    let dir = LocalDir { path: context.path().into(), exclude: vec!["private".into()] };
    build.local_dirs.insert("context".into(), dir);
    build.secrets = vec![SecretSource { id: "s".into(), origin: SecretOrigin::Value(b"shh".to_vec()) }];
    let export = |kind: &str, output| Export { kind: kind.into(), attrs: Default::default(), output };
    let files = out.path().join("new/files");
    build.exports = vec![
        export("local", Output::Dir { path: files.clone(), delete: false }),
        export("tar", Output::File(out.path().join("x.tar"))),
    ];
    let (tx, mut rx) = updates();
    let done = client.solve(build, tx).await.unwrap();
    assert_eq!((done.reference.as_str(), done.exporter_response["k"].as_str()), ("mine", "v"));
    assert_eq!(std::fs::read(files.join("file")).unwrap(), b"1");
    assert_eq!(std::fs::read(files.join("secret")).unwrap(), b"shh");
    assert!(!files.join("private").exists());
    assert_eq!(std::fs::read(out.path().join("x.tar")).unwrap(), b"archive");
    assert_eq!(rx.recv().await.unwrap().vertexes[0].name, "mine");
    assert!(rx.recv().await.is_none());
    tokio::time::timeout(Duration::from_secs(60), async {
        while !daemon.sessions.is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("the session outlives the build");
}

#[tokio::test]
async fn errors_come_with_their_details() {
    let (client, _daemon) = world().await;
    // Nobody listens to the progress.
    let error = client.solve(request("fail"), updates().0).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (Code::NotFound, "failed to solve: boom"));
    assert_eq!(error.vertex(), Some(Digest::sha256("v")));
    let error = client.solve(request("move"), updates().0).await.unwrap_err();
    assert!(error.message.contains("FileSync/DiffCopy not supported by the client"), "{error}");
}

#[tokio::test]
async fn a_dropped_build_stops_at_the_daemon() {
    let (client, daemon) = world().await;
    let build = client.solve(request("hang"), updates().0);
    assert!(tokio::time::timeout(Duration::from_millis(100), build).await.is_err());
    tokio::time::timeout(Duration::from_secs(60), async {
        while !daemon.sessions.is_empty() || Arc::strong_count(&daemon.running) > 2 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("the build goes on without us");
}

#[tokio::test]
async fn questions_are_answered_or_fail_with_a_name() {
    let (client, _daemon) = world().await;
    let records = client.disk_usage(&["a".into(), "b".into()]).await.unwrap();
    assert_eq!((records[0].id.as_str(), records[0].size, records[0].description.as_str()), ("one", 5, "a,b"));
    let workers = client.workers(&[]).await.unwrap();
    assert_eq!(workers[0].platforms[0].to_string(), "linux/amd64");
    let error = client.info().await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (Code::Unimplemented, "failed to call info: old daemon")
    );
    let mut pruned = Box::pin(client.prune(&PruneRequest::default()).await.unwrap());
    assert_eq!(pruned.next().await.unwrap().unwrap().id, "gone");
    assert_eq!(pruned.next().await.unwrap().unwrap_err().message, "failed to call prune: disk on fire");
}
