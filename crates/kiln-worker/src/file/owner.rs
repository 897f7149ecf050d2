//! Who owns what an action makes.

use super::{FileError, OwnerRoots};
use kiln_fs::users;
use kiln_llb::{ChownOpt, UserOpt};

/// User and group; `None` when the action asks for none. A user by name brings its group along, a number stands for
/// both, and a name that no file knows is root, as in BuildKit.
pub(super) fn find(
    owner: Option<&ChownOpt>,
    roots: &OwnerRoots<'_>,
) -> Result<Option<(u32, u32)>, FileError> {
    let Some(owner) = owner else { return Ok(None) };
    let (mut uid, mut gid) = (0, 0);
    match &owner.user {
        None => {}
        Some(UserOpt::Id(id)) => (uid, gid) = (*id, *id),
        Some(UserOpt::Name { name, input }) => {
            let root = input.and_then(roots).ok_or_else(|| FileError::NoUserSource(name.clone()))?;
            match users::find_user(root, name)? {
                Some(ids) => (uid, gid) = ids,
                None => tracing::warn!(user = name, "no such user, root it is"),
            }
        }
    }
    match &owner.group {
        None => {}
        Some(UserOpt::Id(id)) => gid = *id,
        Some(UserOpt::Name { name, input }) => {
            let root = input.and_then(roots).ok_or_else(|| FileError::NoUserSource(name.clone()))?;
            match users::find_group(root, name)? {
                Some(id) => gid = id,
                None => tracing::warn!(group = name, "no such group, the user's stays"),
            }
        }
    }
    Ok(Some((uid, gid)))
}
