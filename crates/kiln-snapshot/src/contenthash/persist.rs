//! A [`HashTree`] as bytes. Version 1: the line `kiln-hashes 1`, the records in tree order, then the BLAKE3 of all
//! before it. Whatever does not check out counts as nothing known, because everything can be computed again.

use std::collections::BTreeMap;

use kiln_digest::Digest;

use super::tree::{Dir, HashTree, MAX_DEPTH, Name, Node};

const MAGIC: &[u8] = b"kiln-hashes 1\n";
const HASH: usize = 32;

const FILE: u8 = b'f';
const LINK: u8 = b'l';
const DIR: u8 = b'd';
const END: u8 = b'.';

impl HashTree {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        write_dir(&self.root, &mut out);
        let hash = blake3::hash(&out);
        out.extend_from_slice(hash.as_bytes());
        out
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (body, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH)?)?;
        if blake3::hash(body).as_bytes() != hash {
            return None;
        }
        let mut rest = body.strip_prefix(MAGIC)?;
        let root = read_dir(&mut rest, 0)?;
        rest.is_empty().then(|| Self { root, ..Self::default() })
    }
}

fn write_digest(digest: Option<Digest>, out: &mut Vec<u8>) {
    match digest {
        Some(digest) => {
            out.push(1);
            out.extend_from_slice(digest.as_bytes());
        }
        None => out.push(0),
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    // Names and link targets are at most 4096 bytes (PATH_MAX); anything longer cannot come from a file system.
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&bytes[..usize::from(length)]);
}

fn write_dir(dir: &Dir, out: &mut Vec<u8>) {
    out.push(u8::from(dir.scanned));
    write_digest(dir.header, out);
    write_digest(dir.total, out);
    for (name, node) in &dir.children {
        let kind = match node {
            Node::File(_) => FILE,
            Node::Symlink { .. } => LINK,
            Node::Dir(_) => DIR,
        };
        out.push(kind);
        write_bytes(name, out);
        match node {
            Node::File(digest) => write_digest(*digest, out),
            Node::Symlink { target, digest } => {
                write_bytes(target, out);
                write_digest(*digest, out);
            }
            Node::Dir(dir) => write_dir(dir, out),
        }
    }
    out.push(END);
}

fn take<'b>(rest: &mut &'b [u8], n: usize) -> Option<&'b [u8]> {
    let (head, tail) = rest.split_at_checked(n)?;
    *rest = tail;
    Some(head)
}

fn read_byte(rest: &mut &[u8]) -> Option<u8> {
    take(rest, 1).map(|b| b[0])
}

fn read_digest(rest: &mut &[u8]) -> Option<Option<Digest>> {
    match read_byte(rest)? {
        0 => Some(None),
        1 => Some(Some(Digest::from_sha256_bytes(take(rest, HASH)?.try_into().ok()?))),
        _ => None,
    }
}

fn read_bytes(rest: &mut &[u8]) -> Option<Box<[u8]>> {
    let length = u16::from_le_bytes(take(rest, 2)?.try_into().ok()?);
    take(rest, usize::from(length)).map(Into::into)
}

fn read_dir(rest: &mut &[u8], depth: usize) -> Option<Dir> {
    if depth > MAX_DEPTH {
        return None;
    }
    let scanned = read_byte(rest)? == 1;
    let (header, total) = (read_digest(rest)?, read_digest(rest)?);
    let mut children: BTreeMap<Name, Node> = BTreeMap::new();
    loop {
        let kind = read_byte(rest)?;
        if kind == END {
            return Some(Dir { header, total, scanned, children });
        }
        let name = read_bytes(rest)?;
        let node = match kind {
            FILE => Node::File(read_digest(rest)?),
            LINK => Node::Symlink { target: read_bytes(rest)?, digest: read_digest(rest)? },
            DIR => Node::Dir(read_dir(rest, depth + 1)?),
            _ => return None,
        };
        children.insert(name, node);
    }
}
