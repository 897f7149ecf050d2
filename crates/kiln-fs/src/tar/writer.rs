//! The writing side.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;

use super::header::{self, Block, Field};
use super::pax;
use super::{BLOCK, Entry, EntryKind, MAX_METADATA, TarError};
use crate::paths;

/// Writes an archive: the same entries in the same order give the same bytes, those of Go's `archive/tar` with
/// `Format: PAX` and no user names. Times are written with their fraction if they have one: cut it before where whole
/// seconds are wanted. Access times are not written.
#[derive(Debug)]
pub struct Writer<W: Write> {
    inner: W,
    /// Content bytes the present entry still needs.
    left: u64,
    pad: usize,
}

impl<W: Write> Writer<W> {
    /// Starts an archive.
    pub fn new(inner: W) -> Writer<W> {
        Writer { inner, left: 0, pad: 0 }
    }

    /// Writes an entry with its content, of which exactly `entry.size` bytes are taken (none for other than files).
    pub fn append(&mut self, entry: &Entry, mut content: impl Read) -> Result<(), TarError> {
        self.begin(entry)?;
        let copied = io::copy(&mut (&mut content).take(self.left), self)?;
        match self.left {
            0 => Ok(()),
            _ => Err(TarError::Unwritable { path: entry.path.clone(), what: short(copied) }),
        }
    }

    /// Writes an entry without content.
    pub fn append_empty(&mut self, entry: &Entry) -> Result<(), TarError> {
        self.append(entry, io::empty())
    }

    /// Writes the header of an entry; `entry.size` bytes of content must follow through `Write` (none for other than
    /// files). The one before must be complete. Directories get a trailing slash.
    pub fn begin(&mut self, entry: &Entry) -> Result<(), TarError> {
        self.end_entry()?;
        let refuse = |what| TarError::Unwritable { path: entry.path.clone(), what };
        let mut name = entry.path.as_os_str().as_bytes().to_vec();
        match entry.kind {
            EntryKind::Dir if !name.ends_with(b"/") => name.push(b'/'),
            EntryKind::GlobalHeader | EntryKind::Other(_) => return Err(refuse("unknown type")),
            EntryKind::Dir | EntryKind::Symlink | EntryKind::HardLink => {}
            _ if name.ends_with(b"/") => return Err(refuse("name ends with a slash")),
            _ => {}
        }
        let size = if entry.kind == EntryKind::File { entry.size } else { 0 };
        let records = Plan::new(entry, &name, size).map_err(refuse)?;
        let split = split_name(&name);
        let ustar = records.ustar;
        if !ustar {
            self.extended_header(&name, &records.pax).map_err(|e| match e {
                Extended::TooLong => refuse("extended header is too long"),
                Extended::Io(e) => TarError::Io(e),
            })?;
        }
        let mut block = template(entry, size);
        match split.filter(|_| ustar) {
            Some((prefix, rest)) => {
                header::put(&mut block, header::USTAR_PREFIX, prefix);
                header::put(&mut block, header::NAME, rest);
            }
            None => put_text(&mut block, header::NAME, &name),
        }
        put_text(&mut block, header::LINK, entry.link.as_os_str().as_bytes());
        header::set_ustar_magic(&mut block);
        header::set_checksum(&mut block);
        self.inner.write_all(&block)?;
        self.left = size;
        self.pad = padding(size);
        Ok(())
    }

    /// Content bytes that the present entry still needs.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The stream, to take out what was written so far.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// Ends the archive with two zero blocks and gives the stream back.
    pub fn finish(mut self) -> Result<W, TarError> {
        self.end_entry()?;
        self.inner.write_all(&[0; 2 * BLOCK])?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    fn end_entry(&mut self) -> Result<(), TarError> {
        if self.left > 0 {
            return Err(
                io::Error::new(io::ErrorKind::InvalidInput, "content of a tar entry is missing").into()
            );
        }
        self.inner.write_all(&[0; BLOCK][..self.pad])?;
        self.pad = 0;
        Ok(())
    }

    fn extended_header(&mut self, name: &[u8], records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<(), Extended> {
        let mut data = Vec::new();
        for (key, value) in records {
            pax::format_record(&mut data, key, value);
        }
        if data.len() as u64 > MAX_METADATA {
            return Err(Extended::TooLong);
        }
        let mut block: Block = [0; BLOCK];
        header::put(&mut block, header::NAME, &extended_name(name));
        for field in [header::MODE, header::UID, header::GID, header::MTIME] {
            header::put_octal(&mut block, field, 0);
        }
        header::put_octal(&mut block, header::SIZE, data.len() as i64);
        block[header::FLAG] = b'x';
        header::set_ustar_magic(&mut block);
        header::set_checksum(&mut block);
        data.resize(data.len() + padding(data.len() as u64), 0);
        self.inner.write_all(&block).and_then(|()| self.inner.write_all(&data)).map_err(Extended::Io)
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = (buf.len() as u64).min(self.left) as usize;
        if n == 0 && !buf.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "content of a tar entry is too long"));
        }
        let n = self.inner.write(&buf[..n])?;
        self.left -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

enum Extended {
    TooLong,
    Io(io::Error),
}

fn short(copied: u64) -> &'static str {
    if copied == 0 { "content is missing" } else { "content is shorter than announced" }
}

fn padding(size: u64) -> usize {
    (size.next_multiple_of(BLOCK as u64) - size) as usize
}

fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().all(|&b| b < 0x80 && b != 0)
}

/// Which records an entry needs, and whether it does without any.
struct Plan {
    pax: BTreeMap<Vec<u8>, Vec<u8>>,
    ustar: bool,
}

impl Plan {
    fn new(entry: &Entry, name: &[u8], size: u64) -> Result<Plan, &'static str> {
        let mut plan = Plan { pax: BTreeMap::new(), ustar: true };
        plan.text("path", name, header::NAME, split_name(name).is_some())?;
        plan.text("linkpath", entry.link.as_os_str().as_bytes(), header::LINK, false)?;
        plan.number("uid", entry.uid.into(), header::UID);
        plan.number("gid", entry.gid.into(), header::GID);
        plan.number("size", i64::try_from(size).map_err(|_| "size")?, header::SIZE);
        let mtime = entry.mtime;
        if mtime.nanos != 0 || !header::fits_octal(header::MTIME, mtime.secs) {
            plan.record("mtime", pax::format_time(mtime).into_bytes());
        }
        for (key, value) in &entry.xattrs {
            let key = [pax::XATTR, key.as_bytes()].concat();
            if key.contains(&b'=') || key.contains(&0) {
                return Err("name of an extended attribute");
            }
            plan.pax.insert(key, value.clone());
            plan.ustar = false;
        }
        let (major, minor) = entry.rdev;
        if !header::fits_octal(header::DEV_MAJOR, major.into())
            || !header::fits_octal(header::DEV_MINOR, minor.into())
        {
            return Err("device number");
        }
        Ok(plan)
    }

    fn record(&mut self, key: &str, value: Vec<u8>) {
        self.pax.insert(key.as_bytes().to_vec(), value);
        self.ustar = false;
    }

    fn text(&mut self, key: &str, value: &[u8], field: Field, splits: bool) -> Result<(), &'static str> {
        if value.contains(&0) {
            return Err("NUL in a name");
        }
        if value.len() > field.1 || !is_plain(value) {
            // A name that only needs the prefix field is still recorded when there are records anyway.
            let ustar = self.ustar && splits;
            self.record(key, value.to_vec());
            self.ustar = ustar;
        }
        Ok(())
    }

    fn number(&mut self, key: &str, value: i64, field: Field) {
        if !header::fits_octal(field, value) {
            self.record(key, value.to_string().into_bytes());
        }
    }
}

/// Splits a long name at a slash into prefix and name, where USTAR has room for both.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= header::NAME.1 || !is_plain(name) {
        return None;
    }
    let longest = header::USTAR_PREFIX.1 + 1;
    let mut len = name.len();
    if len > longest {
        len = longest;
    } else if name.last() == Some(&b'/') {
        len -= 1;
    }
    let at = name[..len].iter().rposition(|&b| b == b'/')?;
    let (prefix, rest) = (&name[..at], &name[at + 1..]);
    let fits = at > 0 && !rest.is_empty() && rest.len() <= header::NAME.1 && at <= header::USTAR_PREFIX.1;
    fits.then_some((prefix, rest))
}

fn template(entry: &Entry, size: u64) -> Block {
    let mut block: Block = [0; BLOCK];
    block[header::FLAG] = entry.kind.flag();
    header::put_octal(&mut block, header::MODE, (entry.mode & 0o7777).into());
    header::put_octal(&mut block, header::UID, entry.uid.into());
    header::put_octal(&mut block, header::GID, entry.gid.into());
    header::put_octal(&mut block, header::SIZE, i64::try_from(size).unwrap_or(0));
    header::put_octal(&mut block, header::MTIME, entry.mtime.secs);
    header::put_octal(&mut block, header::DEV_MAJOR, entry.rdev.0.into());
    header::put_octal(&mut block, header::DEV_MINOR, entry.rdev.1.into());
    block
}

/// Writes text without what is not ASCII. Readers without PAX must not take a cut name for a directory.
fn put_text(block: &mut Block, field: Field, text: &[u8]) {
    let ascii = ascii(text);
    header::put(block, field, &ascii);
    if ascii.len() > field.1 {
        let cut = &mut block[field.0..field.0 + field.1];
        if let Some(last) = cut.iter().rposition(|&b| b != b'/')
            && last + 1 < cut.len()
        {
            cut[last + 1] = 0;
        }
    }
}

fn ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|&b| b < 0x80 && b != 0).collect()
}

/// The name of an extended header: `dir/PaxHeaders.0/file`.
fn extended_name(name: &[u8]) -> Vec<u8> {
    use std::ffi::OsStr;
    use std::path::Path;
    let (dir, file) = paths::split(Path::new(OsStr::from_bytes(name)));
    let joined = paths::clean(dir.join("PaxHeaders.0").join(file));
    let mut short = ascii(joined.as_os_str().as_bytes());
    short.truncate(header::NAME.1);
    while short.last() == Some(&b'/') {
        short.pop();
    }
    short
}
