//! Content stores of a client: image layouts that it lends, and the one that an export fills (spec wire.md section 4).

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use kiln_digest::Digest;
use kiln_proto::containerd::{
    InfoRequest, InfoResponse, ReadContentRequest, ReadContentResponse, WriteAction, WriteContentRequest,
    WriteContentResponse, method,
};
use prost::Message;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};
use tonic::metadata::MetadataMap;
use tonic::{Code, Response, Status};

use crate::headers::insert;
use crate::raw::{self, RawStream};
use crate::{Session, SessionError};

/// Says which store a call is for.
pub(crate) const STORE_ID: &str = "buildkit-attachable-store-id";
/// Bytes sent at once.
const PIECE: usize = 1 << 20;

/// One content store of a client.
#[derive(Clone, Debug)]
pub struct RemoteStore {
    session: Session,
    id: String,
}

/// A blob that has a size and comes in pieces, unverified.
pub struct RemoteBlob {
    /// In bytes, as the client says.
    pub size: u64,
    /// The bytes.
    pub data: BoxStream<'static, io::Result<Bytes>>,
}

impl std::fmt::Debug for RemoteBlob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteBlob").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Session {
    /// The store that the client knows as `id`, such as `oci:<name>` or `export`. Nothing is asked yet.
    pub fn content(&self, id: impl Into<String>) -> RemoteStore {
        RemoteStore { session: self.clone(), id: id.into() }
    }

    pub(crate) async fn unary<A: Message + Default>(
        &self,
        call: String,
        method: &'static str,
        metadata: MetadataMap,
        request: &impl Message,
    ) -> Result<A, SessionError> {
        if !self.supports(method) {
            return Err(SessionError::Unsupported(method.to_string()));
        }
        let stream = raw::call(self.connection(), method, metadata, raw::PIECES);
        let answer = async {
            let mut stream = stream;
            one(&mut stream, request).await.map(Response::new)
        };
        self.call(call, answer).await
    }
}

/// Sends one message and waits for one.
async fn one<A: Message + Default>(stream: &mut RawStream, request: &impl Message) -> Result<A, Status> {
    // When the call has ended already, its status says why.
    let _ = stream.outgoing.send(request.encode_to_vec().into()).await;
    match stream.incoming.try_next().await? {
        Some(answer) => decode(&answer),
        None => Err(Status::internal("the client ended the call without an answer")),
    }
}

pub(crate) fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, Status> {
    M::decode(bytes).map_err(|e| Status::internal(format!("malformed message: {e}")))
}

impl RemoteStore {
    fn metadata(&self) -> Result<MetadataMap, SessionError> {
        let mut metadata = MetadataMap::new();
        insert(&mut metadata, STORE_ID, &self.id)?;
        Ok(metadata)
    }

    fn stream(&self, method: &'static str) -> Result<RawStream, SessionError> {
        if !self.session.supports(method) {
            return Err(SessionError::Unsupported(method.to_string()));
        }
        Ok(raw::call(self.session.connection(), method, self.metadata()?, raw::PIECES))
    }

    /// The size of a blob in bytes; [`SessionError::is_missing`] if the store has no such blob.
    pub async fn size(&self, digest: &Digest) -> Result<u64, SessionError> {
        let name = format!("blob {digest} of store {}", self.id);
        let request = InfoRequest { digest: digest.to_string() };
        let answer: InfoResponse =
            self.session.unary(name.clone(), method::INFO, self.metadata()?, &request).await?;
        let size = answer.info.and_then(|i| u64::try_from(i.size).ok());
        size.ok_or_else(|| SessionError::call(name, Status::internal("no size in the answer")))
    }

    /// Begins to read a blob. A client may lie about what it sends: who reads must verify.
    pub async fn open(&self, digest: &Digest) -> Result<RemoteBlob, SessionError> {
        let size = self.size(digest).await?;
        let stream = self.stream(method::READ)?;
        let request = ReadContentRequest { digest: digest.to_string(), offset: 0, size: 0 };
        let RawStream { outgoing, incoming, .. } = stream;
        let _ = outgoing.send(request.encode_to_vec().into()).await;
        drop(outgoing);
        let session = self.session.clone();
        let pieces = incoming.map(|message| {
            let piece: ReadContentResponse = decode(&message?)?;
            Ok::<_, Status>((piece.offset, Bytes::from(piece.data)))
        });
        // Ends with the session; a piece out of place would make another blob of it.
        let data = stream::unfold((pieces, 0i64), move |(mut pieces, at)| {
            let session = session.clone();
            async move {
                let next = tokio::select! {
                    biased;
                    next = pieces.next() => next?,
                    () = session.ended() => Err(Status::unavailable("session ended")),
                };
                let (piece, at) = match next {
                    Ok((offset, data)) if offset == at => {
                        let end = at.saturating_add(i64::try_from(data.len()).unwrap_or(i64::MAX));
                        (Ok(data), end)
                    }
                    Ok((offset, _)) => {
                        (Err(io::Error::other(format!("the client sent byte {offset} instead of {at}"))), at)
                    }
                    Err(status) => (Err(io::Error::other(status.message().to_string())), at),
                };
                Some((piece, (pieces, at)))
            }
        });
        Ok(RemoteBlob { size, data: data.boxed() })
    }

    /// Writes a blob of `size` bytes, unless the store has it. The client verifies the digest.
    pub async fn write(
        &self,
        digest: &Digest,
        size: u64,
        mut data: impl AsyncRead + Unpin,
    ) -> Result<(), SessionError> {
        let stream = self.stream(method::WRITE)?;
        let name = format!("write blob {digest} to store {}", self.id);
        let work = async {
            match write(stream, digest, size, &mut data).await {
                Err(status) if status.code() == Code::AlreadyExists => Ok(Response::new(())),
                other => other.map(Response::new),
            }
        };
        self.session.call(name, work).await
    }
}

async fn write(
    mut stream: RawStream,
    digest: &Digest,
    size: u64,
    data: &mut (impl AsyncRead + Unpin),
) -> Result<(), Status> {
    let total = i64::try_from(size).map_err(|_| Status::invalid_argument("blob is too large"))?;
    let start = WriteContentRequest {
        action: WriteAction::Stat.into(),
        r#ref: format!("kiln-{digest}"),
        total,
        expected: digest.to_string(),
        ..WriteContentRequest::default()
    };
    let _: WriteContentResponse = one(&mut stream, &start).await?;
    // What an earlier try left is not trusted: the first write, at 0, truncates.
    let mut offset = 0i64;
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        (&mut *data).take(PIECE as u64).read_to_end(&mut piece).await?;
        if piece.is_empty() {
            break;
        }
        let end = offset.saturating_add(i64::try_from(piece.len()).unwrap_or(i64::MAX));
        let action = WriteAction::Write.into();
        let request = WriteContentRequest { action, offset, data: piece, ..WriteContentRequest::default() };
        let answer: WriteContentResponse = one(&mut stream, &request).await?;
        if answer.offset != end {
            return Err(Status::data_loss(format!("the client kept {} of {end} bytes", answer.offset)));
        }
        offset = end;
    }
    let action = WriteAction::Commit.into();
    let expected = digest.to_string();
    let commit = WriteContentRequest { action, total, offset, expected, ..WriteContentRequest::default() };
    one::<WriteContentResponse>(&mut stream, &commit).await.map(drop)
}
