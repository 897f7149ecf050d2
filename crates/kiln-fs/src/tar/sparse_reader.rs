//! Sparse entries of an archive being read.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::header::{self, Block, Layout};
use super::pax::Records;
use super::reader::Reader;
use super::sparse::{self, Piece};
use super::{BLOCK, Entry, EntryKind, MAX_METADATA, TarError};

/// State of a sparse file being read.
#[derive(Debug)]
pub(super) struct Sparse {
    pieces: Vec<Piece>,
    next: usize,
    at: u64,
    size: u64,
}

impl<R: Read> Reader<R> {
    pub(super) fn begin_sparse(
        &mut self,
        block: &Block,
        entry: &mut Entry,
        pax: Option<&Records>,
        at: u64,
    ) -> Result<(), TarError> {
        let bad = |what| TarError::Malformed { offset: at, what };
        let pieces = if block[header::FLAG] == b'S' {
            let real = header::number(header::field(block, header::GNU_REAL_SIZE));
            entry.size =
                real.and_then(|v| u64::try_from(v).ok()).ok_or_else(|| bad("bad GNU sparse size"))?;
            self.gnu_pieces(block, at)?
        } else {
            let Some(described) = pax.map(Records::sparse).transpose().map_err(bad)?.flatten() else {
                return Ok(());
            };
            if entry.kind != EntryKind::File {
                return Err(bad("sparse map on something else than a file"));
            }
            if let Some(size) = described.size {
                entry.size = u64::try_from(size).map_err(|_| bad("bad GNU sparse size"))?;
            }
            let pieces = match described.map {
                Some(_) => described.pieces().map_err(bad)?,
                None => sparse::read_map_1_0(|| self.content_block(), bad)?,
            };
            entry.path = described.name.unwrap_or_else(|| std::mem::take(&mut entry.path));
            pieces
        };
        sparse::validate(&pieces, entry.size, self.left).map_err(bad)?;
        self.sparse = Some(Sparse { pieces, next: 0, at: 0, size: entry.size });
        Ok(())
    }

    fn gnu_pieces(&mut self, block: &Block, at: u64) -> Result<Vec<Piece>, TarError> {
        let bad = |what| TarError::Malformed { offset: at, what };
        if header::layout(block) != Layout::Gnu {
            return Err(bad("sparse file in a format that has none"));
        }
        let mut pieces = Vec::new();
        let mut more = sparse::read_map_gnu(sparse::gnu_area(block), &mut pieces).map_err(bad)?;
        let mut read = 0;
        while more {
            read += BLOCK as u64;
            if read > MAX_METADATA {
                return Err(bad("GNU sparse map is too long"));
            }
            let mut extension = [0; BLOCK];
            self.fill(&mut extension)?;
            more = sparse::read_map_gnu(&extension[..505], &mut pieces).map_err(bad)?;
        }
        Ok(pieces)
    }

    /// One block of the entry's stored content.
    fn content_block(&mut self) -> Result<Block, TarError> {
        let mut block = [0; BLOCK];
        if self.left < BLOCK as u64 {
            return Err(TarError::Malformed { offset: self.offset, what: "GNU sparse map is cut" });
        }
        self.fill(&mut block)?;
        self.left -= BLOCK as u64;
        Ok(block)
    }

    /// Copies the content of the present entry to an empty file; holes of sparse files stay holes.
    pub fn copy_content_to(&mut self, file: &mut File) -> io::Result<u64> {
        let Some(sparse) = self.sparse.take() else {
            let size = self.left;
            self.copy_stored(file, size)?;
            return Ok(size);
        };
        for &(offset, len) in &sparse.pieces {
            file.seek(SeekFrom::Start(offset))?;
            self.copy_stored(file, len)?;
        }
        file.set_len(sparse.size)?;
        Ok(sparse.size)
    }

    pub(super) fn read_sparse(&mut self, s: &mut Sparse, buf: &mut [u8]) -> io::Result<usize> {
        while s.pieces.get(s.next).is_some_and(|&(offset, len)| offset + len <= s.at) {
            s.next += 1;
        }
        let (start, end) = match s.pieces.get(s.next) {
            Some(&(offset, len)) => (offset, offset + len),
            None => (s.size, s.size),
        };
        let n = if s.at < start {
            let n = (buf.len() as u64).min(start - s.at) as usize;
            buf[..n].fill(0);
            n
        } else {
            let n = (buf.len() as u64).min(end - s.at) as usize;
            self.read_stored(&mut buf[..n])?
        };
        s.at += n as u64;
        Ok(n)
    }
}
