//! A blob writer on a thread of its own: hashing and disk do not hold up the network.

use bytes::Bytes;
use kiln_content::{BlobWriter, ContentError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::Result;

/// Pieces under way between network and disk.
const QUEUE: usize = 32;

enum Piece {
    Data(Bytes),
    /// Start again at offset 0.
    Reset,
}

/// Takes the pieces of one blob in order. When dropped, what has arrived stays for the next try.
pub(crate) struct Sink {
    pieces: Option<mpsc::Sender<Piece>>,
    writer: Option<JoinHandle<Result<BlobWriter, ContentError>>>,
    offset: u64,
}

impl Sink {
    pub(crate) fn new(writer: BlobWriter) -> Self {
        let (pieces, queue) = mpsc::channel(QUEUE);
        let offset = writer.offset();
        let writer = tokio::task::spawn_blocking(move || write(writer, queue));
        Self { pieces: Some(pieces), writer: Some(writer), offset }
    }

    /// Bytes taken so far, also by earlier tries.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) async fn data(&mut self, data: Bytes) -> Result<()> {
        self.offset += data.len() as u64;
        self.give(Piece::Data(data)).await
    }

    pub(crate) async fn reset(&mut self) -> Result<()> {
        self.offset = 0;
        self.give(Piece::Reset).await
    }

    async fn give(&mut self, piece: Piece) -> Result<()> {
        let taken = match &self.pieces {
            Some(pieces) => pieces.send(piece).await.is_ok(),
            None => false,
        };
        if taken {
            return Ok(());
        }
        // The writer gave up; it says why.
        self.writer().await?;
        Err(lost().into())
    }

    /// Waits until everything is written and gives the writer back for its commit.
    pub(crate) async fn finish(mut self) -> Result<BlobWriter> {
        self.writer().await
    }

    async fn writer(&mut self) -> Result<BlobWriter> {
        self.pieces = None;
        match self.writer.take() {
            Some(writer) => Ok(writer.await.map_err(|_| lost())??),
            None => Err(lost().into()),
        }
    }
}

fn write(mut writer: BlobWriter, mut queue: mpsc::Receiver<Piece>) -> Result<BlobWriter, ContentError> {
    while let Some(piece) = queue.blocking_recv() {
        match piece {
            Piece::Data(data) => writer.write(&data)?,
            Piece::Reset => writer.reset()?,
        }
    }
    Ok(writer)
}

fn lost() -> ContentError {
    ContentError::Io {
        step: "write",
        blob: "download".to_string(),
        source: std::io::Error::other("the writing thread ended"),
    }
}
