//! One action of a file operation, on roots that are already mounted.
//!
//! Paths are those of the mounted trees and stay inside them whatever links and `..` they hold. Behaviour, down to what
//! counts as an error, is BuildKit's (spec llb-and-solver section 2, "File").

mod copy;
mod make;
mod owner;
mod remove;

use kiln_fs::copy::{BadMode, CopyError};
use kiln_fs::unpack::UnpackError;
use kiln_fs::users::UserError;
use kiln_fs::{FileTime, Root};
use kiln_llb::{ActionInput, FileAction, FileActionKind, FileMode};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Why an action failed. The target may be partly changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// A filesystem operation failed.
    #[error(transparent)]
    Fs(#[from] kiln_fs::Error),
    /// Copying failed.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// An archive could not be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// An owner could not be looked up.
    #[error(transparent)]
    User(#[from] UserError),
    /// The text after `--chmod` is no mode.
    #[error(transparent)]
    Mode(#[from] BadMode),
    /// The source does not exist, or a pattern matched nothing.
    #[error("{} not found", .0.display())]
    NotFound(PathBuf),
    /// The parent of a copy's destination does not exist.
    #[error("failed to stat {}: {source}", .dest.display())]
    NoDestination {
        /// The destination.
        dest: PathBuf,
        /// What failed.
        source: kiln_fs::Error,
    },
    /// An owner by name without a filesystem to look it up in.
    #[error("no filesystem to look up {0:?} in")]
    NoUserSource(String),
    /// The root directory itself, which every filesystem has.
    #[error("rm: cannot remove the root directory")]
    RemoveRoot,
}

/// The filesystem that an owner's name is looked up in; `None` if there is none.
pub(crate) type OwnerRoots<'a> = dyn Fn(ActionInput) -> Option<&'a Root> + 'a;

/// Does what an action says to `target`. `secondary` is what is copied from; `None` is an empty filesystem. Blocks; a copy
/// stops at the next file once `cancel` is set.
pub(crate) fn apply(
    action: &FileAction,
    target: &Root,
    secondary: Option<&Root>,
    owners: &OwnerRoots<'_>,
    cancel: Option<Arc<AtomicBool>>,
) -> Result<(), FileError> {
    match &action.kind {
        FileActionKind::Copy(a) => {
            copy::run(a, target, secondary, owner::find(a.owner.as_ref(), owners)?, cancel)
        }
        FileActionKind::MkFile(a) => make::file(a, target, owner::find(a.owner.as_ref(), owners)?),
        FileActionKind::MkDir(a) => make::dir(a, target, owner::find(a.owner.as_ref(), owners)?),
        FileActionKind::Symlink(a) => make::symlink(a, target, owner::find(a.owner.as_ref(), owners)?),
        FileActionKind::Rm(a) => remove::run(a, target),
    }
}

/// Permissions of something new: the nine bits, all of them where none were asked for.
fn new_mode(mode: FileMode) -> u32 {
    match mode {
        FileMode::Keep => 0o777,
        FileMode::Bits(bits) => bits & 0o777,
    }
}

fn time(timestamp: Option<i64>) -> Option<FileTime> {
    timestamp.map(FileTime::from_nanos)
}

/// Owner and time of something new; without them it is root's and from now.
fn settle(
    root: &Root,
    path: &Path,
    owner: Option<(u32, u32)>,
    time: Option<FileTime>,
) -> Result<(), kiln_fs::Error> {
    if let Some((uid, gid)) = owner {
        root.chown(path, uid, gid)?;
    }
    match time {
        Some(t) => root.utimens(path, t, t),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
