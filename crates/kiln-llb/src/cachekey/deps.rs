//! Which part of each input an operation depends on.

use crate::Vertex;
use crate::op::*;
use kiln_digest::Digest;
use kiln_go::path as gopath;
use std::collections::{BTreeMap, BTreeSet};

/// How one input enters the cache key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DepKey {
    /// Distinguishes uses of the same input that read different parts of it.
    pub selector: Option<Digest>,
    /// When the input may be compared by content: what to take the checksum of, never empty.
    pub content: Option<Vec<ContentSelector>>,
}

/// A part of a tree that a checksum is taken of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContentSelector {
    /// Absolute path, or a pattern; `/` is the whole tree.
    pub path: String,
    /// `path` is a pattern.
    pub wildcard: bool,
    /// Resolve a symbolic link at the end.
    pub follow_links: bool,
    /// Only what matches.
    pub include_patterns: Vec<String>,
    /// Not what matches.
    pub exclude_patterns: Vec<String>,
    /// Must exist.
    pub required_paths: Vec<String>,
}

impl ContentSelector {
    fn path(path: &str, follow_links: bool) -> Self {
        ContentSelector { path: path.to_string(), follow_links, ..Default::default() }
    }

    fn has_filters(&self) -> bool {
        self.wildcard || !self.include_patterns.is_empty() || !self.exclude_patterns.is_empty()
    }
}

/// Why an operation has no cache key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Comparison by content was demanded of a mount that can change what was not compared.
    #[error("invalid mount cache content for mount at {0}: it is writable and has a selector")]
    UnsafeContentCache(String),
    /// Users are looked up in an input of the vertex only.
    #[error("invalid input index {index} in file op with {inputs} inputs")]
    OwnerInput {
        /// The index on the wire.
        index: i64,
        /// How many inputs the vertex has.
        inputs: usize,
    },
}

/// One entry per input of `vertex`.
pub fn deps(vertex: &Vertex) -> Result<Vec<DepKey>, KeyError> {
    let n = vertex.inputs.len();
    match &vertex.op {
        Op::Exec(op) => exec(op, n),
        Op::File(op) => file(op, n),
        Op::Source(_) | Op::Build(_) | Op::Merge(_) | Op::Diff(_) | Op::Passthrough(_) => {
            Ok(vec![DepKey::default(); n])
        }
    }
}

fn exec(op: &ExecOp, inputs: usize) -> Result<Vec<DepKey>, KeyError> {
    let mut paths = vec![Vec::new(); inputs];
    let mut by_content = vec![false; inputs];
    for m in &op.mounts {
        let (Some(i), MountKind::Bind | MountKind::Cache { .. }) = (m.input, &m.kind) else { continue };
        let path = gopath::join(&["/", &m.selector]);
        // A writable mount of a part could carry unseen files of the rest into the result.
        let safe = m.output.is_none() || m.readonly || path == "/";
        by_content[i] = match m.content_cache {
            ContentCache::Off => false,
            ContentCache::On if !safe => return Err(KeyError::UnsafeContentCache(m.dest.clone())),
            ContentCache::On => true,
            ContentCache::Default => safe && m.dest != "/",
        };
        paths[i].push(path);
    }
    let dep = |(paths, by_content): (Vec<String>, bool)| DepKey {
        selector: (!paths.is_empty()).then(|| Digest::sha256(paths.join("\0"))),
        content: by_content.then(|| exec_content(&paths)),
    };
    Ok(paths.into_iter().zip(by_content).map(dep).collect())
}

fn exec_content(paths: &[String]) -> Vec<ContentSelector> {
    let paths = dedupe(paths.iter().map(String::as_str));
    if paths.contains("/") {
        return vec![ContentSelector::path("/", false)];
    }
    paths.iter().map(|p| ContentSelector::path(p, true)).collect()
}

/// Sorted, without those below another one.
fn dedupe<'a>(paths: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let all: BTreeSet<&str> = paths.collect();
    let is_below = |p: &str, parent: &str| {
        p != parent
            && p.strip_prefix(parent).is_some_and(|rest| parent.ends_with('/') || rest.starts_with('/'))
    };
    all.iter().filter(|p| !all.iter().any(|parent| is_below(p, parent))).copied().collect()
}

fn file(op: &FileOp, inputs: usize) -> Result<Vec<DepKey>, KeyError> {
    let mut selectors: BTreeMap<usize, Vec<ContentSelector>> = BTreeMap::new();
    let mut targets = BTreeSet::new();
    for a in &op.actions {
        if let Some(ActionInput::Op(i)) = a.input {
            targets.insert(i);
        }
        for (path, who) in owners(&a.kind) {
            let ActionInput::Op(i) = who else {
                return Err(KeyError::OwnerInput { index: who.to_wire(inputs), inputs });
            };
            selectors.entry(i).or_default().push(ContentSelector::path(path, true));
        }
        if let (FileActionKind::Copy(c), Some(ActionInput::Op(i))) = (&a.kind, a.secondary) {
            selectors.entry(i).or_default().push(copy_selector(c));
        }
    }
    let mut out = vec![DepKey::default(); inputs];
    for (i, found) in selectors {
        // What is written to is part of the result as a whole.
        if targets.contains(&i) {
            continue;
        }
        if let Some(dep) = out.get_mut(i) {
            let mut paths: Vec<&str> = found.iter().map(|s| s.path.as_str()).collect();
            paths.sort_unstable();
            paths.reverse();
            dep.selector = Some(Digest::sha256(paths.join("\0")));
            dep.content = Some(dedupe_selectors(&found));
        }
    }
    Ok(out)
}

fn owners(kind: &FileActionKind) -> Vec<(&'static str, ActionInput)> {
    let owner = match kind {
        FileActionKind::Copy(c) => c.owner.as_ref(),
        FileActionKind::MkFile(f) => f.owner.as_ref(),
        FileActionKind::MkDir(d) => d.owner.as_ref(),
        FileActionKind::Rm(_) | FileActionKind::Symlink(_) => None,
    };
    let Some(owner) = owner else { return Vec::new() };
    let files = [("/etc/passwd", &owner.user), ("/etc/group", &owner.group)];
    let by_name = |(path, who): (&'static str, &Option<UserOpt>)| match who {
        Some(UserOpt::Name { input, .. }) => Some((path, (*input)?)),
        _ => None,
    };
    files.into_iter().filter_map(by_name).collect()
}

fn copy_selector(c: &CopyAction) -> ContentSelector {
    ContentSelector {
        path: c.src.clone(),
        wildcard: c.allow_wildcard && gopath::has_wildcards(&c.src),
        follow_links: c.follow_symlink,
        include_patterns: c.include_patterns.clone(),
        exclude_patterns: c.exclude_patterns.clone(),
        required_paths: c.required_paths.clone(),
    }
}

fn dedupe_selectors(found: &[ContentSelector]) -> Vec<ContentSelector> {
    let plain = |follow: bool| {
        let some = found.iter().filter(move |s| !s.has_filters() && s.follow_links == follow);
        dedupe(some.map(|s| s.path.as_str()))
    };
    let mut out: Vec<ContentSelector> =
        plain(false).into_iter().map(|p| ContentSelector::path(p, false)).collect();
    out.extend(plain(true).into_iter().map(|p| ContentSelector::path(p, true)));
    out.extend(found.iter().filter(|s| s.has_filters()).cloned());
    out.sort_by(|a, b| a.path.cmp(&b.path));
    for s in &mut out {
        s.path = gopath::join(&["/", &s.path]);
    }
    out
}
