//! Lexical path handling with the results of Go's `path/filepath` on Unix, on bytes.
//!
//! Nothing here looks at a filesystem and nothing here makes a path safe to open: that is what [`Root`](crate::Root)
//! is for.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use kiln_go::path::clean_bytes;

/// The shortest equivalent of `path`, as `filepath.Clean`: `.` elements and double slashes go, `..` takes the element
/// before it along, a rooted path has no leading `..`, the empty path is `.`.
pub fn clean(path: impl AsRef<Path>) -> PathBuf {
    let bytes = path.as_ref().as_os_str().as_bytes();
    PathBuf::from(OsString::from_vec(clean_bytes(bytes)))
}

/// `path` as an absolute, clean path: `filepath.Join("/", path)`.
pub fn absolute(path: impl AsRef<Path>) -> PathBuf {
    let mut bytes = vec![b'/'];
    bytes.extend_from_slice(path.as_ref().as_os_str().as_bytes());
    PathBuf::from(OsString::from_vec(clean_bytes(&bytes)))
}

/// Everything up to and with the last slash, and what follows it: `filepath.Split`.
pub fn split(path: &Path) -> (&Path, &OsStr) {
    let bytes = path.as_os_str().as_bytes();
    let at = bytes.iter().rposition(|&b| b == b'/').map_or(0, |i| i + 1);
    (Path::new(OsStr::from_bytes(&bytes[..at])), OsStr::from_bytes(&bytes[at..]))
}

/// The last element, trailing slashes ignored: `filepath.Base`. `.` for the empty path, `/` for the root.
pub fn base(path: &Path) -> &OsStr {
    let mut bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() {
        return OsStr::new(".");
    }
    while let [rest @ .., b'/'] = bytes {
        bytes = rest;
    }
    if bytes.is_empty() {
        return OsStr::new("/");
    }
    let at = bytes.iter().rposition(|&b| b == b'/').map_or(0, |i| i + 1);
    OsStr::from_bytes(&bytes[at..])
}

/// The elements of a path below a root, without empty ones and `.`; `..` is kept.
pub fn components(path: &Path) -> impl DoubleEndedIterator<Item = &OsStr> {
    path.as_os_str()
        .as_bytes()
        .split(|&b| b == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(OsStr::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_like_go() {
        for (from, to) in [
            ("", "."),
            (".", "."),
            ("/", "/"),
            ("//", "/"),
            ("a//b/./c/", "a/b/c"),
            ("a/../b", "b"),
            ("a/..", "."),
            ("..", ".."),
            ("../../a", "../../a"),
            ("a/../../b", "../b"),
            ("/..", "/"),
            ("/../a/../..", "/"),
            ("/a/b/..", "/a"),
            ("./a", "a"),
            ("!./a", "!./a"),
        ] {
            assert_eq!(clean(from), PathBuf::from(to), "{from}");
        }
        assert_eq!(absolute("../x/"), PathBuf::from("/x"));
        assert_eq!(absolute(""), PathBuf::from("/"));
    }

    #[test]
    fn splits_like_go() {
        assert_eq!(split(Path::new("/a/b")), (Path::new("/a/"), OsStr::new("b")));
        assert_eq!(split(Path::new("b")), (Path::new(""), OsStr::new("b")));
        assert_eq!(split(Path::new("/a/")), (Path::new("/a/"), OsStr::new("")));
        for (from, to) in [("", "."), ("/", "/"), ("//", "/"), ("a/", "a"), ("/a/b", "b"), ("/a/.", ".")] {
            assert_eq!(base(Path::new(from)), OsStr::new(to), "{from}");
        }
        assert_eq!(components(Path::new("/a//./b/..")).collect::<Vec<_>>(), ["a", "b", ".."]);
    }
}
