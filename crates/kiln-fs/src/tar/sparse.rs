//! Sparse files: which pieces of a file are stored, and where they belong.

use std::path::PathBuf;

use super::MAX_METADATA;
use super::header::{Block, GNU_SPARSE, field, number};
use super::pax::decimal;

/// A stored piece: offset in the file and length.
pub(super) type Piece = (u64, u64);

/// What PAX records say about a sparse file (GNU formats 0.0, 0.1 and 1.0).
#[derive(Debug)]
pub(super) struct PaxSparse {
    /// The real name; the entry's own is made up.
    pub(super) name: Option<PathBuf>,
    /// The real size.
    pub(super) size: Option<i64>,
    /// Number of pieces, for a map in the records.
    pub(super) count: i64,
    /// The map as `offset,length,...`; `None`: it precedes the content (1.0).
    pub(super) map: Option<Vec<u8>>,
}

impl PaxSparse {
    /// Reads the map of formats 0.0 and 0.1.
    pub(super) fn pieces(&self) -> Result<Vec<Piece>, &'static str> {
        let map = self.map.as_deref().unwrap_or_default();
        let numbers: Vec<&[u8]> = match map.is_empty() {
            true => Vec::new(),
            false => map.split(|&b| b == b',').collect(),
        };
        if usize::try_from(self.count).ok().and_then(|n| n.checked_mul(2)) != Some(numbers.len()) {
            return Err("GNU sparse map has the wrong length");
        }
        numbers.chunks_exact(2).map(|pair| piece(decimal(pair[0]), decimal(pair[1]))).collect()
    }
}

/// Reads the map that precedes the content in format 1.0: decimal numbers, one per line, padded to whole blocks. `next`
/// gives the next block.
pub(super) fn read_map_1_0<E>(
    mut next: impl FnMut() -> Result<Block, E>,
    bad: impl Fn(&'static str) -> E,
) -> Result<Vec<Piece>, E> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut at = 0;
    let mut line = || loop {
        if let Some(n) = bytes[at..].iter().position(|&b| b == b'\n') {
            let value = decimal(&bytes[at..at + n]);
            at += n + 1;
            return value.filter(|&v| v >= 0).ok_or_else(|| bad("bad GNU sparse map"));
        }
        if bytes.len() as u64 >= MAX_METADATA {
            return Err(bad("GNU sparse map is too long"));
        }
        bytes.extend_from_slice(&next()?);
    };
    let count = line()?;
    let mut pieces = Vec::new();
    for _ in 0..count {
        let (offset, len) = (line()?, line()?);
        pieces.push((offset as u64, len as u64));
    }
    Ok(pieces)
}

/// Reads the pieces in a GNU header or one of its extensions; returns whether another extension follows.
pub(super) fn read_map_gnu(area: &[u8], pieces: &mut Vec<Piece>) -> Result<bool, &'static str> {
    let (entries, flag) = area.split_at(area.len() / 24 * 24);
    for e in entries.chunks_exact(24) {
        if e[0] == 0 {
            break;
        }
        pieces.push(piece(number(&e[..12]), number(&e[12..]))?);
    }
    Ok(flag.first().is_some_and(|&f| f > 0))
}

pub(super) fn gnu_area(block: &Block) -> &[u8] {
    field(block, GNU_SPARSE)
}

fn piece(offset: Option<i64>, len: Option<i64>) -> Result<Piece, &'static str> {
    let offset = offset.and_then(|v| u64::try_from(v).ok());
    let len = len.and_then(|v| u64::try_from(v).ok());
    offset.zip(len).ok_or("bad number in GNU sparse map")
}

/// Checks that the pieces are in order, inside the file, and are exactly the `stored` bytes that follow.
pub(super) fn validate(pieces: &[Piece], size: u64, stored: u64) -> Result<(), &'static str> {
    let mut end = 0u64;
    let mut sum = 0u64;
    for &(offset, len) in pieces {
        let this_end =
            offset.checked_add(len).filter(|&e| e <= size).ok_or("sparse piece beyond the file")?;
        if offset < end {
            return Err("sparse pieces overlap");
        }
        end = this_end;
        sum += len;
    }
    if sum != stored { Err("sparse map and content differ in length") } else { Ok(()) }
}
