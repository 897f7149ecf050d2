//! Image layouts in directories of a client, served to the daemon as content stores.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::TryStreamExt;
use kiln_digest::{Digest, Hasher};
use kiln_fs::Root;
use kiln_proto::containerd::{
    Info, InfoRequest, InfoResponse, ReadContentRequest, ReadContentResponse, WriteAction,
    WriteContentRequest, WriteContentResponse, method,
};
use prost::Message;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::codegen::http::{Request as HttpRequest, Response as HttpResponse};
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

use crate::content::{STORE_ID, decode};
use crate::files::answer;
use crate::headers::values;
use crate::raw::RawStream;

/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// A directory in the form of an OCI layout. Only blobs are touched; `index.json` is its owner's.
#[derive(Debug)]
pub struct LayoutDir {
    root: Root,
    writable: bool,
}

impl LayoutDir {
    /// Lends the blobs of a layout.
    pub fn lend(root: Root) -> Self {
        Self { root, writable: false }
    }

    /// Takes blobs in too.
    pub fn fill(root: Root) -> Self {
        Self { root, writable: true }
    }

    fn path(digest: &Digest) -> PathBuf {
        PathBuf::from(format!("blobs/sha256/{}", digest.hex()))
    }

    fn size(&self, digest: &Digest) -> Result<u64, Status> {
        match self.root.metadata(Self::path(digest), true) {
            Ok(meta) if meta.is_file() => Ok(meta.size),
            Ok(_) => Err(Status::failed_precondition(format!("blob {digest} is not a file"))),
            Err(e) if e.is_not_found() => Err(Status::not_found(format!("content {digest}: not found"))),
            Err(e) => Err(Status::internal(e.to_string())),
        }
    }
}

/// The stores of a client by id, such as `oci:<name>` or `export`.
pub type Layouts = BTreeMap<String, LayoutDir>;

/// Serves `containerd.services.content.v1.Content`, as far as daemons call it.
#[derive(Clone)]
pub(crate) struct LayoutServer(pub(crate) Arc<Layouts>);

impl NamedService for LayoutServer {
    const NAME: &'static str = "containerd.services.content.v1.Content";
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Service<HttpRequest<Body>> for LayoutServer {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let layouts = self.0.clone();
        let path = request.uri().path().to_string();
        let known = [method::INFO, method::READ, method::WRITE].into_iter().find(|m| *m == path);
        answer(known.unwrap_or_default(), request, move |metadata, stream| {
            Box::pin(async move {
                let store = choose(&layouts, &metadata)?;
                match known {
                    Some(method::INFO) => info(&layouts, &store, stream).await,
                    Some(method::READ) => read(&layouts, &store, stream).await,
                    _ => write(&layouts, &store, stream).await,
                }
            })
        })
    }
}

/// The id of the store that is meant.
fn choose(layouts: &Layouts, metadata: &MetadataMap) -> Result<String, Status> {
    let id = values(metadata, STORE_ID).next();
    let id = id.ok_or_else(|| Status::invalid_argument(format!("request lacks metadata {STORE_ID:?}")))?;
    match layouts.contains_key(id) {
        true => Ok(id.to_string()),
        false => Err(Status::not_found(format!("unknown store {id}"))),
    }
}

fn store<'a>(layouts: &'a Layouts, id: &str) -> Result<&'a LayoutDir, Status> {
    layouts.get(id).ok_or_else(|| Status::not_found(format!("unknown store {id}")))
}

fn digest(text: &str) -> Result<Digest, Status> {
    let digest: Digest =
        text.parse().map_err(|e| Status::invalid_argument(format!("digest {text:?}: {e}")))?;
    match digest.is_random() {
        true => Err(Status::invalid_argument(format!("digest {text:?}: unsupported algorithm"))),
        false => Ok(digest),
    }
}

async fn next<M: Message + Default>(stream: &mut RawStream) -> Result<Option<M>, Status> {
    stream.incoming.try_next().await?.map(|bytes| decode(&bytes)).transpose()
}

async fn send(to: &mpsc::Sender<Bytes>, message: &impl Message) -> Result<(), Status> {
    let gone = |_| Status::cancelled("the daemon went away");
    to.send(message.encode_to_vec().into()).await.map_err(gone)
}

async fn info(layouts: &Layouts, id: &str, mut stream: RawStream) -> Result<(), Status> {
    let request: InfoRequest = next(&mut stream).await?.unwrap_or_default();
    let digest = digest(&request.digest)?;
    let size = store(layouts, id)?.size(&digest)?;
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    let info = Info { digest: digest.to_string(), size, ..Info::default() };
    send(&stream.outgoing, &InfoResponse { info: Some(info) }).await
}

async fn read(layouts: &Layouts, id: &str, mut stream: RawStream) -> Result<(), Status> {
    let request: ReadContentRequest = next(&mut stream).await?.unwrap_or_default();
    let digest = digest(&request.digest)?;
    let dir = store(layouts, id)?;
    let size = dir.size(&digest)?;
    let start = u64::try_from(request.offset).ok().filter(|o| *o <= size);
    let start = start.ok_or_else(|| Status::out_of_range(format!("offset {} of {size}", request.offset)))?;
    let wanted = match u64::try_from(request.size) {
        Ok(0) | Err(_) => size - start,
        Ok(n) => n.min(size - start),
    };
    let failed = |e: std::io::Error| Status::internal(format!("read blob {digest}: {e}"));
    let mut file =
        dir.root.open_file(LayoutDir::path(&digest)).map_err(|e| Status::internal(e.to_string()))?;
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    let mut file = file.take(wanted);
    let mut at = start;
    loop {
        let (back, data) = tokio::task::spawn_blocking(move || {
            let mut data = Vec::with_capacity(PIECE);
            let read = (&mut file).take(PIECE as u64).read_to_end(&mut data);
            (file, read.map(|_| data))
        })
        .await
        .map_err(|e| Status::internal(e.to_string()))?;
        file = back;
        let data = data.map_err(failed)?;
        if data.is_empty() {
            return Ok(());
        }
        let offset = i64::try_from(at).unwrap_or(i64::MAX);
        at += data.len() as u64;
        send(&stream.outgoing, &ReadContentResponse { offset, data }).await?;
    }
}

/// A blob that is being written. Dropped unfinished, it leaves nothing.
struct Partial {
    root: Root,
    path: PathBuf,
    file: std::fs::File,
    hasher: Hasher,
    size: u64,
}

impl Partial {
    fn begin(dir: &LayoutDir) -> Result<Self, Status> {
        if !dir.writable {
            return Err(Status::permission_denied("this store is only lent"));
        }
        let internal = |e: kiln_fs::Error| Status::internal(e.to_string());
        let root = dir.root.try_clone().map_err(internal)?;
        root.create_dir_all("blobs/sha256", 0o755, None, None).map_err(internal)?;
        let path = PathBuf::from(format!("blobs/sha256/.partial-{:032x}", rand::random::<u128>()));
        let file = root.create_file(&path, 0o644).map_err(internal)?;
        Ok(Self { root, path, file, hasher: Hasher::new(), size: 0 })
    }

    async fn write(mut self, data: Vec<u8>) -> Result<Self, Status> {
        let work = tokio::task::spawn_blocking(move || {
            self.file.write_all(&data)?;
            self.hasher.update(&data);
            self.size += data.len() as u64;
            Ok::<_, std::io::Error>(self)
        });
        let done = work.await.map_err(|e| Status::internal(e.to_string()))?;
        done.map_err(|e| Status::internal(format!("write blob: {e}")))
    }

    /// The blob gets its name only when it is what was announced.
    fn commit(&mut self, total: i64, expected: &Digest) -> Result<(), Status> {
        if total > 0 && u64::try_from(total) != Ok(self.size) {
            let text = format!("unexpected commit size {}, expected {total}", self.size);
            return Err(Status::failed_precondition(text));
        }
        let found = std::mem::replace(&mut self.hasher, Hasher::new()).finish();
        if found != *expected {
            let text = format!("unexpected commit digest {found}, expected {expected}");
            return Err(Status::failed_precondition(text));
        }
        let renamed = self.root.rename(&self.path, LayoutDir::path(expected));
        renamed.map_err(|e| Status::internal(e.to_string()))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After the commit there is nothing under this name.
        let _ = self.root.remove(&self.path);
    }
}

async fn write(layouts: &Layouts, id: &str, mut stream: RawStream) -> Result<(), Status> {
    let dir = store(layouts, id)?;
    let mut blob = Partial::begin(dir)?;
    let mut expected = String::new();
    let mut total = 0;
    while let Some(request) = next::<WriteContentRequest>(&mut stream).await? {
        if !request.expected.is_empty() {
            expected.clone_from(&request.expected);
            match dir.size(&digest(&expected)?) {
                Ok(_) => {
                    return Err(Status::already_exists(format!(
                        "blob with expected digest {expected} exists"
                    )));
                }
                Err(e) if e.code() != Code::NotFound => return Err(e),
                Err(_) => {}
            }
        }
        total = if request.total > 0 { request.total } else { total };
        let at = i64::try_from(blob.size).unwrap_or(i64::MAX);
        let action = request.action();
        if action != WriteAction::Stat {
            if request.offset != at {
                let text = format!("write @{} must occur at current offset {at}", request.offset);
                return Err(Status::out_of_range(text));
            }
            blob = blob.write(request.data).await?;
        }
        if action == WriteAction::Commit {
            blob.commit(total, &digest(&expected)?)?;
        }
        let offset = i64::try_from(blob.size).unwrap_or(i64::MAX);
        let answer = WriteContentResponse {
            action: request.action,
            offset,
            total,
            digest: expected.clone(),
            ..WriteContentResponse::default()
        };
        send(&stream.outgoing, &answer).await?;
        if action == WriteAction::Commit {
            return Ok(());
        }
    }
    Ok(())
}
