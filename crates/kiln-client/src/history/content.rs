//! Blobs of the daemon, read by digest.

use std::collections::BTreeMap;

use futures::{Stream, StreamExt, TryStreamExt};
use jiff::Timestamp;
use kiln_llb::errdefs::BuildError;
use kiln_proto::containerd::{
    Info, InfoRequest, InfoResponse, ListContentRequest, ListContentResponse, ReadContentRequest,
    ReadContentResponse, method,
};
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::Client;
use crate::convert::time;
use crate::error::build_error;

/// What is known of a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its name.
    pub digest: String,
    /// Bytes.
    pub size: i64,
    /// When it was stored.
    pub created_at: Option<Timestamp>,
    /// Notes.
    pub labels: BTreeMap<String, String>,
}

impl Client {
    /// What is known of a blob.
    ///
    /// # Errors
    /// `NotFound` when the daemon has none.
    pub async fn blob_info(&self, digest: &str) -> Result<BlobInfo, BuildError> {
        let request = Request::new(InfoRequest { digest: digest.to_string() });
        let mut grpc = ready(self.channel()).await.map_err(build_error)?;
        let path = PathAndQuery::from_static(method::INFO);
        let codec = ProstCodec::<InfoRequest, InfoResponse>::default();
        let answer = grpc.unary(request, path, codec).await.map_err(build_error)?;
        Ok(answer.into_inner().info.map(info).unwrap_or_default())
    }

    /// The bytes of a blob from `offset` on, at most `size` of them; `None` is all that follow. They come as the
    /// daemon sends them and are not checked against the digest.
    pub async fn read_blob(
        &self,
        digest: &str,
        offset: i64,
        size: Option<i64>,
    ) -> Result<impl Stream<Item = Result<Vec<u8>, BuildError>> + Send + use<>, BuildError> {
        let request =
            ReadContentRequest { digest: digest.to_string(), offset, size: size.unwrap_or_default() };
        let stream = stream::<_, ReadContentResponse>(self.channel(), method::READ, request).await;
        Ok(stream.map_err(build_error)?.map_ok(|part| part.data).map_err(build_error))
    }

    /// All blobs that match one of `filters` (containerd's language over `digest`, `size`, `labels`).
    pub async fn blobs(
        &self,
        filters: &[String],
    ) -> Result<impl Stream<Item = Result<BlobInfo, BuildError>> + Send + use<>, BuildError> {
        let request = ListContentRequest { filters: filters.to_vec() };
        let stream = stream::<_, ListContentResponse>(self.channel(), method::LIST, request).await;
        let some = |part: ListContentResponse| futures::stream::iter(part.info.into_iter().map(info).map(Ok));
        Ok(stream.map_err(build_error)?.map_ok(some).try_flatten().map(|blob| blob.map_err(build_error)))
    }
}

async fn ready(channel: Channel) -> Result<Grpc<Channel>, Status> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(kiln_proto::MAX_MESSAGE_SIZE);
    grpc.ready().await.map_err(|e| Status::unavailable(format!("service was not ready: {e}")))?;
    Ok(grpc)
}

async fn stream<Q, A>(channel: Channel, path: &'static str, request: Q) -> Result<tonic::Streaming<A>, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let codec = ProstCodec::<Q, A>::default();
    let path = PathAndQuery::from_static(path);
    let answer = ready(channel).await?.server_streaming(Request::new(request), path, codec).await?;
    Ok(answer.into_inner())
}

fn info(i: Info) -> BlobInfo {
    BlobInfo {
        digest: i.digest,
        size: i.size,
        created_at: time(i.created_at),
        labels: i.labels.into_iter().collect(),
    }
}
