//! Contexts and Dockerfiles from streams, served once each.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use kiln_proto::upload::BytesMessage;
use kiln_proto::upload::upload_server::Upload as UploadService;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;
use tonic::{Request, Response, Status, Streaming};

use crate::new_id;

/// Bytes in one message.
const CHUNK: usize = 256 << 10;

/// A stream that the daemon may fetch, once.
#[derive(Clone, Debug)]
pub struct Upload {
    id: String,
    source: UploadSource,
}

/// Where an upload comes from; can be taken once.
#[derive(Clone)]
pub struct UploadSource(Arc<Mutex<Option<Box<dyn AsyncRead + Send + Unpin>>>>);

impl std::fmt::Debug for UploadSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UploadSource")
    }
}

impl Upload {
    /// Serves `reader` under a new name.
    pub fn new(reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self { id: new_id(), source: UploadSource(Arc::new(Mutex::new(Some(Box::new(reader))))) }
    }

    /// The address to give to the frontend, for its `context` or as `dockerfilekey` input.
    pub fn url(&self) -> String {
        format!("http://buildkit-session/{}", self.id)
    }
}

/// The uploads of one request.
#[derive(Clone)]
pub(super) struct Uploads(Arc<HashMap<String, UploadSource>>);

impl Uploads {
    pub(super) fn new(uploads: &[Upload]) -> Self {
        Self(Arc::new(uploads.iter().map(|u| (u.id.clone(), u.source.clone())).collect()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&self, path: &str) -> Option<Box<dyn AsyncRead + Send + Unpin>> {
        let id = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        self.0.get(id)?.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[tonic::async_trait]
impl UploadService for Uploads {
    type PullStream = BoxStream<'static, Result<BytesMessage, Status>>;

    async fn pull(&self, r: Request<Streaming<BytesMessage>>) -> Result<Response<Self::PullStream>, Status> {
        let path = r.metadata().get("urlpath").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let reader = self.take(path);
        let reader =
            reader.ok_or_else(|| Status::not_found(format!("no http response from session for {path}")))?;
        let failed = |e: io::Error| Status::unknown(format!("read upload: {e}"));
        let messages = ReaderStream::with_capacity(reader, CHUNK).map_ok(|b| BytesMessage { data: b.into() });
        Ok(Response::new(messages.map_err(failed).boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn an_upload_is_served_once() {
        let upload = Upload::new(&b"FROM scratch"[..]);
        let uploads = Uploads::new(std::slice::from_ref(&upload));
        let path = upload.url().strip_prefix("http://buildkit-session").unwrap().to_string();
        let mut text = String::new();
        uploads.take(&path).unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "FROM scratch");
        assert!(uploads.take(&path).is_none());
        assert!(uploads.take("/other").is_none());
    }
}
