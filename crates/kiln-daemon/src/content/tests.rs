//! The service as a client sees it.

use super::*;
use futures::{StreamExt, TryStreamExt};
use kiln_client::Client;
use kiln_content::Db;
use kiln_llb::errdefs::Code;
use kiln_proto::containerd::method;
use tempfile::TempDir;
use tonic::codegen::http::uri::PathAndQuery;

struct Served {
    dir: TempDir,
    content: ContentStore,
    client: Client,
    channel: tonic::transport::Channel,
}

async fn served() -> Served {
    let dir = TempDir::new().unwrap();
    let content = ContentStore::open(dir.path(), Db::in_memory().unwrap()).unwrap();
    let socket = dir.path().join("s");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let router = tonic::transport::Server::builder().add_service(ContentService::new(content.clone()));
    tokio::spawn(router.serve_with_incoming(tokio_stream::wrappers::UnixListenerStream::new(listener)));
    let stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
    let client = Client::from_stream(stream).await.unwrap();
    let endpoint = tonic::transport::Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
    Served { dir, content, client, channel: endpoint.connect().await.unwrap() }
}

impl Served {
    async fn read(&self, digest: &Digest, offset: i64, size: Option<i64>) -> Result<Vec<u8>, Code> {
        let read = async {
            let parts = self.client.read_blob(&digest.to_string(), offset, size).await?;
            parts.try_concat().await
        };
        read.await.map_err(|e| e.code)
    }

    async fn call<Q: Message + Default + 'static>(&self, path: &'static str, request: Q) -> Status {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        let codec = ProstCodec::<Q, Empty>::default();
        grpc.unary(Request::new(request), PathAndQuery::from_static(path), codec).await.unwrap_err()
    }
}

#[tokio::test]
async fn blobs_are_read_in_ranges() {
    let s = served().await;
    let data: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let digest = s.content.put(&data).unwrap();
    let info = s.client.blob_info(&digest.to_string()).await.unwrap();
    assert_eq!((info.digest, info.size), (digest.to_string(), 3_000_000));
    for (offset, size, want) in [
        (0, None, &data[..]),
        (0, Some(0), &data),
        (-5, Some(-5), &data),
        (0, Some(10), &data[..10]),
        (1_999_999, Some(2), &data[1_999_999..2_000_001]),
        (2_999_990, Some(i64::MAX), &data[2_999_990..]),
        (3_000_000, None, &[]),
    ] {
        assert!(s.read(&digest, offset, size).await.unwrap() == want, "{offset} {size:?}");
    }
    assert_eq!(s.read(&digest, 3_000_001, None).await, Err(Code::OutOfRange));
    assert_eq!(s.read(&digest, i64::MAX, None).await, Err(Code::OutOfRange));
    assert_eq!(s.read(&Digest::sha256("no"), 0, None).await, Err(Code::NotFound));
    let empty = s.content.put(b"").unwrap();
    assert_eq!(s.read(&empty, 0, None).await, Ok(Vec::new()));
}

#[tokio::test]
async fn blobs_are_listed_by_filters() {
    let s = served().await;
    for n in 0..250_u32 {
        let digest = s.content.put(&n.to_le_bytes()).unwrap();
        if n < 3 {
            s.content.set_label(&digest, "kind", Some("first")).unwrap();
        }
    }
    let count = async |filters: &[String]| s.client.blobs(filters).await.unwrap().count().await;
    assert_eq!(count(&[]).await, 250);
    assert_eq!(count(&["labels.kind==first".into()]).await, 3);
    assert_eq!(count(&["size==4".into()]).await, 250);
    assert_eq!(count(&[format!("digest=={}", Digest::sha256(7_u32.to_le_bytes()))]).await, 1);
    assert_eq!(count(&["digest==x".into()]).await, 0);
    let error = s.client.blobs(&["=".into()]).await.err().unwrap();
    assert_eq!(error.code, Code::InvalidArgument);
}

#[tokio::test]
async fn what_is_no_digest_is_refused() {
    let s = served().await;
    let random = format!("random:{}", Digest::sha256("x").hex());
    for bad in ["", "sha256:", "../../etc/passwd", "sha256:../x", "md5:abc", "sha512:aa", &random] {
        let error = s.client.blob_info(bad).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{bad}");
        assert_eq!(
            s.client.read_blob(bad, 0, None).await.err().unwrap().code,
            Code::InvalidArgument,
            "{bad}"
        );
    }
}

#[tokio::test]
async fn nothing_can_be_written() {
    let s = served().await;
    let digest = s.content.put(b"x").unwrap();
    let info = Info { digest: digest.to_string(), ..Info::default() };
    let read_only = |status: Status| {
        assert_eq!((status.code(), status.message()), (tonic::Code::Unknown, "read-only content store"));
    };
    read_only(s.call(method::UPDATE, UpdateRequest { info: Some(info) }).await);
    read_only(s.call(method::DELETE, DeleteContentRequest { digest: digest.to_string() }).await);
    read_only(s.call(method::ABORT, StatusRequest { r#ref: "r".into() }).await);
    read_only(s.call(method::WRITE, WriteContentRequest { r#ref: "r".into(), ..Default::default() }).await);
    let nameless = s.call(method::WRITE, WriteContentRequest::default()).await;
    assert_eq!(nameless.code(), tonic::Code::InvalidArgument);
    let missing = s.call(method::STATUS, StatusRequest { r#ref: "r".into() }).await;
    assert_eq!(missing.code(), tonic::Code::NotFound);
    let unknown = s.call("/containerd.services.content.v1.Content/Format", Empty {}).await;
    assert_eq!(unknown.code(), tonic::Code::Unimplemented);
    assert!(s.content.info(&digest).unwrap().is_some());
}

/// More clients that read a part and stop than there are threads to read with.
#[test]
fn who_does_not_listen_keeps_nobody_else_waiting() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(3)
        .enable_all()
        .build()
        .unwrap();
    let work = async {
        let s = served().await;
        let large = s.content.put(&vec![7; 20 << 20]).unwrap().to_string();
        let connect = async || {
            let stream = tokio::net::UnixStream::connect(s.dir.path().join("s")).await.unwrap();
            Client::from_stream(stream).await.unwrap()
        };
        let mut deaf = Vec::new();
        for _ in 0..8 {
            let client = connect().await;
            let mut parts = client.read_blob(&large, 0, None).await.unwrap();
            assert!(parts.next().await.unwrap().is_ok());
            deaf.push((client, parts));
        }
        connect().await.blob_info(&large).await
    };
    let limit = std::time::Duration::from_secs(60);
    let answer = runtime.block_on(async { tokio::time::timeout(limit, work).await });
    runtime.shutdown_background();
    assert!(answer.expect("an answer").is_ok());
}
