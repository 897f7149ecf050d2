//! Paths as texts with slashes, by the rules of Go's `path` package: what ends up in LLB and in cache keys is made
//! with them. Nothing here touches a filesystem.

/// The shortest equal path, without looking at any link. The empty path becomes `.`.
pub fn clean(path: &str) -> String {
    // Cleaning cuts only at slashes, so text stays text.
    String::from_utf8_lossy(&clean_bytes(path.as_bytes())).into_owned()
}

/// [`clean`] of a path that need not be text.
pub fn clean_bytes(path: &[u8]) -> Vec<u8> {
    let rooted = path.first() == Some(&b'/');
    let mut kept: Vec<&[u8]> = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match kept.last() {
                Some(&last) if last != b".." => {
                    kept.pop();
                }
                _ if rooted => {}
                _ => kept.push(part),
            },
            _ => kept.push(part),
        }
    }
    let joined = kept.join(&b'/');
    match (rooted, joined.is_empty()) {
        (true, _) => [b"/".as_slice(), &joined].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

/// Joins with slashes and cleans; empty elements are skipped, nothing at all gives the empty text.
pub fn join(elements: &[&str]) -> String {
    let some: Vec<&str> = elements.iter().filter(|e| !e.is_empty()).copied().collect();
    if some.is_empty() { String::new() } else { clean(&some.join("/")) }
}

/// The last element; `.` of the empty path, `/` of slashes only.
pub fn base(p: &str) -> &str {
    match p.trim_end_matches('/') {
        "" if p.is_empty() => ".",
        "" => "/",
        p => p.rsplit('/').next().unwrap_or(p),
    }
}

/// All but the last element, cleaned.
pub fn dir(p: &str) -> String {
    clean(&p[..p.rfind('/').map_or(0, |i| i + 1)])
}

/// Whether it starts with a slash.
pub fn is_abs(p: &str) -> bool {
    p.starts_with('/')
}

/// Whether a pattern of `path.Match` has an unescaped `*`, `?` or `[`, and so may match several paths.
pub fn has_wildcards(pattern: impl AsRef<[u8]>) -> bool {
    let mut bytes = pattern.as_ref().iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_as_go_does() {
        let cases = [
            ("", "."),
            ("/", "/"),
            ("//a//", "/a"),
            ("a/../..", ".."),
            ("/../a", "/a"),
            ("./a/./b", "a/b"),
            ("../../a", "../../a"),
            ("a/b/../../..", ".."),
        ];
        for (p, want) in cases {
            assert_eq!(clean(p), want, "{p}");
        }
    }

    #[test]
    fn joins_and_splits_as_go_does() {
        assert_eq!(join(&["", ""]), "");
        assert_eq!(join(&["/", "a/"]), "/a");
        assert_eq!(join(&["/app", "../b"]), "/b");
        assert_eq!((base("/a/b/"), base(""), base("//")), ("b", ".", "/"));
        assert_eq!((dir("/a/b"), dir("a"), dir("/a/")), ("/a".into(), ".".into(), "/a".into()));
    }

    #[test]
    fn escaped_wildcards_are_none() {
        assert!(["*", "a?", "[x]", "\\\\*"].iter().all(has_wildcards));
        assert!(!["", "a/b", "a\\?", "\\*\\[", "\\"].iter().any(has_wildcards));
    }
}
