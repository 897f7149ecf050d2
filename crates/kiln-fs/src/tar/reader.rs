//! The reading side.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::header::{self, Block, Layout};
use super::pax::Records;
use super::sparse_reader::Sparse;
use super::{BLOCK, Entry, EntryKind, MAX_METADATA, TarError};
use crate::meta::FileTime;

/// Reads an archive from a stream, entry by entry; `Read` gives the content of the present entry.
///
/// Whatever is not read of an entry is skipped by the next call. Memory is bounded by [`MAX_METADATA`] per entry.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    /// Bytes read so far.
    pub(super) offset: u64,
    /// Stored bytes left of the present entry.
    pub(super) left: u64,
    /// Bytes of padding behind them.
    pad: u64,
    pub(super) sparse: Option<Sparse>,
    done: bool,
    /// For copying; kept between entries.
    buffer: Vec<u8>,
}

const COPY_BUFFER: usize = 128 << 10;

impl<R: Read> Reader<R> {
    /// Starts at the first header. The stream should be buffered or cheap to read in blocks.
    pub fn new(inner: R) -> Reader<R> {
        Reader { inner, offset: 0, left: 0, pad: 0, sparse: None, done: false, buffer: Vec::new() }
    }

    /// The stream below, e.g. to drain what follows the archive's end.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry; `None` at the end of the archive. PAX global headers are returned as entries of their own.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.done {
            return Ok(None);
        }
        let mut pax = None;
        let mut long_name = None;
        let mut long_link = None;
        loop {
            self.skip_rest()?;
            let at = self.offset;
            let bad = |what| TarError::Malformed { offset: at, what };
            let Some(block) = self.read_header()? else {
                self.done = true;
                return Ok(None);
            };
            let (mut entry, mut size) = parse(&block).map_err(bad)?;
            match block[header::FLAG] {
                b'x' => pax = Some(Records::parse(&self.metadata(size, at)?).map_err(bad)?),
                b'g' => {
                    Records::parse(&self.metadata(size, at)?).map_err(bad)?;
                    return Ok(Some(entry));
                }
                b'L' => long_name = Some(path(header::c_string(&self.metadata(size, at)?))),
                b'K' => long_link = Some(path(header::c_string(&self.metadata(size, at)?))),
                flag => {
                    if let Some(pax) = &pax {
                        pax.apply(&mut entry, &mut size).map_err(bad)?;
                    }
                    entry.path = long_name.filter(|n| !n.as_os_str().is_empty()).unwrap_or(entry.path);
                    entry.link = long_link.filter(|n| !n.as_os_str().is_empty()).unwrap_or(entry.link);
                    if flag == 0 && entry.path.as_os_str().as_bytes().ends_with(b"/") {
                        entry.kind = EntryKind::Dir;
                    }
                    self.begin(&mut entry, size).map_err(bad)?;
                    self.begin_sparse(&block, &mut entry, pax.as_ref(), at)?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    pub(super) fn copy_stored(&mut self, file: &mut File, mut left: u64) -> io::Result<()> {
        let mut buf = std::mem::take(&mut self.buffer);
        buf.resize(COPY_BUFFER, 0);
        while left > 0 {
            // Filled before it is written: decompressors give small pieces.
            let want = left.min(COPY_BUFFER as u64) as usize;
            let mut n = 0;
            while n < want {
                n += self.read_stored(&mut buf[n..want])?;
            }
            file.write_all(&buf[..n])?;
            left -= n as u64;
        }
        self.buffer = buf;
        Ok(())
    }

    fn begin(&mut self, entry: &mut Entry, size: i64) -> Result<(), &'static str> {
        let size = if entry.kind.is_header_only() { 0 } else { size };
        self.left = u64::try_from(size).map_err(|_| "negative size")?;
        self.pad = self.left.next_multiple_of(BLOCK as u64) - self.left;
        if entry.kind == EntryKind::File {
            entry.size = self.left;
        }
        Ok(())
    }

    /// The content of a header that describes the next one.
    fn metadata(&mut self, size: i64, at: u64) -> Result<Vec<u8>, TarError> {
        let bad = |what| TarError::Malformed { offset: at, what };
        let size = u64::try_from(size).map_err(|_| bad("negative size"))?;
        if size > MAX_METADATA {
            return Err(bad("extended header is too long"));
        }
        let mut bytes = vec![0; size as usize];
        self.fill(&mut bytes)?;
        self.left = 0;
        self.pad = size.next_multiple_of(BLOCK as u64) - size;
        Ok(bytes)
    }

    /// The next header; `None` at the end: two zero blocks, or one and nothing, or nothing.
    fn read_header(&mut self) -> Result<Option<Block>, TarError> {
        let at = self.offset;
        let mut block = [0; BLOCK];
        if !self.fill_or_end(&mut block)? {
            return Ok(None);
        }
        if block == [0; BLOCK] {
            if self.fill_or_end(&mut block)? && block != [0; BLOCK] {
                return Err(TarError::Malformed { offset: at, what: "lone zero block" });
            }
            return Ok(None);
        }
        match header::checksum_ok(&block) {
            true => Ok(Some(block)),
            false => Err(TarError::Malformed { offset: at, what: "bad checksum" }),
        }
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        self.sparse = None;
        let mut left = self.left + self.pad;
        (self.left, self.pad) = (0, 0);
        let mut buf = [0u8; 32 << 10];
        while left > 0 {
            let n = left.min(buf.len() as u64) as usize;
            self.fill(&mut buf[..n])?;
            left -= n as u64;
        }
        Ok(())
    }

    pub(super) fn fill(&mut self, buf: &mut [u8]) -> Result<(), TarError> {
        match self.fill_or_end(buf)? || buf.is_empty() {
            true => Ok(()),
            false => Err(TarError::Truncated { offset: self.offset }),
        }
    }

    /// Fills the buffer; `false` if the stream had ended before its first byte.
    fn fill_or_end(&mut self, buf: &mut [u8]) -> Result<bool, TarError> {
        let mut n = 0;
        while n < buf.len() {
            match self.inner.read(&mut buf[n..]) {
                Ok(0) if n == 0 => return Ok(false),
                Ok(0) => return Err(TarError::Truncated { offset: self.offset }),
                Ok(got) => {
                    n += got;
                    self.offset += got as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }

    pub(super) fn read_stored(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = (buf.len() as u64).min(self.left) as usize;
        if n == 0 {
            return Ok(0);
        }
        let got = self.inner.read(&mut buf[..n])?;
        if got == 0 {
            return Err(TarError::Truncated { offset: self.offset }.into());
        }
        self.offset += got as u64;
        self.left -= got as u64;
        Ok(got)
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(mut sparse) = self.sparse.take() else { return self.read_stored(buf) };
        let n = self.read_sparse(&mut sparse, buf);
        self.sparse = Some(sparse);
        n
    }
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// The fields of a header, and the size field (which is not the size of the file for some types).
fn parse(block: &Block) -> Result<(Entry, i64), &'static str> {
    let layout = header::layout(block);
    let num = |f| header::number(header::field(block, f)).ok_or("bad number");
    let mut name = header::prefix(block, layout).to_vec();
    if !name.is_empty() {
        name.push(b'/');
    }
    name.extend_from_slice(header::text(block, header::NAME));
    let mut entry = Entry::new(path(&name), EntryKind::from_flag(block[header::FLAG]));
    entry.link = path(header::text(block, header::LINK));
    entry.mode = (num(header::MODE)? & 0o7777) as u32;
    entry.uid = num(header::UID)? as u32;
    entry.gid = num(header::GID)? as u32;
    entry.mtime = FileTime { secs: num(header::MTIME)?, nanos: 0 };
    if layout != Layout::V7 {
        entry.rdev = (num(header::DEV_MAJOR)? as u32, num(header::DEV_MINOR)? as u32);
    }
    if layout == Layout::Gnu && header::field(block, header::GNU_ATIME)[0] != 0 {
        entry.atime =
            header::number(header::field(block, header::GNU_ATIME)).map(|secs| FileTime { secs, nanos: 0 });
    }
    Ok((entry, num(header::SIZE)?))
}
