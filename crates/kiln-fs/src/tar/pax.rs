//! PAX extended header records: `<length> <key>=<value>\n`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::Entry;
use super::sparse::PaxSparse;
use crate::meta::FileTime;

pub(super) const XATTR: &[u8] = b"SCHILY.xattr.";

/// Records that change the next entry.
#[derive(Debug, Default)]
pub(super) struct Records {
    fields: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Offsets and lengths of the GNU sparse format 0.0, which repeats its keys.
    sparse_pairs: Vec<Vec<u8>>,
}

impl Records {
    /// Parses a whole header; the last record of a key counts.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Records, &'static str> {
        let mut records = Records::default();
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or("bad PAX record")?;
            bytes = rest;
            match key {
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    let wants_offset = records.sparse_pairs.len().is_multiple_of(2);
                    if wants_offset != (key == b"GNU.sparse.offset") || value.contains(&b',') {
                        return Err("bad GNU sparse record");
                    }
                    records.sparse_pairs.push(value.to_vec());
                }
                _ => {
                    records.fields.insert(key.to_vec(), value.to_vec());
                }
            }
        }
        Ok(records)
    }

    /// A record with a value; an empty one means "as in the header".
    fn get(&self, key: &str) -> Option<&[u8]> {
        self.fields.get(key.as_bytes()).map(Vec::as_slice).filter(|v| !v.is_empty())
    }

    /// Applies the records; `size` is the number of bytes that follow in the archive.
    pub(super) fn apply(&self, entry: &mut Entry, size: &mut i64) -> Result<(), &'static str> {
        if let Some(path) = self.get("path") {
            entry.path = OsStr::from_bytes(path).into();
        }
        if let Some(link) = self.get("linkpath") {
            entry.link = OsStr::from_bytes(link).into();
        }
        if let Some(v) = self.get("uid") {
            entry.uid = decimal(v).ok_or("bad PAX uid")? as u32;
        }
        if let Some(v) = self.get("gid") {
            entry.gid = decimal(v).ok_or("bad PAX gid")? as u32;
        }
        if let Some(v) = self.get("size") {
            *size = decimal(v).ok_or("bad PAX size")?;
        }
        if let Some(v) = self.get("mtime") {
            entry.mtime = time(v).ok_or("bad PAX mtime")?;
        }
        if let Some(v) = self.get("atime") {
            entry.atime = Some(time(v).ok_or("bad PAX atime")?);
        }
        for (key, value) in &self.fields {
            if let Some(name) = key.strip_prefix(XATTR)
                && !name.is_empty()
            {
                entry.xattrs.insert(OsStr::from_bytes(name).to_os_string(), value.clone());
            }
        }
        Ok(())
    }

    /// The GNU sparse format these records describe, if they do.
    pub(super) fn sparse(&self) -> Result<Option<PaxSparse>, &'static str> {
        let map = match self.sparse_pairs.is_empty() {
            false => Some(self.sparse_pairs.join(&b',')),
            true => self.get("GNU.sparse.map").map(<[u8]>::to_vec),
        };
        let version = (self.get("GNU.sparse.major"), self.get("GNU.sparse.minor"));
        let in_content = match version {
            (Some(b"1"), Some(b"0")) => true,
            (Some(b"0"), Some(b"0" | b"1")) => false,
            (None, None) if map.is_some() => false,
            _ => return Ok(None),
        };
        let size = match self.get("GNU.sparse.size").or(self.get("GNU.sparse.realsize")) {
            Some(v) => Some(decimal(v).ok_or("bad GNU sparse size")?),
            None => None,
        };
        let count = match in_content {
            true => 0,
            false => self.get("GNU.sparse.numblocks").and_then(decimal).ok_or("bad GNU sparse count")?,
        };
        let name = self.get("GNU.sparse.name").map(|n| OsStr::from_bytes(n).into());
        Ok(Some(PaxSparse { name, size, count, map: (!in_content).then(|| map.unwrap_or_default()) }))
    }
}

/// Cuts off one record.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|&b| b == b' ')?;
    let len = usize::try_from(decimal(&bytes[..space])?).ok()?;
    if len > bytes.len() || len < space + 3 {
        return None;
    }
    let (this, rest) = bytes.split_at(len);
    let this = this[space + 1..].strip_suffix(b"\n")?;
    let equals = this.iter().position(|&b| b == b'=')?;
    let (key, value) = (&this[..equals], &this[equals + 1..]);
    let text = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname");
    let bad = key.is_empty() || key.contains(&0) || (text && value.contains(&0));
    (!bad).then_some((key, value, rest))
}

/// Formats one record; the length counts itself.
pub(super) fn format_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + digits(rest);
    if rest + digits(len) != len {
        len = rest + digits(len);
    }
    out.extend_from_slice(len.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn digits(n: usize) -> usize {
    n.to_string().len()
}

/// A decimal number with an optional sign.
pub(super) fn decimal(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// `seconds[.fraction]`, digits beyond nanoseconds dropped.
fn time(bytes: &[u8]) -> Option<FileTime> {
    let (secs, fraction) = match bytes.iter().position(|&b| b == b'.') {
        Some(dot) => (&bytes[..dot], &bytes[dot + 1..]),
        None => (bytes, &b""[..]),
    };
    let secs_value = decimal(secs)?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanos = 0u32;
    for i in 0..9 {
        nanos = nanos * 10 + u32::from(fraction.get(i).map_or(0, |d| d - b'0'));
    }
    if secs.first() == Some(&b'-') && nanos > 0 {
        return Some(FileTime { secs: secs_value.checked_sub(1)?, nanos: 1_000_000_000 - nanos });
    }
    Some(FileTime { secs: secs_value, nanos })
}

/// A time as a record's value: no trailing zeros, no point without fraction.
pub(super) fn format_time(t: FileTime) -> String {
    if t.nanos == 0 {
        return t.secs.to_string();
    }
    let (sign, secs, nanos) = match t.secs < 0 {
        true => ("-", -(i128::from(t.secs) + 1), 1_000_000_000 - t.nanos),
        false => ("", i128::from(t.secs), t.nanos),
    };
    let text = format!("{sign}{secs}.{nanos:09}");
    text.trim_end_matches('0').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_lengths_count_themselves() {
        for n in [0, 1, 80, 85, 86, 87, 88, 89, 90, 91, 92, 980, 985, 986, 987, 988, 990] {
            let mut out = Vec::new();
            let value = vec![b'v'; n];
            format_record(&mut out, b"key", &value);
            let (key, got, rest) = record(&out).unwrap();
            assert_eq!((key, got, rest), (&b"key"[..], &value[..], &b""[..]));
        }
    }

    #[test]
    fn bad_records_are_refused() {
        for bad in [
            &b"7 a=b\n"[..],
            b"6 a=b\nx",
            b"3 =\n",
            b"5 =b\n",
            b"99999999999999999999 a=b\n",
            b"-6 a=b\n",
            b" a=b\n",
            b"8 path=\0",
            b"10 path=\0\0\n",
        ] {
            assert!(Records::parse(bad).is_err(), "{}", bad.escape_ascii());
        }
        assert_eq!(Records::parse(b"6 a=b\n5 b=\n").unwrap().fields.len(), 2);
    }

    #[test]
    fn times_read_back() {
        for (text, secs, nanos) in [
            ("0", 0, 0),
            ("1.5", 1, 500_000_000),
            ("-1.5", -2, 500_000_000),
            ("-0.25", -1, 750_000_000),
            ("1.123456789", 1, 123_456_789),
        ] {
            let t = FileTime { secs, nanos };
            assert_eq!(time(text.as_bytes()), Some(t), "{text}");
            assert_eq!(format_time(t), text);
        }
        assert_eq!(time(b"1.1234567899"), Some(FileTime { secs: 1, nanos: 123_456_789 }));
        assert_eq!(time(b"1.x"), None);
    }
}
