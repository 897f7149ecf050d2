//! Which entries of a directory are sent (spec wire.md section 5).

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kiln_fs::Root;
use kiln_fs::patterns::{MatchInfo, Matcher, Pattern};

use super::TransferError;
use super::follow::follow;
use crate::DirectoryRequest;

/// Include and exclude patterns, compiled.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    include: Matcher,
    exclude: Matcher,
    /// No include pattern has wildcards before its end, so a directory that begins none of them can be left out.
    plain_includes: bool,
    /// As above, for the `!` patterns of `exclude`.
    plain_exceptions: bool,
}

/// What a filter says about one entry.
pub(crate) enum Verdict {
    Keep(Matched),
    /// Not wanted itself, but something below may be.
    Descend(Matched),
    Prune,
}

/// What matched a directory; its entries start from it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matched {
    include: MatchInfo,
    exclude: MatchInfo,
}

impl Filter {
    /// Compiles ignore patterns only.
    pub fn excluding(exclude: &[String]) -> Result<Self, TransferError> {
        Self::compile(&[], exclude)
    }

    /// Compiles what a daemon asks for. Links of `follow_paths` are resolved in `root` now.
    pub fn new(root: &Root, request: &DirectoryRequest) -> Result<Self, TransferError> {
        let mut include = request.include.clone();
        if !request.follow_paths.is_empty() {
            include.extend(follow(root, &request.follow_paths)?);
            include = without_nested(include);
        }
        Self::compile(&include, &request.exclude)
    }

    fn compile(include: &[String], exclude: &[String]) -> Result<Self, TransferError> {
        let compile = |patterns: &[String], what| {
            Matcher::new(patterns).map_err(|e| TransferError::Pattern(format!("{e} in {what} {patterns:?}")))
        };
        let (include, exclude) =
            (compile(include, "include patterns")?, compile(exclude, "exclude patterns")?);
        let plain_includes = include.patterns().iter().all(|p| p.is_exclusion() || is_plain(p));
        let plain_exceptions = exclude.patterns().iter().all(|p| !p.is_exclusion() || is_plain(p));
        Ok(Self { include, exclude, plain_includes, plain_exceptions })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    pub(crate) fn judge(
        &self,
        path: &Path,
        is_dir: bool,
        parent: Option<&Matched>,
    ) -> Result<Verdict, TransferError> {
        let bad =
            |e: kiln_fs::patterns::PatternError| TransferError::Pattern(format!("{e} at {}", path.display()));
        let mut matched = Matched::default();
        let mut keep = true;
        if !self.include.is_empty() {
            let (hit, info) = self.include.matches_below(path, parent.map(|m| &m.include)).map_err(bad)?;
            matched.include = info;
            keep = hit;
            if !hit && is_dir && self.plain_includes && !begins_any(path, self.include.patterns(), false) {
                return Ok(Verdict::Prune);
            }
        }
        if !self.exclude.is_empty() {
            let (hit, info) = self.exclude.matches_below(path, parent.map(|m| &m.exclude)).map_err(bad)?;
            matched.exclude = info;
            keep &= !hit;
            if hit && is_dir && self.plain_exceptions && !begins_any(path, self.exclude.patterns(), true) {
                return Ok(Verdict::Prune);
            }
        }
        Ok(if keep { Verdict::Keep(matched) } else { Verdict::Descend(matched) })
    }
}

/// A pattern without the `/**` or `/*` at its end, which do not change what it begins with.
fn stem(pattern: &Pattern) -> &str {
    let text = pattern.text();
    let text = text.strip_suffix("/**").unwrap_or(text);
    text.strip_suffix("/*").unwrap_or(text)
}

fn is_plain(pattern: &Pattern) -> bool {
    !stem(pattern).contains(['*', '[', ']', '?', '^', '\\'])
}

/// Whether a pattern of this sort names something below `dir`.
fn begins_any(dir: &Path, patterns: &[Pattern], exclusion: bool) -> bool {
    let dir = dir.as_os_str().as_bytes();
    patterns.iter().filter(|p| p.is_exclusion() == exclusion).any(|p| {
        let stem = stem(p).as_bytes();
        stem.starts_with(dir) && matches!(stem.get(dir.len()), None | Some(b'/'))
    })
}

/// Drops what lies below the entry before it; if the root is among them there is no filter at all.
fn without_nested(paths: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::with_capacity(paths.len());
    for path in paths {
        if path == "." {
            return Vec::new();
        }
        let below =
            |last: &String| path.strip_prefix(last.as_str()).is_some_and(|rest| rest.starts_with('/'));
        if !kept.last().is_some_and(below) {
            kept.push(path);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(filter: &Filter, path: &str, is_dir: bool) -> char {
        match filter.judge(Path::new(path), is_dir, None).unwrap() {
            Verdict::Keep(_) => 'k',
            Verdict::Descend(_) => 'd',
            Verdict::Prune => 'p',
        }
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn directories_are_walked_only_where_something_may_match() {
        let f = Filter::compile(&strings(&["a/b/c", "x/**"]), &[]).unwrap();
        let dirs = ["a", "a/b", "a/b/c", "a/z", "ab", "x", "x/y"].map(|p| verdict(&f, p, true));
        assert_eq!(dirs, ['d', 'd', 'k', 'p', 'p', 'd', 'k']);
        let f = Filter::compile(&strings(&["**/*.go"]), &[]).unwrap();
        assert_eq!(verdict(&f, "any", true), 'd');
    }

    #[test]
    fn excluded_directories_are_walked_for_their_exceptions() {
        let f = Filter::excluding(&strings(&["*", "!src", "!a/b"])).unwrap();
        let dirs = ["src", "node_modules", "a", "a/b", "a/c"].map(|p| verdict(&f, p, true));
        assert_eq!(dirs, ['k', 'p', 'd', 'k', 'p']);
        let f = Filter::excluding(&strings(&["*", "!**/*.go"])).unwrap();
        assert_eq!(verdict(&f, "node_modules", true), 'd');
        assert_eq!(verdict(&f, "x.go", false), 'k');
    }

    #[test]
    fn nested_paths_are_dropped_and_the_root_drops_all() {
        assert_eq!(without_nested(strings(&["a", "a/b", "ab", "c"])), ["a", "ab", "c"]);
        assert!(without_nested(strings(&["a", "."])).is_empty());
    }

    #[test]
    fn bad_patterns_are_named() {
        let error = Filter::excluding(&strings(&["[", "b"])).unwrap_err().to_string();
        assert_eq!(error, r#"invalid pattern: syntax error in pattern in exclude patterns ["[", "b"]"#);
    }
}
