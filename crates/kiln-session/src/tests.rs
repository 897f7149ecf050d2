//! A daemon and a client over a real HTTP/2 connection in memory.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_digest::Digest;
use kiln_fs::Root;
use kiln_proto::filesync::auth_server::Auth;
use kiln_proto::filesync::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use kiln_proto::secrets::secrets_server::Secrets;
use kiln_proto::secrets::{GetSecretRequest, GetSecretResponse};
use kiln_proto::ssh::ssh_server::Ssh;
use kiln_proto::ssh::{BytesMessage as SshBytes, CheckAgentRequest, CheckAgentResponse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tonic::{Code, Request, Response, Status};

use crate::fsutil::{Compare, DirTree, Filter, ReceiveOptions, Style, TransferError, Update, receive, send};
use crate::*;

struct Client {
    dir: std::path::PathBuf,
}

#[async_trait]
impl FileSync for Client {
    async fn diff_copy(&self, request: DirectoryRequest, stream: RawStream) -> Result<(), Status> {
        if request.name != "context" {
            return Err(Status::not_found(format!("no access allowed to dir {:?}", request.name)));
        }
        let root = Arc::new(Root::open(&self.dir).unwrap());
        let filter = Filter::new(&root, &request)?;
        send(stream, Arc::new(DirTree::new(root).filtered(filter))).await?;
        Ok(())
    }
}

#[async_trait]
impl FileSend for Client {
    async fn diff_copy(&self, target: SendTarget, stream: RawStream) -> Result<(), Status> {
        match target.exporter {
            0 => {
                let root = Root::open(&self.dir).unwrap();
                receive(stream, root, ReceiveOptions::new(Update::Merge, Style::Replace)).await?;
                Ok(())
            }
            1 => {
                let mut all = Vec::new();
                stream.into_pipe().read_to_end(&mut all).await?;
                let name = target.metadata.get("image.name").cloned().unwrap_or_default();
                std::fs::write(self.dir.join(name), all)?;
                Ok(())
            }
            2 => Err(Status::already_exists("target already exists")),
            n => Err(Status::not_found(format!("exporter {n} not found"))),
        }
    }
}

#[async_trait]
impl Secrets for Client {
    async fn get_secret(&self, r: Request<GetSecretRequest>) -> Result<Response<GetSecretResponse>, Status> {
        match r.into_inner().id.as_str() {
            "a" => Ok(Response::new(GetSecretResponse { data: b"s3cret".to_vec() })),
            "big" => Ok(Response::new(GetSecretResponse { data: vec![0; 600 << 10] })),
            id => Err(Status::not_found(format!("{id} not found"))),
        }
    }
}

#[async_trait]
impl Auth for Client {
    async fn credentials(
        &self,
        r: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let secret = format!("for {}", r.into_inner().host);
        Ok(Response::new(CredentialsResponse { username: "me".into(), secret }))
    }

    async fn fetch_token(
        &self,
        _: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        Ok(Response::new(FetchTokenResponse { token: "t".into(), expires_in: 0, issued_at: 5 }))
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(Status::unavailable("client side tokens disabled"))
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Ok(Response::new(VerifyTokenAuthorityResponse { signed: vec![1; 96] }))
    }
}

#[async_trait]
impl Ssh for Client {
    type ForwardAgentStream = futures::stream::BoxStream<'static, Result<SshBytes, Status>>;

    async fn check_agent(
        &self,
        r: Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        let id = r.into_inner().id;
        if id != "default" {
            return Err(Status::unknown(format!("unset ssh forward key {id}")));
        }
        Ok(Response::new(CheckAgentResponse {}))
    }

    async fn forward_agent(
        &self,
        request: Request<tonic::Streaming<SshBytes>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let id = request.metadata().get("buildkit.ssh.id").map(|v| v.as_bytes().to_vec()).unwrap_or_default();
        let hello = futures::stream::iter([Ok(SshBytes { data: [&id[..], b":"].concat() })]);
        Ok(Response::new(Box::pin(futures::StreamExt::chain(hello, request.into_inner()))))
    }
}

struct World {
    manager: SessionManager,
    client: JoinHandle<Result<(), SessionError>>,
    daemon: JoinHandle<Result<(), SessionError>>,
    dir: tempfile::TempDir,
}

/// A connected client with everything, or with health only.
async fn connect(full: bool) -> (World, Session) {
    let dir = tempfile::tempdir().unwrap();
    let client = || Client { dir: dir.path().to_path_buf() };
    let mut server = Server::new();
    if full {
        server = server.file_sync(Arc::new(client())).file_send(Arc::new(client()));
        server = server.secrets(client()).auth(client()).ssh(client()).layouts(Arc::new(layouts(dir.path())));
    }
    let headers = server.headers("id1", "key");
    let (a, b) = tokio::io::duplex(64 << 10);
    let manager = SessionManager::new();
    let client = tokio::spawn(server.serve(a));
    let daemon = tokio::spawn({
        let (manager, headers) = (manager.clone(), headers.clone());
        async move { manager.run(headers, b).await }
    });
    let session = manager.get("prefix:id1", Lookup::Wait).await.unwrap();
    (World { manager, client, daemon, dir }, session)
}

/// A layout that is lent and one to be filled, in the same directory.
fn layouts(dir: &std::path::Path) -> Layouts {
    let open = || Root::open(dir).unwrap();
    let stores = [("oci:a", LayoutDir::lend(open())), ("export", LayoutDir::fill(open()))];
    stores.map(|(id, dir)| (id.to_string(), dir)).into()
}

fn mirror() -> ReceiveOptions {
    ReceiveOptions::new(Update::Mirror(Compare::Metadata), Style::InPlace)
}

#[tokio::test]
async fn typed_calls_reach_the_client() {
    let (_world, s) = connect(true).await;
    assert_eq!((s.id(), s.shared_key()), ("id1", "key"));
    assert!(s.supports("/moby.filesync.v1.FileSync/diffcopy"));
    assert_eq!(s.get_secret("a").await.unwrap(), b"s3cret");
    assert_eq!(s.get_secret("b").await.unwrap_err().to_string(), "secret b: not found");
    assert_eq!(s.get_secret("big").await.unwrap_err().to_string(), "secret big: invalid secret size 614400");
    assert_eq!(
        s.credentials("h").await.unwrap(),
        Credentials { username: "me".into(), secret: "for h".into() }
    );
    let token = s.fetch_token(&TokenRequest::default()).await.unwrap();
    assert_eq!((token.token.as_str(), token.lifetime.as_secs()), ("t", 60));
    assert_eq!(s.token_authority("h", b"salt").await.unwrap(), None);
    assert!(!s.holds_authority("h", b"salt", &[1; 32]).await.unwrap());
    s.check_ssh("default").await.unwrap();
    let error = s.check_ssh("x").await.unwrap_err().to_string();
    assert_eq!(error, r#"ssh agent "x": unset ssh forward key x"#);
    let mut agent = s.forward_ssh("default").unwrap();
    agent.write_all(b"ping").await.unwrap();
    agent.shutdown().await.unwrap();
    let mut answer = String::new();
    agent.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "default:ping");
}

#[tokio::test]
async fn a_client_without_services_gets_typed_errors() {
    let (_world, s) = connect(false).await;
    assert!(matches!(s.get_secret("a").await, Err(SessionError::SecretNotFound(_))));
    assert_eq!(s.credentials("h").await.unwrap(), Credentials::default());
    assert_eq!(s.token_authority("h", b"").await.unwrap(), None);
    let error = s.check_ssh("default").await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    assert_eq!(error.to_string(), r#"ssh agent "default": not offered by the client"#);
    let error = s.diff_copy(&DirectoryRequest::default()).unwrap_err();
    assert_eq!(error.to_string(), "method /moby.filesync.v1.FileSync/DiffCopy not supported by the client");
    assert!(s.send_bytes(&FileRequest::default()).is_err());
    let mut text = String::new();
    let error = s.pull_upload("buildkit-session", "/x").unwrap().read_to_string(&mut text).await.unwrap_err();
    assert!(error.to_string().contains("not implemented"), "{error}");
}

#[tokio::test]
async fn directories_come_over_the_session() {
    let (world, s) = connect(true).await;
    for i in 0..200 {
        std::fs::write(world.dir.path().join(format!("f{i}")), vec![b'x'; i * 100]).unwrap();
    }
    std::fs::write(world.dir.path().join("ümlaut"), "1").unwrap();
    let to = tempfile::tempdir().unwrap();
    let request =
        DirectoryRequest { name: "context".into(), exclude: vec!["ü*".into()], ..Default::default() };
    let stream = s.diff_copy(&request).unwrap();
    let received = receive(stream, Root::open(to.path()).unwrap(), mirror()).await.unwrap();
    assert_eq!((received.entries, received.requested), (200, 200));
    assert_eq!(std::fs::read(to.path().join("f199")).unwrap().len(), 19_900);

    let stream = s.diff_copy(&DirectoryRequest { name: "other".into(), ..Default::default() }).unwrap();
    let error = receive(stream, Root::open(to.path()).unwrap(), mirror()).await.unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.code()),
        (r#"no access allowed to dir "other""#, Some(Code::NotFound))
    );
}

#[tokio::test]
async fn long_header_lists_pass() {
    let (world, s) = connect(true).await;
    std::fs::write(world.dir.path().join("f"), "1").unwrap();
    let exclude = (0..5000).map(|i| format!("some/longer/pattern/{i}/**")).collect();
    let request = DirectoryRequest { name: "context".into(), exclude, ..Default::default() };
    let to = tempfile::tempdir().unwrap();
    let stream = s.diff_copy(&request).unwrap();
    receive(stream, Root::open(to.path()).unwrap(), mirror()).await.unwrap();
    assert!(to.path().join("f").exists());
}

#[tokio::test]
async fn exports_go_over_the_session() {
    let (world, s) = connect(true).await;
    let from = tempfile::tempdir().unwrap();
    std::fs::write(from.path().join("out"), "1").unwrap();
    let stream = s.send_files(&FileRequest::default()).unwrap();
    send(stream, Arc::new(DirTree::new(Arc::new(Root::open(from.path()).unwrap())))).await.unwrap();
    assert_eq!(std::fs::read(world.dir.path().join("out")).unwrap(), b"1");

    let request = FileRequest {
        exporter: 1,
        metadata: [("image.name".to_string(), "name.tar".to_string())].into(),
        ..Default::default()
    };
    let mut upload = s.send_bytes(&request).unwrap();
    upload.write(Bytes::from(vec![5; 5 << 20])).await.unwrap();
    upload.finish().await.unwrap();
    assert_eq!(std::fs::read(world.dir.path().join("name.tar")).unwrap().len(), 5 << 20);

    let upload = s.send_bytes(&FileRequest { exporter: 2, ..Default::default() }).unwrap();
    upload.finish().await.unwrap();
    let upload = s.send_bytes(&FileRequest { exporter: 9, ..Default::default() }).unwrap();
    assert_eq!(upload.finish().await.unwrap_err().message(), "exporter 9 not found");
    let stream = s.send_files(&FileRequest { exporter: 9, ..Default::default() }).unwrap();
    let tree = DirTree::new(Arc::new(Root::open(from.path()).unwrap()));
    assert!(matches!(send(stream, Arc::new(tree)).await, Err(TransferError::Call(_))));
}

#[tokio::test]
async fn a_second_session_with_the_same_id_is_refused() {
    let (world, _s) = connect(true).await;
    let (_a, b) = tokio::io::duplex(1024);
    let error = world.manager.run(Server::new().headers("id1", ""), b).await.unwrap_err();
    assert_eq!(error.to_string(), "session id1 already exists");
    assert_eq!(world.manager.len(), 1);
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_its_session() {
    let (world, s) = connect(true).await;
    world.client.abort();
    s.ended().await;
    let _ = world.daemon.await.unwrap();
    assert!(world.manager.is_empty());
    let error = s.get_secret("a").await.unwrap_err();
    assert!(matches!(error, SessionError::Closed { .. }), "{error}");
    assert!(world.manager.get("id1", Lookup::Now).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_answering_ends_its_session() {
    let (_silent, io) = tokio::io::duplex(1 << 20);
    let manager = SessionManager::new();
    let error = manager.run(Server::new().headers("id2", ""), io).await.unwrap_err();
    let expected = "session id2: session closed: session healthcheck failed fatally: no answer in ";
    assert!(error.to_string().starts_with(expected), "{error}");
    assert!(manager.is_empty());
}

#[tokio::test]
async fn any_asks_the_next_session_when_one_fails() {
    let (world, _s) = connect(true).await;
    let ids = ["id1".to_string(), "x:id1".to_string()];
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let call = |s: Session| {
        let n = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async move { if n == 0 { s.get_secret("none").await } else { s.get_secret("a").await } }
    };
    assert_eq!(world.manager.any(&ids, call).await.unwrap(), b"s3cret");
    let failed = world.manager.any(&ids, |s: Session| async move { s.get_secret("none").await });
    assert!(matches!(failed.await, Err(SessionError::SecretNotFound(_))));
}

#[tokio::test]
async fn a_dropped_transfer_stops_the_client() {
    let (world, s) = connect(true).await;
    std::fs::write(world.dir.path().join("f"), vec![0; 64 << 20]).unwrap();
    let request = DirectoryRequest { name: "context".into(), ..Default::default() };
    let to = tempfile::tempdir().unwrap();
    let transfer = receive(s.diff_copy(&request).unwrap(), Root::open(to.path()).unwrap(), mirror());
    let _ = tokio::time::timeout(std::time::Duration::from_millis(20), transfer).await;
    // The connection is still good for other calls.
    assert_eq!(s.get_secret("a").await.unwrap(), b"s3cret");
}

#[tokio::test]
async fn blobs_travel_to_a_layout_and_back() {
    let (world, s) = connect(true).await;
    let data: Vec<u8> = (0..2_500_000u32).map(|i| (i % 251) as u8).collect();
    let digest = Digest::sha256(&data);
    let (export, lent) = (s.content("export"), s.content("oci:a"));
    assert!(lent.size(&digest).await.unwrap_err().is_missing());
    export.write(&digest, data.len() as u64, &data[..]).await.unwrap();
    // A blob that is there already is not sent again.
    export.write(&digest, data.len() as u64, tokio::io::empty()).await.unwrap();
    let blob = lent.open(&digest).await.unwrap();
    assert_eq!(blob.size, data.len() as u64);
    let pieces: Vec<Bytes> = futures::TryStreamExt::try_collect(blob.data).await.unwrap();
    assert_eq!(pieces.concat(), data);
    let names: Vec<_> = std::fs::read_dir(world.dir.path().join("blobs/sha256")).unwrap().collect();
    assert_eq!(names.len(), 1);
    let empty = Digest::sha256(b"");
    export.write(&empty, 0, tokio::io::empty()).await.unwrap();
    assert_eq!(lent.size(&empty).await.unwrap(), 0);
}

#[tokio::test]
async fn a_layout_takes_only_what_it_may() {
    let (world, s) = connect(true).await;
    let digest = Digest::sha256(b"right");
    let wrong = s.content("export").write(&digest, 5, &b"wrong"[..]).await.unwrap_err().to_string();
    assert!(wrong.contains("unexpected commit digest"), "{wrong}");
    let short = s.content("export").write(&digest, 9, &b"right"[..]).await.unwrap_err().to_string();
    assert!(short.contains("unexpected commit size 5, expected 9"), "{short}");
    let lent = s.content("oci:a").write(&digest, 5, &b"right"[..]).await.unwrap_err().to_string();
    assert!(lent.contains("only lent"), "{lent}");
    let other = s.content("oci:b").size(&digest).await.unwrap_err().to_string();
    assert!(other.contains("unknown store oci:b"), "{other}");
    let left = std::fs::read_dir(world.dir.path().join("blobs/sha256")).unwrap().count();
    assert_eq!(left, 0, "no partial blob stays");
    let (_world, bare) = connect(false).await;
    assert!(bare.content("export").size(&digest).await.unwrap_err().to_string().contains("not supported"));
}

#[tokio::test]
async fn a_client_without_exporters_asks_for_none() {
    let (_world, s) = connect(true).await;
    assert_eq!(s.find_exporters(&Default::default(), vec!["r".into()]).await.unwrap(), []);
    s.finalize_export(&Default::default()).await.unwrap();
}

#[tokio::test]
async fn a_session_is_settled_when_its_client_has_answered() {
    let manager = SessionManager::new();
    let settling = tokio::spawn({
        let manager = manager.clone();
        async move { manager.settle("late").await }
    });
    tokio::task::yield_now().await;
    assert!(!settling.is_finished());
    let server = Server::new();
    let headers = server.headers("late", "");
    let (a, b) = tokio::io::duplex(64 << 10);
    let _client = tokio::spawn(server.serve(a));
    let _daemon = tokio::spawn({
        let manager = manager.clone();
        async move { manager.run(headers, b).await }
    });
    settling.await.unwrap();
    assert_eq!(manager.len(), 1);
    // A build does not end later than this for a client that never comes.
    let begun = std::time::Instant::now();
    manager.settle("never").await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(60));
}
