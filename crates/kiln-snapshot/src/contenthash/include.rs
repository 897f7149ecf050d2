//! Checksums of what patterns select.

use kiln_digest::{Digest, Hasher};
use kiln_fs::patterns::{MatchInfo, Matcher, PatternError, go_match};
use kiln_go::path::has_wildcards;

use super::compute::Wanted;
use super::resolve::{Walker, clean};
use super::tree::{Dir, Name, Names, Node};
use super::{ChecksumOpts, single};
use crate::SnapshotError;
use crate::error::Result;

/// A record that counts.
struct Included {
    /// As the caller would write it: under the path that was asked for, not where links lead.
    shown: Vec<u8>,
    /// Where it is.
    at: Names,
    /// A link whose target's digest counts.
    follow: bool,
}

/// A directory above the current record. Its header counts once something in it does.
struct Parent {
    shown: Vec<u8>,
    at: Names,
    included: bool,
    include: Option<MatchInfo>,
    exclude: Option<MatchInfo>,
    follow: bool,
}

struct Selection<'a> {
    opts: &'a ChecksumOpts,
    /// The path, clean; empty for the root.
    path: Vec<u8>,
    ends_in_slash: bool,
    include: Option<Matcher>,
    exclude: Option<Matcher>,
    /// The last directory or file that the wildcard matched; everything below it is selected.
    last_match: Vec<u8>,
    parents: Vec<Parent>,
    found: Vec<Included>,
}

pub(super) fn checksum(walker: &mut Walker<'_>, path: &str, opts: &ChecksumOpts) -> Result<Digest> {
    let mut selection = Selection {
        opts,
        path: clean(path.as_bytes()),
        ends_in_slash: path.ends_with('/'),
        include: matcher(&opts.include)?,
        exclude: matcher(&opts.exclude)?,
        last_match: Vec::new(),
        parents: Vec::new(),
        found: Vec::new(),
    };
    let (prefix, start) = if opts.wildcard {
        let (prefix, rest) = split_wildcards(&selection.path);
        let start = walker.resolve(&prefix, !rest.is_empty())?;
        (prefix, start)
    } else {
        (selection.path.clone(), walker.resolve(&selection.path, false)?)
    };
    if walker.exists(&start) {
        walker.scan_all(&start)?;
        selection.visit_start(walker, &prefix, &start)?;
    }
    selection.check_required()?;
    selection.sum(walker, path, &prefix)
}

fn matcher(patterns: &[String]) -> Result<Option<Matcher>> {
    if patterns.is_empty() {
        return Ok(None);
    }
    Matcher::new(patterns).map(Some).map_err(|error| pattern_error(&patterns.join(", "), &error))
}

fn pattern_error(pattern: &str, error: &PatternError) -> SnapshotError {
    SnapshotError::Pattern { pattern: pattern.to_string(), reason: error.to_string() }
}

impl Selection<'_> {
    fn visit_start(&mut self, walker: &Walker<'_>, prefix: &[u8], start: &Names) -> Result<()> {
        let mut shown = prefix.to_vec();
        let mut at = start.clone();
        match walker.tree.dir(start) {
            Some(dir) => self.visit_dir(dir, &mut shown, &mut at),
            None => match walker.tree.get(start) {
                Some(node) => self.visit_leaf(node, &shown, &at),
                None => Ok(()),
            },
        }
    }

    /// The header of a directory, then what is in it.
    fn visit_dir(&mut self, dir: &Dir, shown: &mut Vec<u8>, at: &mut Names) -> Result<()> {
        let depth = self.parents.len();
        if self.wildcard_selects(shown)? && !(*shown == self.path && self.ends_in_slash) {
            let (selected, include, exclude) = self.matches(shown)?;
            let follow = self.parents.is_empty() && self.opts.follow_links;
            let mut header =
                Parent { shown: shown.clone(), at: at.clone(), included: false, include, exclude, follow };
            if selected {
                self.include_parents();
                self.found.push(Included { shown: shown.clone(), at: at.clone(), follow });
                header.included = true;
            }
            self.parents.push(header);
        }
        for (name, node) in &dir.children {
            let length = shown.len();
            shown.push(b'/');
            shown.extend_from_slice(name);
            at.push(Name::clone(name));
            match node {
                Node::Dir(dir) => self.visit_dir(dir, shown, at)?,
                leaf => self.visit_leaf(leaf, shown, at)?,
            }
            at.pop();
            shown.truncate(length);
        }
        self.parents.truncate(depth);
        Ok(())
    }

    fn visit_leaf(&mut self, node: &Node, shown: &[u8], at: &Names) -> Result<()> {
        if !self.wildcard_selects(shown)? || !self.matches(shown)?.0 {
            return Ok(());
        }
        let is_link = matches!(node, Node::Symlink { .. });
        let follow = self.parents.is_empty() && self.opts.follow_links && is_link;
        self.include_parents();
        self.found.push(Included { shown: shown.to_vec(), at: at.clone(), follow });
        Ok(())
    }

    fn include_parents(&mut self) {
        for parent in self.parents.iter_mut().filter(|parent| !parent.included) {
            parent.included = true;
            self.found.push(Included {
                shown: parent.shown.clone(),
                at: parent.at.clone(),
                follow: parent.follow,
            });
        }
    }

    /// Whether the wildcard matches this path, or matched a directory above it.
    fn wildcard_selects(&mut self, shown: &[u8]) -> Result<bool> {
        if !self.opts.wildcard || self.path.is_empty() {
            return Ok(true);
        }
        if !self.last_match.is_empty() && below(shown, &self.last_match).is_some() {
            return Ok(true);
        }
        let matched = go_match(&self.path, shown)
            .map_err(|error| pattern_error(&String::from_utf8_lossy(&self.path), &error))?;
        if matched {
            self.last_match = shown.to_vec();
        }
        Ok(matched)
    }

    /// Whether include and exclude patterns select the path, and what they say about paths below it.
    fn matches(&self, shown: &[u8]) -> Result<(bool, Option<MatchInfo>, Option<MatchInfo>)> {
        let base = if self.opts.wildcard { &self.last_match } else { &self.path };
        let candidate = if shown == &base[..] { b"".as_slice() } else { below(shown, base).unwrap_or(shown) };
        let candidate = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(candidate);
        let parent = self.parents.last();
        let error = |error: PatternError| pattern_error(&candidate.to_string_lossy(), &error);
        let (mut include_info, mut exclude_info) = (None, None);
        if let Some(include) = &self.include {
            let (matched, info) =
                include.matches_below(candidate, parent.and_then(|p| p.include.as_ref())).map_err(error)?;
            include_info = Some(info);
            if !matched {
                return Ok((false, include_info, None));
            }
        }
        if let Some(exclude) = &self.exclude {
            let (matched, info) =
                exclude.matches_below(candidate, parent.and_then(|p| p.exclude.as_ref())).map_err(error)?;
            exclude_info = Some(info);
            if matched {
                return Ok((false, include_info, exclude_info));
            }
        }
        Ok((true, include_info, exclude_info))
    }

    fn check_required(&self) -> Result<()> {
        for required in &self.opts.required {
            if !self.found.iter().any(|found| found.shown.starts_with(required.as_bytes())) {
                return Err(SnapshotError::PathNotFound(required.clone()));
            }
        }
        Ok(())
    }

    fn sum(&self, walker: &mut Walker<'_>, path: &str, prefix: &[u8]) -> Result<Digest> {
        walker.compute(&Wanted::Each(self.found.iter().map(|found| found.at.clone()).collect()))?;
        let mut digests = Vec::with_capacity(self.found.len());
        for found in &self.found {
            let is_link = matches!(walker.tree.get(&found.at), Some(Node::Symlink { .. }));
            let digest = if found.follow && is_link {
                single(walker, &String::from_utf8_lossy(&found.shown), true)?
            } else {
                own(walker, &found.at)?
            };
            digests.push(digest);
        }
        if let ([found], [digest]) = (&self.found[..], &digests[..])
            && base(&found.shown) == base(path.as_bytes())
        {
            return Ok(*digest);
        }
        let mut hasher = Hasher::new();
        for (found, digest) in self.found.iter().zip(&digests) {
            let relative = found.shown.strip_prefix(prefix).unwrap_or(&found.shown);
            let key: Vec<u8> = relative.iter().map(|b| if *b == b'/' { 0 } else { *b }).collect();
            hasher.update(if key.is_empty() { b"\0" } else { &key });
            hasher.update(digest.to_string().as_bytes());
        }
        Ok(hasher.finish())
    }
}

/// The digest of a record itself; of a directory, its header.
fn own(walker: &Walker<'_>, at: &[Name]) -> Result<Digest> {
    let digest = match at {
        [] => walker.tree.root.header,
        at => walker.tree.get(at).and_then(Node::own),
    };
    digest.ok_or_else(|| SnapshotError::PathNotFound(super::resolve::path_of(at).display().to_string()))
}

/// What is left of `path` below the directory `dir`.
fn below<'p>(path: &'p [u8], dir: &[u8]) -> Option<&'p [u8]> {
    path.strip_prefix(dir)?.strip_prefix(b"/")
}

/// The last element; `.` of nothing and `/` of slashes only, as Go's `path.Base`.
fn base(path: &[u8]) -> &[u8] {
    if path.is_empty() {
        return b".";
    }
    path.split(|b| *b == b'/').rfind(|part| !part.is_empty()).unwrap_or(b"/")
}

/// Cuts a clean path before the first element with a wildcard. The first part is empty for the root.
fn split_wildcards(path: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty()).peekable();
    let mut fixed = Vec::new();
    while let Some(part) = parts.next_if(|part| !has_wildcards(part)) {
        fixed.push(b'/');
        fixed.extend_from_slice(part);
    }
    (fixed, parts.collect::<Vec<_>>().join(&b'/'))
}
