//! File operations from the wire.

use super::{OpError, optional};
use crate::op::*;
use kiln_proto::pb;
use kiln_proto::pb::file_action::Action;

/// More actions than any step has.
const MAX_ACTIONS: usize = 100_000;

pub(super) fn file(f: pb::FileOp, inputs: usize) -> Result<FileOp, OpError> {
    if f.actions.is_empty() {
        return Err(OpError::Missing { op: "file", what: "actions" });
    }
    let count = f.actions.len();
    if count > MAX_ACTIONS {
        return Err(OpError::TooMany { what: "file actions", count });
    }
    let actions = f.actions.into_iter().enumerate();
    let actions =
        actions.map(|(i, a)| action(a, Scope { inputs, actions: i })).collect::<Result<Vec<_>, _>>()?;
    check_outputs(&actions)?;
    Ok(FileOp { actions })
}

fn check_outputs(actions: &[FileAction]) -> Result<(), OpError> {
    let count = actions.iter().filter(|a| a.output.is_some()).count();
    if count == 0 {
        return Err(OpError::Outputs("no outputs specified".to_string()));
    }
    let mut seen = vec![false; count];
    for o in actions.iter().filter_map(|a| a.output) {
        match seen.get_mut(o) {
            Some(s) if !*s => *s = true,
            Some(_) => return Err(OpError::Outputs(format!("duplicate output {o}"))),
            None => return Err(OpError::Outputs(format!("output {o} leaves a gap"))),
        }
    }
    Ok(())
}

/// What an action may name: the vertex's inputs, and the actions before it.
#[derive(Clone, Copy)]
struct Scope {
    inputs: usize,
    actions: usize,
}

impl Scope {
    fn resolve(self, what: &'static str, index: i64) -> Result<Option<ActionInput>, OpError> {
        let i = optional(what, index, self.inputs.saturating_add(self.actions))?;
        Ok(i.map(|i| if i < self.inputs { ActionInput::Op(i) } else { ActionInput::Action(i - self.inputs) }))
    }

    fn owner(self, o: Option<pb::ChownOpt>) -> Result<Option<ChownOpt>, OpError> {
        let Some(o) = o else { return Ok(None) };
        Ok(Some(ChownOpt { user: self.user(o.user)?, group: self.user(o.group)? }))
    }

    fn user(self, u: Option<pb::UserOpt>) -> Result<Option<UserOpt>, OpError> {
        use pb::user_opt::User;
        Ok(match u.and_then(|u| u.user) {
            None => None,
            Some(User::ById(id)) => Some(UserOpt::Id(id)),
            Some(User::ByName(n)) => {
                Some(UserOpt::Name { name: n.name, input: self.resolve("user index", n.input)? })
            }
        })
    }
}

fn action(a: pb::FileAction, scope: Scope) -> Result<FileAction, OpError> {
    let kind = match a.action.ok_or(OpError::Missing { op: "file", what: "action" })? {
        Action::Copy(c) => FileActionKind::Copy(copy(c, scope)?),
        Action::Mkfile(f) => FileActionKind::MkFile(MkFileAction {
            path: f.path,
            mode: mode(f.mode)?,
            data: f.data,
            owner: scope.owner(f.owner)?,
            timestamp: timestamp(f.timestamp),
        }),
        Action::Mkdir(d) => FileActionKind::MkDir(MkDirAction {
            path: d.path,
            mode: mode(d.mode)?,
            make_parents: d.make_parents,
            owner: scope.owner(d.owner)?,
            timestamp: timestamp(d.timestamp),
        }),
        Action::Rm(r) => FileActionKind::Rm(RmAction {
            path: r.path,
            allow_not_found: r.allow_not_found,
            allow_wildcard: r.allow_wildcard,
        }),
        Action::Symlink(s) => FileActionKind::Symlink(SymlinkAction {
            oldpath: s.oldpath,
            newpath: s.newpath,
            owner: scope.owner(s.owner)?,
            timestamp: timestamp(s.timestamp),
        }),
    };
    let input = scope.resolve("file action input index", a.input)?;
    let secondary = scope.resolve("file action secondary input index", a.secondary_input)?;
    Ok(FileAction {
        input,
        secondary,
        output: optional("file action output index", a.output, MAX_ACTIONS)?,
        kind,
    })
}

fn copy(c: pb::FileActionCopy, scope: Scope) -> Result<CopyAction, OpError> {
    Ok(CopyAction {
        src: c.src,
        dest: c.dest,
        owner: scope.owner(c.owner)?,
        mode: mode(c.mode)?,
        follow_symlink: c.follow_symlink,
        dir_copy_contents: c.dir_copy_contents,
        attempt_unpack: c.attempt_unpack_docker_compatibility,
        create_dest_path: c.create_dest_path,
        allow_wildcard: c.allow_wildcard,
        allow_empty_wildcard: c.allow_empty_wildcard,
        timestamp: timestamp(c.timestamp),
        include_patterns: c.include_patterns,
        exclude_patterns: c.exclude_patterns,
        always_replace_existing_dest_paths: c.always_replace_existing_dest_paths,
        mode_str: c.mode_str,
        required_paths: c.required_paths,
    })
}

/// -1 keeps the mode; any other negative number has no meaning. Bits above the permissions are kept here, so that
/// cache keys stay those of the bytes, and are masked where files are made.
fn mode(m: i32) -> Result<FileMode, OpError> {
    match u32::try_from(m) {
        Ok(bits) => Ok(FileMode::Bits(bits)),
        Err(_) if m == -1 => Ok(FileMode::Keep),
        Err(_) => Err(OpError::Enum { what: "file mode", value: m.into() }),
    }
}

fn timestamp(t: i64) -> Option<i64> {
    (t != -1).then_some(t)
}
