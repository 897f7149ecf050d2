//! The file services of a client: what the messages of a transfer are depends on the exporter, not on the method, so
//! generated stubs do not fit.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::codegen::http::{Request as HttpRequest, Response as HttpResponse};
use tonic::metadata::MetadataMap;
use tonic::server::{NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tower::Service;

use crate::DirectoryRequest;
use crate::codec::RawCodec;
use crate::headers::{decode_values, values};
use crate::raw::{
    EXPORTER_ID, FILE_SEND, FILE_SYNC, Incoming, MULTI_PLATFORM, QUEUE, RESPONSE_PREFIX, RawStream, Role,
};

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

pub(crate) fn answer<F>(
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
