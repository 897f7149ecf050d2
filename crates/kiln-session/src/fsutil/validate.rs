//! Checks of the announced entries: whole, clean, in order, nothing twice.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::TransferError;
use super::options::Limits;
use super::stat::{Kind, Stat};

/// Longest path, in bytes (`PATH_MAX` less the terminator).
const MAX_PATH: usize = 4095;
/// Longest name, in bytes (`NAME_MAX`).
const MAX_NAME: usize = 255;

/// Compares two clean relative paths in walk order: `/` counts lower than any other byte, so that a directory's
/// contents come before its next sibling.
pub(crate) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |c: u8| if c == b'/' { 0 } else { u16::from(c) + 1 };
    a.iter().map(|c| rank(*c)).cmp(b.iter().map(|c| rank(*c)))
}

/// The directory part and the name of a clean relative path.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|c| *c == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

pub(crate) fn to_path(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}

/// What was announced so far. Memory grows by eight bytes per file and by the depth of the present path.
pub(crate) struct Validator {
    /// The present directory and those above it, outermost first.
    open: Vec<Open>,
    files: HashSet<u64>,
    // Keyed at random, so that a peer cannot make two paths look the same.
    keys: RandomState,
    entries: u64,
    limits: Limits,
}

struct Open {
    path: Vec<u8>,
    /// Name of the last entry announced in it.
    last: Vec<u8>,
}

impl Validator {
    pub(crate) fn new(limits: Limits) -> Self {
        let open = vec![Open { path: Vec::new(), last: Vec::new() }];
        Self { open, files: HashSet::new(), keys: RandomState::new(), entries: 0, limits }
    }

    /// Accepts the next entry and says what it is.
    pub(crate) fn accept(&mut self, stat: &Stat) -> Result<Kind, TransferError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(TransferError::Limit { what: "entries", limit: self.limits.entries });
        }
        check_path(&stat.path)?;
        let kind = check_entry(stat)?;
        self.check_order(&stat.path)?;
        match kind {
            Kind::Dir => self.open.push(Open { path: stat.path.to_vec(), last: Vec::new() }),
            Kind::HardLink => {
                if !self.files.contains(&self.keys.hash_one(&stat.linkname[..])) {
                    return Err(TransferError::Link {
                        path: to_path(&stat.path),
                        target: to_path(&stat.linkname),
                    });
                }
                // A link to a link is fine: it is the same file.
                self.files.insert(self.keys.hash_one(&stat.path[..]));
            }
            Kind::File => {
                self.files.insert(self.keys.hash_one(&stat.path[..]));
            }
            _ => {}
        }
        Ok(kind)
    }

    fn check_order(&mut self, path: &[u8]) -> Result<(), TransferError> {
        let (dir, name) = split(path);
        while let [.., above, top] = &self.open[..]
            && top.path != dir
        {
            let _ = above;
            self.open.pop();
        }
        let Some(top) = self.open.last_mut() else { return Err(TransferError::Stopped) };
        if top.path != dir || top.last.as_slice() >= name {
            let last = [&top.path[..], &top.last].join(&b"/"[..]);
            return Err(TransferError::Order(
                to_path(path),
                to_path(last.strip_prefix(b"/").unwrap_or(&last)),
            ));
        }
        top.last.clear();
        top.last.extend_from_slice(name);
        Ok(())
    }
}

fn check_path(path: &[u8]) -> Result<(), TransferError> {
    let bad = |reason| Err(TransferError::Path { path: to_path(&path[..path.len().min(MAX_PATH)]), reason });
    if path.is_empty() {
        return bad("empty");
    }
    if path.len() > MAX_PATH {
        return bad("too long");
    }
    if path[0] == b'/' {
        return bad("absolute path");
    }
    if path.contains(&0) {
        return bad("contains a null byte");
    }
    for name in path.split(|c| *c == b'/') {
        match name {
            b"" | b"." => return bad("unclean path"),
            b".." => return bad("leaves the root"),
            _ if name.len() > MAX_NAME => return bad("name too long"),
            _ => {}
        }
    }
    Ok(())
}

fn check_entry(stat: &Stat) -> Result<Kind, TransferError> {
    let bad = |reason| Err(TransferError::Entry { path: to_path(&stat.path), reason });
    let Some(kind) = stat.kind() else { return bad("impossible file type") };
    if stat.size < 0 {
        return bad("negative size");
    }
    match kind {
        Kind::Dir if !stat.linkname.is_empty() => bad("a directory has no link target"),
        Kind::Symlink if stat.linkname.is_empty() => bad("a link needs a target"),
        Kind::Symlink if stat.linkname.len() > MAX_PATH => bad("link target too long"),
        Kind::Symlink if stat.linkname.contains(&0) => bad("link target contains a null byte"),
        Kind::CharDevice | Kind::BlockDevice if stat.rdev().is_none() => bad("invalid device number"),
        _ => Ok(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn dir(path: &str) -> Stat {
        Stat::dir(path.to_string(), 0o755)
    }

    fn file(path: &str) -> Stat {
        Stat::file(path.to_string(), 0o644, 0)
    }

    fn link(path: &str, target: &str) -> Stat {
        Stat { linkname: Bytes::from(target.to_string()), ..file(path) }
    }

    fn run(stats: &[Stat]) -> Result<(), TransferError> {
        let mut validator = Validator::new(Limits::default());
        stats.iter().try_for_each(|s| validator.accept(s).map(drop))
    }

    #[test]
    fn the_recorded_order_is_accepted() {
        run(&[file("a"), dir("b"), file("b/c"), file("b.txt"), file("big"), link("z", "a"), link("zz", "z")])
            .unwrap();
    }

    #[test]
    fn order_is_that_of_a_walk() {
        assert_eq!(compare(b"b/c", b"b.txt"), Ordering::Less);
        assert_eq!(compare(b"b", b"b/c"), Ordering::Less);
        assert_eq!(compare(b"a\xff", b"b"), Ordering::Less);
        assert_eq!(compare(b"a", b"a"), Ordering::Equal);
        for bad in [
            vec![file("b"), file("a")],
            vec![file("a"), file("a")],
            vec![dir("a"), dir("a")],
            vec![file("a"), dir("a")],
            vec![file("a/b")],
            vec![file("a"), file("a/b")],
            vec![dir("a"), file("b"), file("a/c")],
            vec![dir("a"), dir("a/b"), file("a/c"), file("a/b/d")],
            vec![Stat { mode: 1 << 27 | 0o777, linkname: "/etc".into(), ..file("l") }, file("l/passwd")],
        ] {
            let error = run(&bad).unwrap_err();
            assert!(matches!(error, TransferError::Order(..)), "{error}");
        }
        let error = run(&[dir("a"), file("a/x"), file("a/b")]).unwrap_err();
        assert_eq!(error.to_string(), r#"changes out of order: "a/b" "a/x""#);
    }

    #[test]
    fn paths_are_clean_relative_and_short() {
        let long = "x".repeat(256);
        let deep = "x/".repeat(2048) + "x";
        for bad in
            ["", ".", "..", "/", "/a", "a/", "a//b", "./a", "a/.", "a/../b", "../a", "a\0b", &long, &deep]
        {
            assert!(matches!(run(&[dir(bad)]), Err(TransferError::Path { .. })), "{bad}");
        }
        run(&[dir("..."), file(".../ "), file("a\nb"), file("a\\b")]).unwrap();
        run(&[Stat { path: Bytes::from_static(b"\xff"), ..file("") }]).unwrap();
    }

    #[test]
    fn hard_links_name_a_file_that_came_before() {
        for bad in [
            vec![link("a", "b"), file("b")],
            vec![link("a", "a")],
            vec![link("a", "/etc/passwd")],
            vec![dir("a"), link("b", "a")],
            vec![Stat { mode: 1 << 27, linkname: "x".into(), ..file("a") }, link("b", "a")],
            vec![Stat { mode: 1 << 25, ..file("a") }, link("b", "a")],
        ] {
            assert!(matches!(run(&bad), Err(TransferError::Link { .. })), "{bad:?}");
        }
    }

    #[test]
    fn entries_that_contradict_themselves_are_refused() {
        for bad in [
            Stat { linkname: "x".into(), ..dir("a") },
            Stat { mode: 1 << 27, ..file("a") },
            Stat { mode: 1 << 27, linkname: "a\0b".into(), ..file("a") },
            Stat { mode: 1 << 26, devmajor: -1, ..file("a") },
            Stat { mode: 1 << 26, devminor: 1 << 40, ..file("a") },
            Stat { mode: 1 << 31 | 1 << 27, linkname: "x".into(), ..file("a") },
            Stat { size: -1, ..file("a") },
        ] {
            assert!(matches!(run(std::slice::from_ref(&bad)), Err(TransferError::Entry { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_walk_without_end_is_stopped() {
        let limits = Limits { entries: 10, ..Limits::default() };
        let mut validator = Validator::new(limits);
        let error = (0..).find_map(|i| validator.accept(&file(&format!("{i:05}"))).err()).unwrap();
        assert_eq!(error.to_string(), "file transfer refused: more than 10 entries");
    }
}
