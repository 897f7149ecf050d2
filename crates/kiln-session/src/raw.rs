//! Streams of undecoded messages, and the calls that they belong to.

use std::future::ready;
use std::io;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status, Streaming};

use crate::BytesPipe;
use crate::codec::{Chunk, RawCodec};
use crate::connection::{Connection, origin};

pub(crate) const FILE_SYNC: &str = "/moby.filesync.v1.FileSync/DiffCopy";
pub(crate) const FILE_SEND: &str = "/moby.filesync.v1.FileSend/DiffCopy";
pub(crate) const FORWARD_AGENT: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
pub(crate) const PULL: &str = "/moby.upload.v1.Upload/Pull";
pub(crate) const EXPORTER_ID: &str = "buildkit-attachable-exporter-id";
pub(crate) const MULTI_PLATFORM: &str = "buildkit-exporter-multi-platform";
pub(crate) const RESPONSE_PREFIX: &str = "exporter-md-";

/// Small messages that may wait to be sent.
pub(crate) const QUEUE: usize = 256;
/// As [`QUEUE`], of packets and pieces of some tens of kilobytes: a peer that does not read keeps them in memory.
pub(crate) const PACKETS: usize = 64;
/// As [`QUEUE`], of pieces of up to a few megabytes.
pub(crate) const PIECES: usize = 2;

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
        ByteUpload::new(self.outgoing, self.incoming)
    }
}

/// The status of a call as an IO error with a readable text.
fn io_error(status: Status) -> io::Error {
    match status.message() {
        "" => io::Error::other(status.code().description()),
        text => io::Error::other(text.to_string()),
    }
}

/// An archive on its way to the client. Dropped before [`finish`](Self::finish) it is cut off, not ended: the client
/// must not take a torn file for a whole one.
pub struct ByteUpload(Option<(mpsc::Sender<Bytes>, Incoming)>);

/// What a client wants of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The next bytes.
    More,
    /// Nothing: it has the file already (`AlreadyExists`, spec wire.md section 5).
    Nothing,
}

impl std::fmt::Debug for ByteUpload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ByteUpload")
    }
}

/// Largest piece of an archive in one message, in bytes: peers accept 4 MiB with headers.
const MAX_PIECE: usize = 3 << 20;

impl ByteUpload {
    fn new(outgoing: mpsc::Sender<Bytes>, incoming: Incoming) -> Self {
        Self(Some((outgoing, incoming)))
    }

    /// Sends the next bytes; waits while the client is slower. Pieces of 32 KiB to 1 MiB serve best.
    pub async fn write(&mut self, data: Bytes) -> Result<Wanted, Status> {
        let Some((outgoing, incoming)) = &mut self.0 else { return Ok(Wanted::Nothing) };
        let mut rest = data;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(MAX_PIECE));
            if outgoing.send(Chunk::wrap(piece)).await.is_err() {
                // The client ended the call; its status says why.
                return match verdict(incoming).await? {
                    Wanted::Nothing => Ok(Wanted::Nothing),
                    Wanted::More => Err(Status::aborted("the client stopped reading the archive")),
                };
            }
        }
        Ok(Wanted::More)
    }

    /// Sends the end and waits until the client has stored everything, or says that it needs nothing.
    pub async fn finish(mut self) -> Result<(), Status> {
        let Some((outgoing, mut incoming)) = self.0.take() else { return Ok(()) };
        drop(outgoing);
        verdict(&mut incoming).await.map(drop)
    }
}

/// Waits for the end of the call.
async fn verdict(incoming: &mut Incoming) -> Result<Wanted, Status> {
    loop {
        match incoming.try_next().await {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(Wanted::More),
            Err(status) if status.code() == tonic::Code::AlreadyExists => return Ok(Wanted::Nothing),
            Err(status) => return Err(status),
        }
    }
}

impl Drop for ByteUpload {
    fn drop(&mut self) {
        let Some((outgoing, incoming)) = self.0.take() else { return };
        // Without its reader the call is reset. The end of our messages would be a proper end if it came first, so
        // they stay open until nobody listens any more.
        drop(incoming);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { outgoing.closed().await });
        }
    }
}

/// Opens a streaming call. It goes out at once; the answer arrives in `incoming`.
/// `queue` messages of ours may wait.
pub(crate) fn call(
    connection: Connection,
    method: &'static str,
    metadata: MetadataMap,
    queue: usize,
) -> RawStream {
    let (outgoing, messages) = mpsc::channel(queue);
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
