//! Files of a result, as frontends and clients look at them.
//!
//! Paths are resolved below the result's own root, links included. Only regular files are opened.

use kiln_fs::patterns::Matcher;
use kiln_fs::{FileKind, Root, compress, tar};
use kiln_llb::errdefs::{BuildError, Code};
use kiln_session::fsutil::Stat;
use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Most that is read of a file at once, in bytes: what fits into one message.
const READ_LIMIT: u64 = 16 << 20;
/// Most entries of a directory that are listed at once.
const ENTRY_LIMIT: usize = 100_000;
/// Most bytes of their names, links and attributes: what fits into one message.
const LISTING_LIMIT: usize = 15 << 20;
/// What an entry costs beside those.
const ENTRY: usize = 64;

/// A part of a file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRange {
    /// Where it begins.
    pub offset: u64,
    /// How long it is at most.
    pub length: u64,
}

/// The file, or the part of it that exists.
pub(crate) fn read(root: &Root, path: &str, range: Option<FileRange>) -> Result<Vec<u8>, BuildError> {
    let metadata = root.metadata(path, true).map_err(|e| failed("open", path, &e))?;
    if !metadata.is_file() {
        return Err(BuildError::msg(format!("{path} is not a regular file")));
    }
    let Some(FileRange { offset, length }) = range else {
        return root.read(path, READ_LIMIT).map_err(|e| failed("open", path, &e));
    };
    if length > READ_LIMIT && offset.checked_add(length).is_none() {
        return Err(BuildError::new(Code::InvalidArgument, format!("read {path}: range out of bounds")));
    }
    let mut file = root.open_file(path).map_err(|e| failed("open", path, &e))?;
    let mut data = Vec::new();
    let io = |e: std::io::Error| BuildError::msg(format!("read {path}: {e}"));
    file.seek(SeekFrom::Start(offset)).map_err(io)?;
    file.take(length.min(READ_LIMIT + 1)).read_to_end(&mut data).map_err(io)?;
    if data.len() as u64 > READ_LIMIT {
        return Err(BuildError::new(
            Code::ResourceExhausted,
            format!("{path} exceeds {READ_LIMIT} bytes; read it in parts"),
        ));
    }
    Ok(data)
}

/// When the newest regular file in an archive was made, in seconds since 1970. `None` when it holds none, or is none.
pub(crate) fn archive_time(root: &Root, path: &str) -> Result<Option<i64>, BuildError> {
    let file = root.open_file(path).map_err(|e| failed("open", path, &e))?;
    let Ok((_, stream)) = compress::auto_decoder(file) else { return Ok(None) };
    let mut archive = tar::Reader::new(stream);
    let mut newest = None;
    loop {
        match archive.next_entry() {
            Ok(Some(entry)) if matches!(entry.kind, tar::EntryKind::File | tar::EntryKind::HardLink) => {
                newest = newest.max(Some(entry.mtime.secs));
            }
            Ok(Some(_)) => {}
            Ok(None) => return Ok(newest),
            Err(_) => return Ok(None),
        }
    }
}

/// The entries of a directory in the order of their names; with a pattern only those that match it.
pub(crate) fn list(root: &Root, path: &str, include: &str) -> Result<Vec<Stat>, BuildError> {
    let patterns = Some(include).filter(|p| !p.is_empty());
    let matcher = patterns.map(|p| Matcher::new([p])).transpose();
    let matcher = matcher.map_err(|e| BuildError::new(Code::InvalidArgument, e.to_string()))?;
    let dir = root.open_dir(path).map_err(|e| failed("open", path, &e))?;
    let mut names: Vec<_> = dir
        .read_dir(".")
        .map_err(|e| failed("readdir", path, &e))?
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    names.sort();
    let mut seen = HashMap::new();
    let mut out = Vec::new();
    let mut bytes = 0;
    for name in names {
        let name = Path::new(&name);
        if let Some(matcher) = &matcher
            && !matcher.matches(name).map_err(|e| BuildError::new(Code::InvalidArgument, e.to_string()))?
        {
            continue;
        }
        if out.len() >= ENTRY_LIMIT {
            let message = format!("{path} has more than {ENTRY_LIMIT} entries");
            return Err(BuildError::new(Code::ResourceExhausted, message));
        }
        let entry = entry(&dir, name, &mut seen)?;
        bytes += weight(&entry);
        if bytes > LISTING_LIMIT {
            let message = format!("the entries of {path} have more than {LISTING_LIMIT} bytes");
            return Err(BuildError::new(Code::ResourceExhausted, message));
        }
        out.push(entry);
    }
    Ok(out)
}

fn weight(entry: &Stat) -> usize {
    let xattrs: usize = entry.xattrs.iter().map(|(k, v)| k.len() + v.len() + ENTRY).sum();
    ENTRY + entry.path.len() + entry.linkname.len() + xattrs
}

/// One entry. A link at the end of the path is followed.
pub(crate) fn stat(root: &Root, path: &str) -> Result<Stat, BuildError> {
    let real = root.canonical(path, true).map_err(|e| failed("lstat", path, &e))?;
    let metadata = root.metadata(&real, false).map_err(|e| failed("lstat", path, &e))?;
    let name = real.file_name().map_or(&b"/"[..], OsStrExt::as_bytes);
    let mut stat = Stat::new(name.to_vec(), &metadata);
    stat.xattrs = xattrs(root, &real);
    Ok(stat)
}

/// `seen` knows the first name of every file with several.
fn entry(
    dir: &Root,
    name: &Path,
    seen: &mut HashMap<((u32, u32), u64), Vec<u8>>,
) -> Result<Stat, BuildError> {
    let text = name.to_string_lossy();
    let metadata = dir.metadata(name, false).map_err(|e| failed("lstat", &text, &e))?;
    let bytes = name.as_os_str().as_bytes().to_vec();
    let mut stat = Stat::new(bytes.clone(), &metadata);
    match metadata.kind {
        FileKind::Symlink => {
            let target = dir.read_link(name).map_err(|e| failed("readlink", &text, &e))?;
            stat.linkname = target.as_os_str().as_bytes().to_vec().into();
        }
        FileKind::File if metadata.nlink > 1 => match seen.entry((metadata.dev, metadata.ino)) {
            std::collections::hash_map::Entry::Occupied(first) => {
                stat.linkname = first.get().clone().into();
                stat.size = 0;
            }
            std::collections::hash_map::Entry::Vacant(new) => drop(new.insert(bytes)),
        },
        _ => {}
    }
    stat.xattrs = xattrs(dir, name);
    Ok(stat)
}

/// What cannot be read or has no name in UTF-8 is left out.
fn xattrs(root: &Root, path: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let all = root.xattrs(path).unwrap_or_default();
    all.into_iter().filter_map(|(k, v)| Some((k.to_str()?.to_string(), v))).collect()
}

/// Texts are those of Go's os package.
fn failed(op: &str, path: &str, error: &kiln_fs::Error) -> BuildError {
    match error {
        e if e.is_not_found() => {
            BuildError::new(Code::NotFound, format!("{op} {path}: no such file or directory"))
        }
        kiln_fs::Error::NotRegular { .. } => BuildError::msg(format!("{path} is not a regular file")),
        e => BuildError::msg(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.txt"), "0123456789").unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/b"), "b").unwrap();
        symlink("/a.txt", dir.path().join("link")).unwrap();
        symlink("../../../etc", dir.path().join("out")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn the_newest_file_of_an_archive() {
        let (dir, root) = tree();
        let mut archive = tar::Writer::new(Vec::new());
        for (name, kind, secs) in [
            ("d", tar::EntryKind::Dir, 900),
            ("a", tar::EntryKind::File, 500),
            ("b", tar::EntryKind::File, 200),
        ] {
            let mut entry = tar::Entry::new(name, kind);
            entry.mtime.secs = secs;
            archive.append_empty(&entry).unwrap();
        }
        std::fs::write(dir.path().join("x.tar"), archive.finish().unwrap()).unwrap();
        assert_eq!(archive_time(&root, "x.tar").unwrap(), Some(500));
        assert_eq!(archive_time(&root, "a.txt").unwrap(), None);
        assert_eq!(archive_time(&root, "no").unwrap_err().code, Code::NotFound);
    }

    #[test]
    fn parts_of_files() {
        let (_dir, root) = tree();
        let part = |offset, length| read(&root, "link", Some(FileRange { offset, length })).unwrap();
        assert_eq!(part(2, 3), b"234");
        assert_eq!(part(8, 100), b"89");
        assert!(part(11, 1).is_empty() && part(0, 0).is_empty());
        assert_eq!(read(&root, "a.txt", None).unwrap().len(), 10);
        let missing = read(&root, "/no", None).unwrap_err();
        assert_eq!(
            (missing.code, missing.message.as_str()),
            (Code::NotFound, "open /no: no such file or directory")
        );
        assert_eq!(read(&root, "sub", None).unwrap_err().message, "sub is not a regular file");
        let far = FileRange { offset: u64::MAX, length: u64::MAX };
        assert!(read(&root, "a.txt", Some(far)).is_err());
    }

    /// Neither opened, for that would wait for a writer or reach a device, nor followed out.
    #[test]
    fn special_files_are_not_read() {
        let (dir, root) = tree();
        let fifo = std::process::Command::new("mkfifo").arg(dir.path().join("fifo")).status().unwrap();
        assert!(fifo.success());
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        symlink("fifo", dir.path().join("to-fifo")).unwrap();
        symlink("/dev/zero", dir.path().join("zero")).unwrap();
        let part = Some(FileRange { offset: 0, length: 1 });
        for name in ["fifo", "socket", "to-fifo"] {
            for range in [None, part] {
                let error = read(&root, name, range).unwrap_err();
                assert_eq!(error.message, format!("{name} is not a regular file"));
            }
            assert!(stat(&root, name).is_ok());
            assert!(archive_time(&root, name).is_err(), "{name}");
        }
        assert_eq!(read(&root, "zero", None).unwrap_err().code, Code::NotFound);
        assert_eq!(read(&root, "out/passwd", None).unwrap_err().code, Code::NotFound);
    }

    #[test]
    fn a_listing_fits_into_one_message() {
        let dir = tempfile::tempdir().unwrap();
        let target = "x".repeat(4000);
        for n in 0..4200 {
            symlink(&target, dir.path().join(n.to_string())).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(list(&root, "/", "").unwrap_err().code, Code::ResourceExhausted);
        assert_eq!(list(&root, "/", "1*").unwrap().len(), 1111);
    }

    #[test]
    fn directories_are_listed_in_order() {
        let (_dir, root) = tree();
        let names = |include: &str| -> Vec<String> {
            let listed = list(&root, "/", include).unwrap();
            listed.iter().map(|s| s.path().display().to_string()).collect()
        };
        assert_eq!(names(""), ["a.txt", "link", "out", "sub"]);
        assert_eq!(names("*.txt"), ["a.txt"]);
        assert_eq!(list(&root, "/", "link").unwrap()[0].linkname(), Path::new("/a.txt"));
        assert!(list(&root, "a.txt", "").is_err());
        assert!(list(&root, "no", "").unwrap_err().message.contains("no such file or directory"));
    }

    #[test]
    fn links_do_not_lead_out() {
        let (_dir, root) = tree();
        assert!(read(&root, "out/passwd", None).is_err());
        assert_eq!(stat(&root, "link").unwrap().size, 10);
        assert_eq!(stat(&root, "sub").unwrap().mode & (1 << 31), 1 << 31);
        assert_eq!(stat(&root, "/no").unwrap_err().message, "lstat /no: no such file or directory");
    }
}
