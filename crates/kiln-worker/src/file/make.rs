//! New files, directories and links.

use super::{FileError, new_mode, settle, time};
use kiln_fs::{Root, paths};
use kiln_llb::{MkDirAction, MkFileAction, SymlinkAction};
use std::time::SystemTime;

type Owner = Option<(u32, u32)>;

/// Makes a directory. One that exists stays as it is; without `make_parents` anything that exists is fine.
pub(super) fn dir(a: &MkDirAction, root: &Root, owner: Owner) -> Result<(), FileError> {
    let t = time(a.timestamp);
    if a.make_parents {
        root.create_dir_all(&a.path, new_mode(a.mode), owner, t.map(SystemTime::from))?;
        return Ok(());
    }
    let (_, _, path) = root.target(&a.path)?;
    match root.exists(&path, false)? {
        true => Ok(()),
        false => {
            root.create_dir(&path, new_mode(a.mode))?;
            Ok(settle(root, &path, owner, t)?)
        }
    }
}

/// Writes a file, through a link if there is one; an existing file keeps its permissions.
pub(super) fn file(a: &MkFileAction, root: &Root, owner: Owner) -> Result<(), FileError> {
    let (_, _, path) = root.target(paths::absolute(&a.path))?;
    root.write_file(&path, &a.data, new_mode(a.mode))?;
    Ok(settle(root, &path, owner, time(a.timestamp))?)
}

/// Makes a link with any text as target; nothing may be in its place but a dangling link, which is followed.
pub(super) fn symlink(a: &SymlinkAction, root: &Root, owner: Owner) -> Result<(), FileError> {
    let (_, _, path) = root.target(paths::absolute(&a.newpath))?;
    root.symlink(&a.oldpath, &path)?;
    Ok(settle(root, &path, owner, time(a.timestamp))?)
}
