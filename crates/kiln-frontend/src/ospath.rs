//! Paths of the system that is built for: on Windows with drive letters and backslashes.
//!
//! What comes out has forward slashes and no drive. Everything but Windows takes paths as they are.

use kiln_go::{path as gopath, quote};

const WINDOWS: &str = "windows";

/// With forward slashes.
pub(crate) fn to_slash(path: &str, os: &str) -> String {
    if os == WINDOWS { path.replace('\\', "/") } else { path.to_string() }
}

/// With the separators of the system.
pub(crate) fn from_slash(path: &str, os: &str) -> String {
    if os == WINDOWS { path.replace('/', "\\") } else { path.to_string() }
}

/// Takes away the system drive; other drives and network paths are refused. A slash at the end may stay.
pub(crate) fn without_drive(path: &str, os: &str, keep_slash: bool) -> Result<String, String> {
    if os != WINDOWS {
        return Ok(path.to_string());
    }
    if path.len() == 2 && path.ends_with(':') {
        return Err(format!("No relative path specified in {}", quote(path)));
    }
    let path = to_slash(path, os);
    if path.starts_with("//") {
        return Err("UNC paths are not supported".to_string());
    }
    let rest = match path.split_once(':') {
        None => path.as_str(),
        Some((drive, rest)) if drive.eq_ignore_ascii_case("c") => rest,
        Some(_) => return Err("The specified path is not on the system drive (C:)".to_string()),
    };
    let clean = gopath::clean(rest);
    Ok(if keep_slash && clean.len() > 1 && rest.ends_with('/') { format!("{clean}/") } else { clean })
}

/// Whether a path begins at the root.
pub(crate) fn is_absolute(path: &str, os: &str) -> bool {
    without_drive(path, os, false).is_ok_and(|p| p.starts_with('/'))
}

/// A path below `parent`, or as it is when it is absolute. With `keep_slash` a slash at the end stays.
pub(crate) fn normalize(parent: &str, path: &str, os: &str, keep_slash: bool) -> Result<String, String> {
    let inner = || {
        let written = to_slash(path, os);
        let parent = to_slash(parent, os);
        let parent = without_drive(if parent.is_empty() { "/" } else { &parent }, os, keep_slash)?;
        let parent = if parent.starts_with('/') { parent } else { gopath::join(&["/", &parent]) };
        let new = without_drive(if written.is_empty() { &parent } else { &written }, os, keep_slash)?;
        let new = if new.starts_with('/') { new } else { gopath::join(&[&parent, &new]) };
        Ok(if keep_slash { keep_end(&written, new) } else { new })
    };
    inner().map_err(|e: String| format!("removing drive letter: {e}"))
}

/// A slash, or a slash and a dot, at the end of what was written stays.
fn keep_end(written: &str, mut path: String) -> String {
    if written.ends_with('/') && !path.ends_with('/') {
        path.push('/');
    } else if written.ends_with("/.") {
        if path != "/" {
            path.push('/');
        }
        path.push('.');
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_path_stays() {
        let kept = |p: &str| normalize("/x", p, "linux", true).unwrap();
        assert_eq!(
            [kept("a/"), kept("a/."), kept("/."), kept("/"), kept("./")],
            ["/x/a/", "/x/a/.", "/./.", "/", "/x/"]
        );
        assert_eq!(normalize("", "a/b/", "linux", false).unwrap(), "/a/b");
    }

    #[test]
    fn windows_paths_lose_their_drive() {
        let plain = |p: &str| normalize("/", p, WINDOWS, false);
        assert_eq!(plain(r"C:\a\..\b\").unwrap(), "/b");
        assert_eq!(plain(r"c:x").unwrap(), "/x");
        assert_eq!(normalize(r"\w", r"d\", WINDOWS, true).unwrap(), "/w/d/");
        assert_eq!(plain("C:").unwrap_err(), "removing drive letter: No relative path specified in \"C:\"");
        assert_eq!(
            plain(r"d:\x").unwrap_err(),
            "removing drive letter: The specified path is not on the system drive (C:)"
        );
        assert_eq!(plain(r"\\h\s").unwrap_err(), "removing drive letter: UNC paths are not supported");
        assert!(is_absolute(r"\a", WINDOWS) && !is_absolute(r"\a", "linux") && !is_absolute("D:/", WINDOWS));
        assert_eq!(from_slash("/a/b", WINDOWS), r"\a\b");
    }
}
