//! Paths as texts with slashes, by the rules of Go's `path` package: what ends up in LLB and in cache keys is made
//! with them. Nothing here touches a filesystem.

/// The shortest equal path, without looking at any link. The empty path becomes `.`.
pub fn clean(p: &str) -> String {
    let rooted = p.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in p.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(last) if *last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_string(),
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
}
