//! A blob that is written as it comes: hashing and disk do not hold up the network, and a registry that is slow holds no
//! thread.

use bytes::Bytes;
use kiln_blocking::{Feed, Lost};
use kiln_content::{BlobWriter, ContentError};

use crate::{RegistryError, Result};

enum Piece {
    Data(Bytes),
    /// Start again at offset 0.
    Reset,
}

/// Takes the pieces of one blob in order. When dropped, what has arrived stays for the next try.
pub(crate) struct Sink {
    feed: Feed<BlobWriter, Piece, Failed>,
    offset: u64,
}

/// Why nothing more is written.
enum Failed {
    Content(ContentError),
    Lost(Lost),
}

impl From<Lost> for Failed {
    fn from(e: Lost) -> Self {
        Self::Lost(e)
    }
}

impl From<Failed> for RegistryError {
    fn from(e: Failed) -> Self {
        Self::Content(match e {
            Failed::Content(e) => e,
            Failed::Lost(e) => {
                ContentError::Io { step: "write", blob: "download".to_string(), source: e.into() }
            }
        })
    }
}

impl Sink {
    pub(crate) fn new(writer: BlobWriter) -> Self {
        let offset = writer.offset();
        Self { feed: Feed::new(writer, write), offset }
    }

    /// Bytes taken so far, also by earlier tries.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) async fn data(&mut self, data: Bytes) -> Result<()> {
        let size = data.len();
        self.offset += size as u64;
        Ok(self.feed.give(Piece::Data(data), size).await?)
    }

    pub(crate) async fn reset(&mut self) -> Result<()> {
        self.offset = 0;
        Ok(self.feed.give(Piece::Reset, 0).await?)
    }

    /// Waits until everything is written and gives the writer back for its commit.
    pub(crate) async fn finish(self) -> Result<BlobWriter> {
        Ok(self.feed.finish().await?)
    }
}

fn write(writer: &mut BlobWriter, piece: Piece) -> Result<(), Failed> {
    match piece {
        Piece::Data(data) => writer.write(&data),
        Piece::Reset => writer.reset(),
    }
    .map_err(Failed::Content)
}
