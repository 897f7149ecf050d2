//! Clients that answer what none should.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use kiln_digest::Digest;
use kiln_proto::containerd::{Info, InfoResponse, ReadContentResponse, WriteContentResponse, method};
use prost::Message;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

use crate::files::answer;
use crate::raw::FILE_SEND;
use crate::*;

const LIMIT: Duration = Duration::from_secs(60);

type Messages = Vec<Result<Bytes, Status>>;

/// A content store that answers each method with the messages made for it.
#[derive(Clone)]
struct Store(Arc<dyn Fn(&str) -> Messages + Send + Sync>);

impl NamedService for Store {
    const NAME: &'static str = "containerd.services.content.v1.Content";
}

impl Service<Request<Body>> for Store {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_string();
        let messages = (self.0)(&path);
        answer(&path, request, move |_, mut stream| {
            Box::pin(async move {
                let _ = stream.incoming.next().await;
                for message in messages {
                    let _ = stream.outgoing.send(message?).await;
                }
                Ok(())
            })
        })
    }
}

async fn connect(server: Server) -> (SessionManager, Session) {
    let headers = server.headers("id", "");
    let manager = SessionManager::new();
    let (a, b) = tokio::io::duplex(64 << 10);
    tokio::spawn(server.serve(a));
    let daemon = manager.clone();
    tokio::spawn(async move { daemon.run(headers, b).await });
    let session = manager.get("id", Lookup::Wait).await.unwrap();
    (manager, session)
}

fn store(messages: impl Fn(&str) -> Messages + Send + Sync + 'static) -> Server {
    Server::new().with(Store(Arc::new(messages)), &[method::INFO, method::READ, method::WRITE])
}

fn info(size: i64) -> Bytes {
    let info = Info { size, ..Info::default() };
    InfoResponse { info: Some(info) }.encode_to_vec().into()
}

fn piece(offset: i64, data: &[u8]) -> Bytes {
    ReadContentResponse { offset, data: data.to_vec() }.encode_to_vec().into()
}

/// Reads a blob of three bytes whose pieces are these.
async fn read(pieces: Messages) -> Result<Vec<u8>, String> {
    let pieces = std::sync::Mutex::new(Some(pieces));
    let server = store(move |path| match path {
        method::INFO => vec![Ok(info(3))],
        _ => pieces.lock().unwrap().take().unwrap_or_default(),
    });
    let (_manager, session) = connect(server).await;
    let blob = session.content("s").open(&Digest::sha256("x")).await.map_err(|e| e.to_string())?;
    let mut all = Vec::new();
    let mut data = blob.data;
    while let Some(piece) = tokio::time::timeout(LIMIT, data.next()).await.expect("it ends") {
        all.extend_from_slice(&piece.map_err(|e| e.to_string())?);
    }
    Ok(all)
}

#[tokio::test]
async fn sizes_that_cannot_be() {
    let digest = Digest::sha256("x");
    let cases: [(Messages, &str); 6] = [
        (vec![Ok(info(-1))], "no size in the answer"),
        (vec![Ok(info(i64::MIN))], "no size in the answer"),
        (vec![Ok(Bytes::new())], "no size in the answer"),
        (vec![Ok(Bytes::from_static(&[0xff; 40]))], "malformed message"),
        (vec![], "without an answer"),
        (vec![Err(Status::not_found("x".repeat(10_000)))], "x"),
    ];
    for (messages, wanted) in cases {
        let messages = std::sync::Mutex::new(Some(messages));
        let (_manager, session) = connect(store(move |_| messages.lock().unwrap().take().unwrap())).await;
        let error = session.content("s").size(&digest).await.unwrap_err().to_string();
        assert!(error.contains(wanted) && error.contains(&digest.to_string()), "{error}");
    }
}

#[tokio::test]
async fn pieces_out_of_place() {
    assert_eq!(read(vec![Ok(piece(0, b"ab")), Ok(piece(2, b"c"))]).await.unwrap(), b"abc");
    for (pieces, wanted) in [
        (vec![Ok(piece(-1, b"a"))], "byte -1 instead of 0"),
        (vec![Ok(piece(i64::MAX, b"a"))], "instead of 0"),
        (vec![Ok(piece(0, b"ab")), Ok(piece(1, b"bc"))], "byte 1 instead of 2"),
        (vec![Ok(piece(0, b"ab")), Ok(piece(0, b"ab"))], "byte 0 instead of 2"),
        (vec![Ok(Bytes::from_static(&[0xff; 9]))], "malformed message"),
        (vec![Ok(piece(0, b"ab")), Err(Status::data_loss("gone"))], "gone"),
        (vec![Ok(piece(0, &vec![0; 5 << 20]))], "limit"),
    ] {
        let error = read(pieces).await.unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
}

/// Clients that say they have taken another part of a blob than they were sent.
#[tokio::test]
async fn a_store_that_keeps_something_else() {
    let digest = Digest::sha256("abc");
    for offset in [-1, 0, 2, 4, i64::MAX] {
        let written = WriteContentResponse { offset, ..WriteContentResponse::default() }.encode_to_vec();
        let (_manager, session) = connect(store(move |_| vec![Ok(written.clone().into()); 9])).await;
        let store = session.content("s");
        let write = store.write(&digest, 3, &b"abc"[..]);
        let error = tokio::time::timeout(LIMIT, write).await.expect("it ends").unwrap_err().to_string();
        assert!(
            error.contains(&format!("kept {offset} of 3 bytes")) && error.contains(&digest.to_string()),
            "{error}"
        );
    }
}

struct Reads;

#[async_trait::async_trait]
impl FileSend for Reads {
    async fn diff_copy(&self, target: SendTarget, _: RawStream) -> Result<(), Status> {
        match target.exporter {
            0 => Ok(()),
            1 => Err(Status::new(Code::from_i32(77), "strange")),
            _ => Err(Status::data_loss("e".repeat(100_000))),
        }
    }
}

/// The archive is neither taken for delivered nor sent for ever.
#[tokio::test]
async fn calls_that_end_before_their_data() {
    let (_manager, session) = connect(Server::new().file_send(Arc::new(Reads))).await;
    for exporter in 0..3 {
        let mut upload = session.send_bytes(&FileRequest { exporter, ..FileRequest::default() }).unwrap();
        let all = async {
            for _ in 0..1000 {
                upload.write(Bytes::from_static(&[0; 1 << 16])).await?;
            }
            upload.finish().await
        };
        let ended = tokio::time::timeout(LIMIT, all).await.expect("it ends");
        assert!(ended.is_err(), "exporter {exporter}");
    }
    assert!(session.supports(FILE_SEND));
}

/// What the other side of a transfer says is for people, in words and not in megabytes.
#[tokio::test]
async fn long_words_are_cut() {
    use crate::fsutil::{DirTree, Packet, TransferError, send};
    let dir = tempfile::tempdir().unwrap();
    let tree = Arc::new(DirTree::new(Arc::new(kiln_fs::Root::open(dir.path()).unwrap())));
    let (ours, theirs) = RawStream::pair();
    theirs.outgoing.send(Packet::Error("x".repeat(3 << 20)).encode()).await.unwrap();
    match send(ours, tree).await.unwrap_err() {
        TransferError::Receiver(text) => assert!(text.len() < 100_000, "{} bytes", text.len()),
        other => panic!("{other}"),
    }
}

/// There are only so many sessions, and the first ones stay.
#[tokio::test]
async fn sessions_are_bounded() {
    let manager = SessionManager::new();
    let mut sessions = Vec::new();
    let mut refused = None;
    for n in 0..6000 {
        let headers = Server::new().headers(&format!("s{n}"), "");
        let (client, io) = tokio::io::duplex(64);
        // Whoever polls much at once is made to wait.
        tokio::task::yield_now().await;
        let mut running = Box::pin({
            let manager = manager.clone();
            async move { manager.run(headers, io).await }
        });
        // Registers at once, or never.
        if let Poll::Ready(end) = futures::poll!(&mut running) {
            refused = end.err();
            break;
        }
        sessions.push((client, running));
    }
    assert!(manager.len() > 1000, "{}", manager.len());
    let refused = refused.expect("an end");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    sessions.pop();
    tokio::task::yield_now().await;
    let (_client, io) = tokio::io::duplex(64);
    let mut next = Box::pin(manager.run(Server::new().headers("next", ""), io));
    assert!(futures::poll!(&mut next).is_pending());
    assert!(manager.get("next", Lookup::Now).await.is_ok());
}
