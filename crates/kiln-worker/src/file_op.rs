//! File: a chain of actions, each on the result of an earlier one or on an input.
//!
//! Actions that only feed one later action share one snapshot: `COPY a b c /` is one layer.

use crate::exec::failed;
use crate::failure::Written;
use crate::{Cx, Failure, Left, Ref, Worker, file};
use kiln_llb::errdefs::{BuildError, Code, Detail, SolveSubject};
use kiln_llb::{ActionInput, FileAction, FileActionKind, FileOp, UserOpt};
use kiln_snapshot::{ActiveSnapshot, Mounted, NewRef};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Runs all actions on a blocking thread, which stops at the next file when nobody waits any more.
pub(crate) async fn exec(
    worker: &Worker,
    cx: &Cx,
    op: &FileOp,
    inputs: Vec<Ref>,
) -> Result<Vec<Ref>, Failure> {
    let (worker, op) = (worker.clone(), op.clone());
    let wanted = Wanted(Arc::default());
    let given_up = wanted.0.clone();
    let work = move || {
        let (done, open) = (HashMap::new(), HashMap::new());
        Run { worker: &worker, op: &op, inputs: &inputs, done, open, given_up }.all()
    };
    match cx.cancel.run_until_cancelled(tokio::task::spawn_blocking(work)).await {
        Some(ended) => ended.map_err(failed)?,
        None => Err(BuildError::canceled().into()),
    }
}

/// Gives up when dropped.
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Run<'a> {
    worker: &'a Worker,
    op: &'a FileOp,
    inputs: &'a [Ref],
    /// Committed results of actions.
    done: HashMap<usize, Ref>,
    /// Results that the next action may go on writing to.
    open: HashMap<usize, Open>,
    /// Nobody waits any more.
    given_up: Arc<AtomicBool>,
}

struct Open {
    active: ActiveSnapshot,
    mounted: Mounted,
}

impl Run<'_> {
    fn all(mut self) -> Result<Vec<Ref>, Failure> {
        let mut outputs = vec![Ref::default(); self.op.output_count()];
        for (index, action) in self.op.actions.iter().enumerate() {
            let done = self.one(index, action);
            if self.given_up.load(Ordering::Relaxed) {
                return Err(BuildError::canceled().into());
            }
            if let Err(error) = done {
                let left = Some(Arc::new(self.left(index, action)));
                return Err(Failure { error: subject(error, index), left });
            }
        }
        for (index, action) in self.op.actions.iter().enumerate() {
            if let Some(slot) = action.output.and_then(|n| outputs.get_mut(n)) {
                *slot = self.commit(index)?;
            }
        }
        Ok(outputs)
    }

    fn one(&mut self, index: usize, action: &FileAction) -> Result<(), BuildError> {
        let secondary = self.view(action.secondary)?;
        let users = self.owner_views(action)?;
        let open = self.target(index, action)?;
        let owner_root = |input: ActionInput| {
            users.iter().find(|(i, _)| *i == input).and_then(|(_, m)| m.as_ref().map(Mounted::root))
        };
        let (target, secondary) = (open.mounted.root(), secondary.as_ref().map(Mounted::root));
        let done = file::apply(action, target, secondary, &owner_root, Some(self.given_up.clone()));
        self.open.insert(index, open);
        done.map_err(|e| BuildError::msg(e.to_string()))
    }

    /// What the action `failed` had before it: its target, and what it was to copy from, by the number of the action
    /// that made it.
    fn left(&mut self, failed: usize, action: &FileAction) -> Left {
        let mut mounts = vec![None; self.op.actions.len()];
        let secondary = match action.secondary {
            Some(ActionInput::Action(i)) => Some(i),
            _ => None,
        };
        for index in [Some(failed), secondary].into_iter().flatten() {
            if let (Some(slot), Ok(kept)) = (mounts.get_mut(index), self.commit(index)) {
                *slot = Some(kept);
            }
        }
        // Nobody finds these later.
        let ids = self.done.values().filter_map(|r| Some(r.snapshot()?.id().clone())).collect();
        let written = Written { snapshots: self.worker.0.snapshots.clone(), ids };
        Left { inputs: self.inputs.iter().cloned().map(Some).collect(), mounts, written }
    }

    /// What the action writes to: the open result of the action before, when nothing else uses that; else a new one.
    fn target(&mut self, index: usize, action: &FileAction) -> Result<Open, BuildError> {
        if let Some(ActionInput::Action(before)) = action.input
            && self.only_user(before, index)
            && let Some(open) = self.open.remove(&before)
        {
            return Ok(open);
        }
        let on = match action.input {
            None => Ref::default(),
            Some(input) => self.resolve(input)?,
        };
        let active = self
            .worker
            .0
            .snapshots
            .new_active(on.snapshot(), NewRef::regular(description(action)))
            .map_err(failed)?;
        let mounted = active.mount().map_err(failed)?;
        Ok(Open { active, mounted })
    }

    /// Whether `user` is the only one who needs the result of action `index`.
    fn only_user(&self, index: usize, user: usize) -> bool {
        let action = ActionInput::Action(index);
        let uses = |a: &FileAction| {
            a.input == Some(action) || a.secondary == Some(action) || names(a).contains(&action)
        };
        let others = self.op.actions.iter().enumerate().filter(|(i, a)| *i != user && uses(a)).count();
        self.op.actions[index].output.is_none()
            && others == 0
            && self.op.actions[user].secondary != Some(action)
    }

    fn resolve(&mut self, input: ActionInput) -> Result<Ref, BuildError> {
        match input {
            ActionInput::Op(i) => {
                let missing = || BuildError::new(Code::InvalidArgument, format!("missing input {i}"));
                self.inputs.get(i).cloned().ok_or_else(missing)
            }
            ActionInput::Action(i) => self.commit(i),
        }
    }

    fn commit(&mut self, index: usize) -> Result<Ref, BuildError> {
        if let Some(Open { active, mounted }) = self.open.remove(&index) {
            drop(mounted);
            let snapshot = active.commit().map_err(failed)?;
            self.done.insert(index, Ref::from(snapshot));
        }
        let missing =
            || BuildError::new(Code::InvalidArgument, format!("action {index} is used before it ran"));
        self.done.get(&index).cloned().ok_or_else(missing)
    }

    /// `None` is scratch.
    fn view(&mut self, input: Option<ActionInput>) -> Result<Option<Mounted>, BuildError> {
        let Some(input) = input else { return Ok(None) };
        let found = self.resolve(input)?;
        let mounted = match found.snapshot() {
            Some(snapshot) => self.worker.0.snapshots.mount_view(snapshot),
            None => self.worker.0.snapshots.mount_empty(),
        };
        mounted.map(Some).map_err(failed)
    }

    fn owner_views(
        &mut self,
        action: &FileAction,
    ) -> Result<Vec<(ActionInput, Option<Mounted>)>, BuildError> {
        let mut views = Vec::new();
        for input in names(action) {
            // Names are looked up in the state before the action, which for its own target is what it goes on from.
            let open = match input {
                ActionInput::Action(i) => self.open.get(&i).map(|o| o.mounted.clone()),
                ActionInput::Op(_) => None,
            };
            let view = match open {
                Some(mounted) => Some(mounted),
                None => self.view(Some(input))?,
            };
            views.push((input, view));
        }
        Ok(views)
    }
}

/// Filesystems in which the action looks up names.
fn names(action: &FileAction) -> Vec<ActionInput> {
    let owner = match &action.kind {
        FileActionKind::Copy(a) => &a.owner,
        FileActionKind::MkFile(a) => &a.owner,
        FileActionKind::MkDir(a) => &a.owner,
        FileActionKind::Symlink(a) => &a.owner,
        FileActionKind::Rm(_) => &None,
    };
    let users = owner.iter().flat_map(|o| [&o.user, &o.group]).flatten();
    let input = |user: &UserOpt| match user {
        UserOpt::Name { input, .. } => *input,
        UserOpt::Id(_) => None,
    };
    let mut inputs: Vec<ActionInput> = users.filter_map(input).collect();
    inputs.dedup();
    inputs
}

fn description(action: &FileAction) -> String {
    match &action.kind {
        FileActionKind::Copy(a) => format!("copy {} {}", a.src, a.dest),
        FileActionKind::MkFile(a) => format!("mkfile {}", a.path),
        FileActionKind::MkDir(a) => format!("mkdir {}", a.path),
        FileActionKind::Rm(a) => format!("rm {}", a.path),
        FileActionKind::Symlink(a) => format!("symlink {} -> {}", a.newpath, a.oldpath),
    }
}

fn subject(error: BuildError, index: usize) -> BuildError {
    error.wrap(Detail::Solve {
        input_ids: Vec::new(),
        mount_ids: Vec::new(),
        op: None,
        subject: i64::try_from(index).ok().map(SolveSubject::File),
        description: Default::default(),
    })
}
