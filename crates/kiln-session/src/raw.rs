//! Streams of undecoded messages, as caller and as server. What the messages of a file transfer are depends on the
//! exporter, not on the method, so generated stubs do not fit.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::http::{Request as HttpRequest, Response as HttpResponse};
use tonic::metadata::MetadataMap;
use tonic::server::{NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tower::Service;

use crate::codec::{Chunk, RawCodec};
use crate::connection::{Connection, origin};
use crate::headers::{decode_values, values};
use crate::{BytesPipe, DirectoryRequest};

pub(crate) const FILE_SYNC: &str = "/moby.filesync.v1.FileSync/DiffCopy";
pub(crate) const FILE_SEND: &str = "/moby.filesync.v1.FileSend/DiffCopy";
pub(crate) const FORWARD_AGENT: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
pub(crate) const PULL: &str = "/moby.upload.v1.Upload/Pull";
pub(crate) const EXPORTER_ID: &str = "buildkit-attachable-exporter-id";
pub(crate) const MULTI_PLATFORM: &str = "buildkit-exporter-multi-platform";
pub(crate) const RESPONSE_PREFIX: &str = "exporter-md-";

/// Messages that may wait to be sent.
const QUEUE: usize = 256;

/// What the other side of a stream sends.
pub type Incoming = BoxStream<'static, Result<Bytes, Status>>;

/// Which end of a call this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Opened the call, and reads its status at the end.
    Caller,
    /// Answers the call, and ends it by returning.
    Server,
}

/// Both directions of a streaming call. Dropping `outgoing` ends our side.
pub struct RawStream {
    /// Messages to send.
    pub outgoing: mpsc::Sender<Bytes>,
    /// Messages that come; ends or fails with the call.
    pub incoming: Incoming,
    /// Which end this is.
    pub role: Role,
}

impl std::fmt::Debug for RawStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawStream")
    }
}

impl RawStream {
    /// Two ends that are connected in memory: the server's, then the caller's.
    pub fn pair() -> (Self, Self) {
        let (a, from_a) = mpsc::channel(QUEUE);
        let (b, from_b) = mpsc::channel(QUEUE);
        let incoming = |r| ReceiverStream::new(r).map(Ok).boxed();
        let server = Self { outgoing: a, incoming: incoming(from_b), role: Role::Server };
        (server, Self { outgoing: b, incoming: incoming(from_a), role: Role::Caller })
    }

    /// Takes the messages as `BytesMessage` and gives them as a byte pipe.
    pub fn into_pipe(self) -> BytesPipe {
        let incoming = self.incoming.and_then(|m| ready(Chunk::unwrap(m))).map_err(io_error).boxed();
        let (pipe, mut written) = BytesPipe::new(incoming);
        let outgoing = self.outgoing;
        // Ends when the pipe is dropped or the call is over.
        tokio::spawn(async move {
            while let Some(data) = written.recv().await {
                if outgoing.send(Chunk::wrap(data)).await.is_err() {
                    return;
                }
            }
        });
        pipe
    }

    pub(crate) fn into_upload(self) -> ByteUpload {
        ByteUpload { outgoing: self.outgoing, incoming: self.incoming }
    }
}

/// The status of a call as an IO error with a readable text.
fn io_error(status: Status) -> io::Error {
    match status.message() {
        "" => io::Error::other(status.code().description()),
        text => io::Error::other(text.to_string()),
    }
}

/// An archive on its way to the client.
pub struct ByteUpload {
    outgoing: mpsc::Sender<Bytes>,
    incoming: Incoming,
}

impl std::fmt::Debug for ByteUpload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ByteUpload")
    }
}

/// Largest piece of an archive in one message, in bytes: peers accept 4 MiB with headers.
const MAX_PIECE: usize = 3 << 20;

impl ByteUpload {
    /// Sends the next bytes; waits while the client is slower. Pieces of 32 KiB to 1 MiB serve best.
    pub async fn write(&mut self, data: Bytes) -> Result<(), Status> {
        let mut rest = data;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(MAX_PIECE));
            if self.outgoing.send(Chunk::wrap(piece)).await.is_err() {
                // The client ended the call; its status says why.
                return match self.incoming.try_next().await {
                    Err(status) => Err(status),
                    Ok(_) => Err(Status::aborted("the client stopped reading the archive")),
                };
            }
        }
        Ok(())
    }

    /// Sends the end and waits until the client has stored everything. `AlreadyExists` from the client means that it
    /// needs nothing and is a success (spec wire.md section 5).
    pub async fn finish(self) -> Result<(), Status> {
        let Self { outgoing, mut incoming } = self;
        drop(outgoing);
        loop {
            match incoming.try_next().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(status) if status.code() == tonic::Code::AlreadyExists => return Ok(()),
                Err(status) => return Err(status),
            }
        }
    }
}

/// Opens a streaming call. It goes out at once; the answer arrives in `incoming`.
pub(crate) fn call(connection: Connection, method: &'static str, metadata: MetadataMap) -> RawStream {
    let (outgoing, messages) = mpsc::channel(QUEUE);
    let mut request = Request::new(ReceiverStream::new(messages));
    *request.metadata_mut() = metadata;
    // The peer may answer only after it has read something, so the request must make progress meanwhile.
    let answer = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut grpc = tonic::client::Grpc::with_origin(connection, origin());
        grpc.ready().await.map_err(|e| Status::unavailable(format!("session is not ready: {e}")))?;
        let response = grpc.streaming(request, PathAndQuery::from_static(method), RawCodec).await?;
        Ok::<Streaming<Bytes>, Status>(response.into_inner())
    }));
    let incoming = async move {
        let lost = |e| Status::internal(format!("session call ended early: {e}"));
        answer.await.map_err(lost).flatten()
    };
    RawStream { outgoing, incoming: stream::once(incoming).try_flatten().boxed(), role: Role::Caller }
}

/// Serves `FileSync.DiffCopy`: sends local directories to the daemon.
#[async_trait]
pub trait FileSync: Send + Sync + 'static {
    /// Sends what is asked for; see [`crate::fsutil::send`].
    async fn diff_copy(&self, request: DirectoryRequest, stream: RawStream) -> Result<(), Status>;
}

/// Which export a `FileSend.DiffCopy` call brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendTarget {
    /// Index of the exporter in the build request.
    pub exporter: usize,
    /// All platforms come in this one transfer.
    pub multi_platform: bool,
    /// Response keys of the export.
    pub metadata: BTreeMap<String, String>,
}

/// Serves `FileSend.DiffCopy`: receives exported files or archives from the daemon.
#[async_trait]
pub trait FileSend: Send + Sync + 'static {
    /// Receives either packets ([`crate::fsutil::receive`]) or bytes ([`RawStream::into_pipe`]), as the exporter says.
    async fn diff_copy(&self, target: SendTarget, stream: RawStream) -> Result<(), Status>;
}

impl DirectoryRequest {
    fn from_metadata(map: &MetadataMap) -> Self {
        Self {
            name: decode_values(map, "dir-name").into_iter().next().unwrap_or_default(),
            include: decode_values(map, "include-patterns"),
            exclude: decode_values(map, "exclude-patterns"),
            follow_paths: decode_values(map, "followpaths"),
        }
    }
}

impl SendTarget {
    fn from_metadata(map: &MetadataMap) -> Self {
        let mut metadata = BTreeMap::new();
        for key in map.keys() {
            if let tonic::metadata::KeyRef::Ascii(key) = key
                && let Some(name) = key.as_str().strip_prefix(RESPONSE_PREFIX)
            {
                metadata.insert(name.to_string(), values(map, key.as_str()).collect::<Vec<_>>().join(","));
            }
        }
        Self {
            exporter: values(map, EXPORTER_ID).next().and_then(|v| v.parse().ok()).unwrap_or_default(),
            multi_platform: values(map, MULTI_PLATFORM).any(|v| v == "1"),
            metadata,
        }
    }
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A server for one streaming method.
#[derive(Clone)]
pub(crate) struct FileSyncServer(pub(crate) Arc<dyn FileSync>);

/// As [`FileSyncServer`].
#[derive(Clone)]
pub(crate) struct FileSendServer(pub(crate) Arc<dyn FileSend>);

impl NamedService for FileSyncServer {
    const NAME: &'static str = "moby.filesync.v1.FileSync";
}

impl NamedService for FileSendServer {
    const NAME: &'static str = "moby.filesync.v1.FileSend";
}

impl Service<HttpRequest<Body>> for FileSyncServer {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let handler = self.0.clone();
        answer(FILE_SYNC, request, move |metadata, stream| {
            let request = DirectoryRequest::from_metadata(&metadata);
            Box::pin(async move { handler.diff_copy(request, stream).await })
        })
    }
}

impl Service<HttpRequest<Body>> for FileSendServer {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let handler = self.0.clone();
        answer(FILE_SEND, request, move |metadata, stream| {
            let target = SendTarget::from_metadata(&metadata);
            Box::pin(async move { handler.diff_copy(target, stream).await })
        })
    }
}

fn answer<F>(
    method: &str,
    request: HttpRequest<Body>,
    handler: F,
) -> BoxFuture<Result<HttpResponse<Body>, Infallible>>
where
    F: FnOnce(MetadataMap, RawStream) -> BoxFuture<Result<(), Status>> + Send + 'static,
{
    if !request.uri().path().eq_ignore_ascii_case(method) {
        let status = Status::unimplemented(format!("method {} is not served", request.uri().path()));
        return Box::pin(ready(Ok(status.into_http())));
    }
    Box::pin(async move {
        Ok(tonic::server::Grpc::new(RawCodec).streaming(Handler(Some(handler)), request).await)
    })
}

struct Handler<F>(Option<F>);

impl<F> StreamingService<Bytes> for Handler<F>
where
    F: FnOnce(MetadataMap, RawStream) -> BoxFuture<Result<(), Status>> + Send + 'static,
{
    type Response = Bytes;
    type ResponseStream = Incoming;
    type Future = Ready<Result<Response<Incoming>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let Some(handler) = self.0.take() else {
            return ready(Err(Status::internal("a call is answered once")));
        };
        let (metadata, _, incoming) = request.into_parts();
        let (outgoing, messages) = mpsc::channel(QUEUE);
        let running = tokio::spawn(handler(
            metadata,
            RawStream { outgoing, incoming: incoming.boxed(), role: Role::Server },
        ));
        // Owned by the response: when the caller goes away, the work stops.
        let running = AbortOnDropHandle::new(running);
        let end = async move {
            match running.await {
                Ok(Ok(())) => None,
                Ok(Err(status)) => Some(Err(status)),
                Err(e) => Some(Err(Status::internal(format!("file transfer stopped: {e}")))),
            }
        };
        let end = stream::once(end).filter_map(ready);
        ready(Ok(Response::new(ReceiverStream::new(messages).map(Ok).chain(end).boxed())))
    }
}
