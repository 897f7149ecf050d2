//! `containerd.services.content.v1.Content`: the blobs of the daemon, to be read.
//!
//! A thread is held for a message at a time: who asks and does not listen keeps none from others.

use futures::{Stream, stream};
use kiln_content::{BlobDetail, BlobInfo, ContentError, ContentStore};
use kiln_digest::Digest;
use kiln_proto::containerd::{
    DeleteContentRequest, Empty, Info, InfoRequest, InfoResponse, ListContentRequest, ListContentResponse,
    ListStatusesRequest, ListStatusesResponse, ReadContentRequest, ReadContentResponse, StatusRequest,
    StatusResponse, UpdateRequest, WriteContentRequest, WriteContentResponse,
};
use kiln_proto::google::protobuf::Timestamp;
use kiln_snapshot::Filter;
use prost::Message;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::task::spawn_blocking;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, Service, StdError, http};
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

/// Bytes per message of a read.
const CHUNK: usize = 1 << 20;
/// Blobs per message of a list.
const BLOCK: usize = 100;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct ContentService {
    content: ContentStore,
}

impl ContentService {
    pub(crate) fn new(content: ContentStore) -> Self {
        Self { content }
    }

    async fn info(self, request: Request<InfoRequest>) -> Answer<InfoResponse> {
        let digest = digest(&request.into_inner().digest)?;
        let found = self.blocking(move |content| content.detail(&digest)).await?;
        let found = found.ok_or_else(|| not_found(&digest))?;
        Ok(Response::new(InfoResponse { info: Some(wire(found)) }))
    }

    async fn list(self, request: Request<ListContentRequest>) -> Answer<BoxStream<ListContentResponse>> {
        let filter = Filter::parse_all(&request.into_inner().filters)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let blobs = self.blocking(|content| content.list()).await?;
        let next = |(service, filter, mut blobs): (Self, Filter, std::vec::IntoIter<BlobInfo>)| async move {
            while !blobs.as_slice().is_empty() {
                let block: Vec<BlobInfo> = blobs.by_ref().take(BLOCK).collect();
                let found = service.blocking(move |content| details(content, &block)).await?;
                let info: Vec<Info> = found
                    .into_iter()
                    .filter(|d| filter.matches_fields(|name| field(d, name)))
                    .map(wire)
                    .collect();
                if !info.is_empty() {
                    return Ok(Some((ListContentResponse { info }, (service, filter, blobs))));
                }
            }
            Ok(None)
        };
        Ok(Response::new(Box::pin(stream::try_unfold((self, filter, blobs.into_iter()), next))))
    }

    async fn read(self, request: Request<ReadContentRequest>) -> Answer<BoxStream<ReadContentResponse>> {
        let request = request.into_inner();
        let digest = digest(&request.digest)?;
        let opened = self.blocking(move |content| Ok((content.open_blob(&digest)?, content.info(&digest)?)));
        let (mut file, size) = opened.await?;
        let size = size.ok_or_else(|| not_found(&digest))?;
        let offset = u64::try_from(request.offset).unwrap_or(0);
        let rest = size.checked_sub(offset);
        let rest =
            rest.ok_or_else(|| Status::out_of_range(format!("read past object length {size} bytes")))?;
        let wanted = u64::try_from(request.size).ok().filter(|n| *n > 0).map_or(rest, |n| n.min(rest));
        file.seek(SeekFrom::Start(offset)).map_err(|e| unreadable(&digest, &e))?;
        let next = move |(file, sent)| async move {
            if sent >= wanted {
                return Ok(None);
            }
            let piece = spawn_blocking(move || piece(file, wanted - sent)).await;
            let (file, data) =
                piece.map_err(io::Error::from).flatten().map_err(|e| unreadable(&digest, &e))?;
            let length = data.len() as u64;
            // Counted from the offset asked for, as containerd does.
            let message = ReadContentResponse { offset: i64::try_from(sent).unwrap_or(i64::MAX), data };
            Ok(Some((message, (file, sent + length))))
        };
        Ok(Response::new(Box::pin(stream::try_unfold((file, 0), next))))
    }

    async fn update(self, request: Request<UpdateRequest>) -> Answer<InfoResponse> {
        digest(&request.into_inner().info.unwrap_or_default().digest)?;
        Err(read_only())
    }

    async fn delete(self, request: Request<DeleteContentRequest>) -> Answer<Empty> {
        digest(&request.into_inner().digest)?;
        Err(read_only())
    }

    /// Nobody can write here, so no write is ever under way.
    async fn status(self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        let name = request.into_inner().r#ref;
        Err(Status::not_found(format!("could not get status for ref {name:?}: not found")))
    }

    async fn list_statuses(self, _: Request<ListStatusesRequest>) -> Answer<ListStatusesResponse> {
        Ok(Response::new(ListStatusesResponse::default()))
    }

    async fn write(
        self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> Answer<BoxStream<WriteContentResponse>> {
        let first = request.into_inner().message().await?;
        if first.is_none_or(|first| first.r#ref.is_empty()) {
            return Err(Status::invalid_argument("first message must have a reference"));
        }
        Err(read_only())
    }

    async fn abort(self, _: Request<StatusRequest>) -> Answer<Empty> {
        Err(read_only())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ContentStore) -> Result<T, ContentError> + Send + 'static,
    ) -> Result<T, Status> {
        let content = self.content.clone();
        let done = spawn_blocking(move || work(&content)).await;
        done.map_err(|e| Status::internal(format!("content store: {e}")))?.map_err(status)
    }
}

/// The next bytes of a blob, at most `left`.
fn piece(mut file: File, left: u64) -> io::Result<(File, Vec<u8>)> {
    let mut data = vec![0; usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
    file.read_exact(&mut data)?;
    Ok((file, data))
}

fn details(content: &ContentStore, blobs: &[BlobInfo]) -> Result<Vec<BlobDetail>, ContentError> {
    blobs.iter().filter_map(|blob| content.detail(&blob.digest).transpose()).collect()
}

fn unreadable(digest: &Digest, error: &io::Error) -> Status {
    Status::internal(format!("read blob {digest}: {error}"))
}

fn digest(text: &str) -> Result<Digest, Status> {
    let digest: Digest = text.parse().map_err(|e| Status::invalid_argument(format!("{e}")))?;
    if digest.is_random() {
        return Err(Status::invalid_argument(format!("{text:?} failed validation")));
    }
    Ok(digest)
}

fn not_found(digest: &Digest) -> Status {
    Status::not_found(format!("content digest {digest}: not found"))
}

/// Without a code of its own, as BuildKit's.
fn read_only() -> Status {
    Status::unknown("read-only content store")
}

fn status(error: ContentError) -> Status {
    match error {
        ContentError::NotFound(digest) => not_found(&digest),
        ContentError::Damaged { .. } => Status::data_loss(error.to_string()),
        other => Status::internal(other.to_string()),
    }
}

fn wire(blob: BlobDetail) -> Info {
    let created = Timestamp { seconds: blob.created, nanos: 0 };
    Info {
        digest: blob.digest.to_string(),
        size: i64::try_from(blob.size).unwrap_or(i64::MAX),
        created_at: Some(created),
        updated_at: Some(created),
        labels: blob.labels.into_iter().collect(),
    }
}

/// The fields of containerd's `content.AdaptInfo`.
fn field(blob: &BlobDetail, name: &str) -> Option<String> {
    match name {
        "digest" => Some(blob.digest.to_string()),
        "size" => Some(blob.size.to_string()),
        _ => blob.labels.get(name.strip_prefix("labels.")?).cloned(),
    }
}

impl NamedService for ContentService {
    const NAME: &'static str = "containerd.services.content.v1.Content";
}

fn grpc<Q, A>() -> Grpc<ProstCodec<A, Q>>
where
    Q: Message + Default + 'static,
    A: Message + 'static,
{
    Grpc::new(ProstCodec::default())
}

impl<B> Service<http::Request<B>> for ContentService
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let s = self.clone();
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_string();
            Ok(match method.as_str() {
                "Info" => grpc().unary(service_fn(|r| s.clone().info(r)), request).await,
                "List" => grpc().server_streaming(service_fn(|r| s.clone().list(r)), request).await,
                "Read" => grpc().server_streaming(service_fn(|r| s.clone().read(r)), request).await,
                "Update" => grpc().unary(service_fn(|r| s.clone().update(r)), request).await,
                "Delete" => grpc().unary(service_fn(|r| s.clone().delete(r)), request).await,
                "Status" => grpc().unary(service_fn(|r| s.clone().status(r)), request).await,
                "ListStatuses" => grpc().unary(service_fn(|r| s.clone().list_statuses(r)), request).await,
                "Write" => grpc().streaming(service_fn(|r| s.clone().write(r)), request).await,
                "Abort" => grpc().unary(service_fn(|r| s.clone().abort(r)), request).await,
                _ => Status::unimplemented(format!("unknown method {method} for service {}", Self::NAME))
                    .into_http(),
            })
        })
    }
}

#[cfg(test)]
mod tests;
