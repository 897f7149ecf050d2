//! File operations: a chain of actions on one base.

use super::Output;
use crate::op::*;
use kiln_go::path as gopath;

/// One action of a chain; each works on the result of the one before.
#[derive(Clone, Debug)]
pub enum ActionSpec {
    /// Makes a directory.
    MkDir {
        /// Where.
        path: String,
        /// Permission bits, only the lowest nine count.
        mode: u32,
        /// Make parents too.
        make_parents: bool,
        /// Owner.
        owner: Option<Owner>,
        /// Modification time in nanoseconds.
        timestamp: Option<i64>,
    },
    /// Writes a file.
    MkFile {
        /// Where.
        path: String,
        /// Permission bits, only the lowest nine count.
        mode: u32,
        /// Content.
        data: Vec<u8>,
        /// Owner.
        owner: Option<Owner>,
        /// Modification time in nanoseconds.
        timestamp: Option<i64>,
    },
    /// Removes.
    Rm(RmAction),
    /// Makes a symbolic link.
    Symlink {
        /// Target.
        oldpath: String,
        /// Link.
        newpath: String,
        /// Owner.
        owner: Option<Owner>,
        /// Modification time in nanoseconds.
        timestamp: Option<i64>,
    },
    /// Copies.
    Copy(Box<CopySpec>),
}

/// A copy. `action.owner` is set from `owner`.
#[derive(Clone, Debug, Default)]
pub struct CopySpec {
    /// From where; `None` is scratch.
    pub source: Option<Output>,
    /// Owner of what is copied.
    pub owner: Option<Owner>,
    /// The rest; paths as written.
    pub action: CopyAction,
}

/// An owner by number or by a name in the base.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub user: Option<OwnerId>,
    /// Group.
    pub group: Option<OwnerId>,
}

/// Half of an [`Owner`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerId {
    /// Number.
    Id(u32),
    /// Name.
    Name(String),
}

impl Owner {
    /// Reads `user[:group]`; `root` is 0, numbers are numbers (also negative ones, which wrap as in the Go client).
    pub fn parse(text: &str) -> Owner {
        let id = |v: &str| match v {
            "root" => OwnerId::Id(0),
            v => match v.parse::<i32>() {
                Ok(n) => OwnerId::Id(n as u32),
                Err(_) if v.is_empty() => OwnerId::Id(0),
                Err(_) => OwnerId::Name(v.to_string()),
            },
        };
        match text.split_once(':') {
            None => Owner { user: Some(id(text)), group: None },
            Some((user, group)) => Owner { user: Some(id(user)), group: Some(id(group)) },
        }
    }

    fn resolve(&self, base: Option<usize>) -> ChownOpt {
        let id = |o: &OwnerId| match o {
            OwnerId::Id(n) => UserOpt::Id(*n),
            OwnerId::Name(name) => UserOpt::Name { name: name.clone(), input: base.map(ActionInput::Op) },
        };
        ChownOpt { user: self.user.as_ref().map(id), group: self.group.as_ref().map(id) }
    }
}

/// Sources of a chain, in the order that the Go client lists them.
pub(super) fn inputs(base: Option<Output>, actions: &[ActionSpec]) -> Vec<Output> {
    let sources = actions.iter().rev().filter_map(|a| match a {
        ActionSpec::Copy(c) => c.source,
        _ => None,
    });
    base.into_iter().chain(sources).collect()
}

/// The operation. `input` gives the index of an input for an output, adding it when it is new.
pub(super) fn op(
    base: Option<Output>,
    dir: &str,
    actions: &[ActionSpec],
    mut input: impl FnMut(Option<Output>) -> Option<usize>,
) -> FileOp {
    let mut out = Vec::with_capacity(actions.len());
    for (i, a) in actions.iter().enumerate() {
        let base = input(base);
        let secondary = match a {
            ActionSpec::Copy(c) => input(c.source),
            _ => None,
        };
        let target = if i == 0 { base.map(ActionInput::Op) } else { Some(ActionInput::Action(i - 1)) };
        out.push(FileAction {
            input: target,
            secondary: secondary.map(ActionInput::Op),
            output: (i + 1 == actions.len()).then_some(0),
            kind: kind(a, dir, base),
        });
    }
    FileOp { actions: out }
}

fn kind(a: &ActionSpec, dir: &str, base: Option<usize>) -> FileActionKind {
    let chown = |o: &Option<Owner>| o.as_ref().map(|o| o.resolve(base));
    match a {
        ActionSpec::MkDir { path, mode, make_parents, owner, timestamp } => {
            FileActionKind::MkDir(MkDirAction {
                path: normalize(dir, path, false),
                mode: FileMode::Bits(mode & 0o777),
                make_parents: *make_parents,
                owner: chown(owner),
                timestamp: *timestamp,
            })
        }
        ActionSpec::MkFile { path, mode, data, owner, timestamp } => FileActionKind::MkFile(MkFileAction {
            path: normalize(dir, path, false),
            mode: FileMode::Bits(mode & 0o777),
            data: data.clone(),
            owner: chown(owner),
            timestamp: *timestamp,
        }),
        ActionSpec::Rm(r) => {
            FileActionKind::Rm(RmAction { path: normalize(dir, &r.path, false), ..r.clone() })
        }
        ActionSpec::Symlink { oldpath, newpath, owner, timestamp } => {
            FileActionKind::Symlink(SymlinkAction {
                oldpath: oldpath.clone(),
                newpath: newpath.clone(),
                owner: chown(owner),
                timestamp: *timestamp,
            })
        }
        ActionSpec::Copy(c) => FileActionKind::Copy(CopyAction {
            src: gopath::join(&["/", &c.action.src]),
            dest: normalize(dir, &c.action.dest, true),
            owner: chown(&c.owner),
            ..c.action.clone()
        }),
    }
}

/// An absolute path; the slash (or `/.`) at the end says something to a copy and is kept then.
fn normalize(dir: &str, path: &str, keep_slash: bool) -> String {
    let mut p = gopath::clean(path);
    if !gopath::is_abs(&p) {
        p = gopath::join(&["/", dir, &p]);
    }
    if keep_slash && path.ends_with('/') && !p.ends_with('/') {
        p.push('/');
    } else if keep_slash && path.ends_with("/.") {
        if p != "/" {
            p.push('/');
        }
        p.push('.');
    }
    p
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_keep_what_means_something() {
        assert_eq!(normalize("/app", "x/", true), "/app/x/");
        assert_eq!(normalize("/app", ".", true), "/app");
        assert_eq!(normalize("/app", "./", true), "/app/");
        assert_eq!(normalize("/", "a/.", true), "/a/.");
        assert_eq!(normalize("/", "/.", true), "/.");
        assert_eq!(normalize("/", "a/../../b/", false), "/b");
    }

    #[test]
    fn owners_are_numbers_or_names() {
        let name = |s: &str| Some(OwnerId::Name(s.into()));
        assert_eq!(Owner::parse("u:g"), Owner { user: name("u"), group: name("g") });
        assert_eq!(Owner::parse("1000"), Owner { user: Some(OwnerId::Id(1000)), group: None });
        assert_eq!(Owner::parse("root:12x"), Owner { user: Some(OwnerId::Id(0)), group: name("12x") });
    }
}
