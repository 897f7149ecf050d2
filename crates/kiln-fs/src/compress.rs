//! Compressed streams: what layers are packed with, and what ADD unpacks.
//!
//! The encoders give the same bytes on every machine and for every number of threads; only input, level and library
//! version count.

mod gzip;

use std::io::{self, BufReader, Read, Write};

use self::gzip::GzipEncoder;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    Uncompressed,
    /// gzip, RFC 1952.
    Gzip,
    /// Zstandard, RFC 8878.
    Zstd,
    /// bzip2; reading only.
    Bzip2,
    /// xz; reading only.
    Xz,
}

/// Bytes at the start of a stream that [`detect`] wants to see.
pub const MAGIC_LEN: usize = 6;

/// The largest dictionary an xz stream may ask for, with some room: `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;
/// zstd streams with a larger window are refused (RFC 8878 recommends to support 8 MiB; the tools accept this).
const ZSTD_WINDOW_LOG: u32 = 27;

/// Recognises a stream by its first bytes.
pub fn detect(start: &[u8]) -> Compression {
    let zstd_skippable = matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
    if start.starts_with(&[0x1f, 0x8b, 0x08]) {
        Compression::Gzip
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || zstd_skippable {
        Compression::Zstd
    } else if start.starts_with(b"BZh") {
        Compression::Bzip2
    } else if start.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        Compression::Xz
    } else {
        Compression::Uncompressed
    }
}

/// Decompresses a stream, also one of several members or frames. Memory is bounded.
pub fn decoder<'a>(
    kind: Compression,
    stream: impl Read + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let stream = BufReader::with_capacity(128 << 10, stream);
    Ok(match kind {
        Compression::Uncompressed => Box::new(stream),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        Compression::Zstd => {
            let mut d = zstd::stream::read::Decoder::with_buffer(stream)?;
            d.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(d)
        }
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(stream)),
        Compression::Xz => {
            let d = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED);
            Box::new(liblzma::bufread::XzDecoder::new_stream(stream, d.map_err(io::Error::other)?))
        }
    })
}

/// Finds out how a stream is compressed and decompresses it.
pub fn auto_decoder<'a>(
    mut stream: impl Read + Send + 'a,
) -> io::Result<(Compression, Box<dyn Read + Send + 'a>)> {
    let mut start = Vec::with_capacity(MAGIC_LEN);
    (&mut stream).take(MAGIC_LEN as u64).read_to_end(&mut start)?;
    let kind = detect(&start);
    Ok((kind, decoder(kind, io::Cursor::new(start).chain(stream))?))
}

/// Compresses what is written to it into another stream. [`Encoder::finish`] must be called.
pub struct Encoder<W: Write> {
    inner: Inner<W>,
}

enum Inner<W: Write> {
    Plain(W),
    Gzip(Box<GzipEncoder<W>>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    /// `level`: gzip 0 to 9 (default 6), zstd 1 to 22 (default 3). `threads` may be 0 for one per processor.
    pub fn new(stream: W, kind: Compression, level: Option<i32>, threads: usize) -> io::Result<Encoder<W>> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let inner = match kind {
            Compression::Uncompressed => Inner::Plain(stream),
            Compression::Gzip => Inner::Gzip(Box::new(GzipEncoder::new(stream, level, threads)?)),
            Compression::Zstd => {
                let mut e = zstd::stream::write::Encoder::new(stream, zstd_level(level)?)?;
                // Without workers the library cuts the input differently; with any number of them it does not.
                e.multithread(u32::try_from(threads).unwrap_or(1))?;
                Inner::Zstd(e)
            }
            Compression::Bzip2 | Compression::Xz => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("{kind:?} is supported for reading only"),
                ));
            }
        };
        Ok(Encoder { inner })
    }

    /// Writes what is left and the trailer, and gives the stream back.
    pub fn finish(self) -> io::Result<W> {
        match self.inner {
            Inner::Plain(mut w) => {
                w.flush()?;
                Ok(w)
            }
            Inner::Gzip(e) => e.finish(),
            Inner::Zstd(e) => e.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Plain(w) => w.write(buf),
            Inner::Gzip(e) => e.write(buf),
            Inner::Zstd(e) => e.write(buf),
        }
    }

    /// Does nothing for the compressed forms: flushing would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.inner {
            Inner::Plain(w) => w.flush(),
            Inner::Gzip(_) | Inner::Zstd(_) => Ok(()),
        }
    }
}

fn zstd_level(level: Option<i32>) -> io::Result<i32> {
    match level.unwrap_or(3) {
        0 => Ok(3),
        n @ 1..=22 => Ok(n),
        n => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("zstd level {n} is not in 1 to 22"))),
    }
}

#[cfg(test)]
mod tests;
