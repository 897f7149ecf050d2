//! Git references as users write them (spec dockerfile.md section 9).

use kiln_go::{path as gopath, quote};
use kiln_llb::builder::GitSpec;
use std::collections::BTreeMap;

/// A git repository and what of it is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GitRef {
    /// What git is given.
    pub(crate) remote: String,
    host: String,
    path: String,
    ssh: bool,
    pub(crate) reference: String,
    pub(crate) subdir: String,
    pub(crate) checksum: String,
    /// `github.com/...`: only a main context may be written so.
    pub(crate) like_local: bool,
    pub(crate) keep_git_dir: Option<bool>,
    submodules: Option<bool>,
    mtime: String,
    fetch_by_commit: bool,
}

/// What a text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    Git(Box<GitRef>),
    /// Git beyond doubt, but wrong.
    Bad(String),
    NotGit,
}

impl GitRef {
    pub(crate) fn parse(text: &str) -> Parsed {
        let Some(mut url) = GitUrl::parse(text) else { return Parsed::NotGit };
        let query = std::mem::take(&mut url.query);
        let mut r = GitRef {
            host: url.host,
            path: url.path,
            ssh: url.ssh,
            like_local: url.like_local,
            reference: url.reference,
            subdir: url.subdir,
            remote: url.remote,
            ..Default::default()
        };
        match r.load_query(&query) {
            Ok(()) => Parsed::Git(Box::new(r)),
            Err(e) => Parsed::Bad(e),
        }
    }

    /// For the graph.
    pub(crate) fn to_spec(&self) -> GitSpec {
        let url = if self.like_local { format!("https://{}", self.remote) } else { self.remote.clone() };
        GitSpec {
            host: self.host.clone(),
            path: self.path.clone(),
            url,
            reference: self.reference.clone(),
            subdir: self.subdir.clone(),
            keep_git_dir: self.keep_git_dir == Some(true),
            ssh_known_hosts: self.ssh.then(String::new),
            checksum: self.checksum.clone(),
            skip_submodules: self.submodules == Some(false),
            mtime: self.mtime.clone(),
            fetch_by_commit: self.fetch_by_commit,
        }
    }

    fn load_query(&mut self, query: &BTreeMap<String, Vec<String>>) -> Result<(), String> {
        let (mut tag, mut branch) = (None, None);
        for (key, values) in query {
            if values.len() > 1 {
                return Err(format!("query {} has multiple values", quote(key)));
            }
            let value = values.first().map(String::as_str).unwrap_or_default();
            let is_flag = matches!(key.as_str(), "submodules" | "keep-git-dir" | "fetch-by-commit");
            if value.is_empty() && !is_flag {
                return Err(format!("query {} has no value", quote(key)));
            }
            let flag = || match value {
                "" => Ok(true),
                v => kiln_go::parse_bool(v).ok_or_else(|| format!("invalid {key} value: {}", quote(v))),
            };
            match key.as_str() {
                "ref" => set(&mut self.reference, value, "ref")?,
                "tag" => tag = Some(qualified(value, "refs/tags/")),
                "branch" => branch = Some(qualified(value, "refs/heads/")),
                "subdir" => set(&mut self.subdir, value, "subdir")?,
                "checksum" | "commit" => self.checksum = value.to_string(),
                "keep-git-dir" => self.keep_git_dir = Some(flag()?),
                "submodules" => self.submodules = Some(flag()?),
                "fetch-by-commit" => self.fetch_by_commit = flag()?,
                "mtime" if matches!(value, "checkout" | "commit") => self.mtime = value.to_string(),
                "mtime" => {
                    let v = quote(value);
                    return Err(format!("invalid mtime value: {v} (must be \"checkout\" or \"commit\")"));
                }
                _ => return Err(format!("unexpected query {}", quote(key))),
            }
        }
        if tag.is_some() && branch.is_some() {
            return Err("branch conflicts with tag".to_string());
        }
        match tag.or(branch) {
            Some(name) => set(&mut self.reference, &name, "ref"),
            None => Ok(()),
        }
    }
}

fn qualified(name: &str, prefix: &str) -> String {
    if name.starts_with(prefix) { name.to_string() } else { format!("{prefix}{name}") }
}

fn set(field: &mut String, value: &str, what: &str) -> Result<(), String> {
    if !field.is_empty() && field != value {
        return Err(format!("{what} conflicts: {} vs {}", quote(field), quote(value)));
    }
    *field = value.to_string();
    Ok(())
}

#[derive(Default)]
struct GitUrl {
    host: String,
    path: String,
    remote: String,
    ssh: bool,
    like_local: bool,
    reference: String,
    subdir: String,
    query: BTreeMap<String, Vec<String>>,
}

impl GitUrl {
    fn parse(text: &str) -> Option<GitUrl> {
        if text.starts_with("./") || text.starts_with("../") || text.contains(|c: char| c.is_control()) {
            return None;
        }
        if text.starts_with("github.com/") {
            let mut url = GitUrl::from_url("https", text)?;
            url.remote = url.remote.trim_start_matches("https://").to_string();
            url.like_local = true;
            return Some(url);
        }
        let Some((scheme, rest)) = scheme(text) else { return GitUrl::from_scp(text) };
        let scheme = scheme.to_ascii_lowercase();
        let url = match scheme.as_str() {
            "ssh" | "git" | "http" | "https" => GitUrl::from_url(&scheme, rest)?,
            _ => return None,
        };
        let is_web = scheme.starts_with("http");
        (!is_web || url.path.ends_with(".git")).then_some(url)
    }

    /// The parts by hand: the bytes of the remote stay as they were written.
    fn from_url(scheme: &str, rest: &str) -> Option<GitUrl> {
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let slash = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(slash);
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let port =
            host.rsplit_once(':').filter(|(h, _)| !h.contains('[') || h.ends_with(']')).map(|(_, p)| p);
        if port.is_some_and(|p| !p.bytes().all(|b| b.is_ascii_digit())) || host.contains([' ', '<', '>', '"'])
        {
            return None;
        }
        let mut url = GitUrl {
            host: host.to_string(),
            path: percent_decode(path)?,
            remote: format!("{scheme}://{rest}"),
            ssh: scheme == "ssh",
            query: parse_query(query)?,
            ..Default::default()
        };
        url.set_fragment(&percent_decode(fragment)?);
        Some(url)
    }

    /// `user@host:path?query#fragment`
    fn from_scp(text: &str) -> Option<GitUrl> {
        let (user, rest) = text.split_once('@')?;
        let (host, rest) = rest.split_once(':')?;
        let word = |s: &str, extra: &[char]| {
            !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(&c))
        };
        if !word(user, &['-', '_']) || !word(host, &['-', '.']) || rest.contains('\n') {
            return None;
        }
        let end = rest.find(['?', '#']).unwrap_or(rest.len());
        let (path, tail) = rest.split_at(end);
        let (query, fragment) = match tail.strip_prefix('?') {
            Some(tail) => tail.split_once('#').unwrap_or((tail, "")),
            None => ("", tail.strip_prefix('#').unwrap_or_default()),
        };
        let mut url = GitUrl {
            host: host.to_string(),
            path: path.to_string(),
            remote: format!("{user}@{host}:{path}"),
            ssh: true,
            query: parse_query(query)?,
            ..Default::default()
        };
        url.set_fragment(fragment);
        Some(url)
    }

    fn set_fragment(&mut self, fragment: &str) {
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        self.reference = reference.to_string();
        self.subdir = gopath::join(&["/", subdir]).trim_start_matches('/').to_string();
    }
}

fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    (!scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric())).then_some((scheme, rest))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let digit = |b: Option<u8>| char::from(b?).to_digit(16);
        let (hi, lo) = (digit(bytes.next())?, digit(bytes.next())?);
        out.push((hi * 16 + lo) as u8);
    }
    String::from_utf8(out).ok()
}

fn parse_query(text: &str) -> Option<BTreeMap<String, Vec<String>>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in text.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let plain = |s: &str| percent_decode(&s.replace('+', " "));
        out.entry(plain(key)?).or_default().push(plain(value)?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(text: &str) -> GitRef {
        match GitRef::parse(text) {
            Parsed::Git(g) => *g,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn bad(text: &str) -> String {
        match GitRef::parse(text) {
            Parsed::Bad(e) => e,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn fragments() {
        let g = git("https://example.com/foo/bar.git#baz/qux:quux/../quuz");
        assert_eq!(
            (g.remote.as_str(), g.reference.as_str(), g.subdir.as_str()),
            ("https://example.com/foo/bar.git", "baz/qux", "quuz")
        );
        let spec = g.to_spec();
        assert_eq!((spec.host.as_str(), spec.path.as_str()), ("example.com", "/foo/bar.git"));
        assert_eq!(git("git://h/x#../../y:../../z").subdir, "z");
        assert!(git("git@h.com:a/b.git#v1").ssh);
        assert_eq!(git("git@h.com:a/b.git#v1").remote, "git@h.com:a/b.git");
        assert_eq!(git("ssh://git@h.com:22/a/b").to_spec().host, "h.com:22");
        assert_eq!(git("github.com/a/b#c").to_spec().url, "https://github.com/a/b");
    }

    #[test]
    fn what_is_not_git() {
        for t in [
            "",
            "a",
            "./x",
            "../x.git",
            "https://example.com/x",
            "http://h/a.git/b",
            "ftp://h/x.git",
            "oci://x",
            "a b@c:d",
        ] {
            assert_eq!(GitRef::parse(t), Parsed::NotGit, "{t}");
        }
    }

    #[test]
    fn queries() {
        let g = git(
            "https://h/x.git?tag=v1&subdir=d&keep-git-dir&submodules=false&checksum=abc&mtime=commit&fetch-by-commit=1",
        );
        assert_eq!(
            (g.reference.as_str(), g.subdir.as_str(), g.checksum.as_str()),
            ("refs/tags/v1", "d", "abc")
        );
        assert_eq!((g.keep_git_dir, g.submodules, g.fetch_by_commit), (Some(true), Some(false), true));
        assert_eq!(git("https://h/x.git?branch=refs/heads/b").reference, "refs/heads/b");
        assert_eq!(bad("https://h/x.git?a=b"), "unexpected query \"a\"");
        assert_eq!(bad("https://h/x.git?ref=a&ref=b"), "query \"ref\" has multiple values");
        assert_eq!(bad("https://h/x.git?ref="), "query \"ref\" has no value");
        assert_eq!(bad("https://h/x.git?ref=a#b"), "ref conflicts: \"b\" vs \"a\"");
        assert_eq!(bad("https://h/x.git?tag=a&branch=b"), "branch conflicts with tag");
        assert_eq!(bad("https://h/x.git?keep-git-dir=x"), "invalid keep-git-dir value: \"x\"");
    }
}
