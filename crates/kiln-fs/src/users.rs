//! Users and groups of an image: `/etc/passwd` and `/etc/group` below a root.
//!
//! These files come from whoever made the image. They are read with a size limit, only when they are regular files
//! below the root, and never with more memory than the limit (GHSA-72x6-4j93-7w86).

use crate::error::Error;
use crate::root::Root;

/// The largest user or group file that is read, in bytes; BuildKit's limit.
pub const MAX_FILE: u64 = 10 << 20;
/// The longest line of a user file; groups may list many members.
const MAX_PASSWD_LINE: usize = 64 << 10;
const MAX_GROUP_LINE: usize = 1 << 20;
/// The largest number a user may ask for.
const MAX_ID: i64 = i32::MAX as i64;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Why a user could not be found.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The file cannot be read, or is too large.
    #[error(transparent)]
    File(#[from] Error),
    /// A line is longer than any real one.
    #[error("{file} line {line} is too long")]
    LongLine {
        /// The file.
        file: &'static str,
        /// Counted from one.
        line: usize,
    },
    /// No such name.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// No such group name.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// A number out of range.
    #[error("uids and gids must be in range 0-2147483647")]
    Range,
    /// The entry exists but has no usable number.
    #[error("{file} entry of {name} has no valid id")]
    BadEntry {
        /// The file.
        file: &'static str,
        /// The user or group.
        name: String,
    },
}

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecUser {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Further groups that list the user as a member; empty when the group was given explicitly.
    pub additional_gids: Vec<u32>,
    /// Home directory, if the user has an entry.
    pub home: Option<String>,
}

impl ExecUser {
    /// The groups of the process, its own one among them, as setgroups(2) takes them.
    pub fn groups(&self) -> Vec<u32> {
        let own = (!self.additional_gids.contains(&self.gid)).then_some(self.gid);
        own.into_iter().chain(self.additional_gids.iter().copied()).collect()
    }
}

/// A line of `/etc/passwd`, as far as it is used.
struct User<'a> {
    name: &'a [u8],
    uid: Option<u32>,
    gid: Option<u32>,
    home: &'a [u8],
}

/// A line of `/etc/group`.
struct Group<'a> {
    name: &'a [u8],
    gid: Option<u32>,
    members: &'a [u8],
}

/// Finds the user of `USER`, `RUN --user` and the like: `""`, `name`, `uid`, `name:group`, `uid:gid`, ...
///
/// A number is always an id, also where an entry has that number as its name; it needs no entry. With both numbers given
/// no file is read. The empty text is root.
pub fn exec_user(root: &Root, spec: &str) -> Result<ExecUser, UserError> {
    let (user, group) = spec.split_once(':').map_or((spec, None), |(u, g)| (u, Some(g)));
    // Only a second colon would make a third part; Docker ignores it.
    let group = group.map(|g| g.split(':').next().unwrap_or_default());
    if let (Some(uid), Some(gid)) = (plain_id(user), group.and_then(plain_id)) {
        return Ok(ExecUser { uid, gid, ..ExecUser::default() });
    }
    match lookup(root, if spec.is_empty() { "0" } else { user }, group.unwrap_or_default()) {
        Err(e) if spec.is_empty() => {
            tracing::warn!(error = %e, "no user files, running as root");
            Ok(ExecUser::default())
        }
        found => found,
    }
}

/// Finds a user by name: its id and primary group. `None` when there is no such user or no user file.
pub fn find_user(root: &Root, name: &str) -> Result<Option<(u32, u32)>, UserError> {
    let file = load(root, PASSWD)?.unwrap_or_default();
    match first_user(&file, |u| u.name == name.as_bytes())? {
        Some(u) => {
            let bad = || UserError::BadEntry { file: PASSWD, name: name.into() };
            Ok(Some((u.uid.ok_or_else(bad)?, u.gid.ok_or_else(bad)?)))
        }
        None => Ok(None),
    }
}

/// Finds a group by name. `None` when there is no such group or no group file.
pub fn find_group(root: &Root, name: &str) -> Result<Option<u32>, UserError> {
    let file = load(root, GROUP)?.unwrap_or_default();
    let mut found = None;
    each_group(&file, |g| {
        if found.is_none() && g.name == name.as_bytes() {
            found = Some(g.gid);
        }
    })?;
    match found {
        Some(None) => Err(UserError::BadEntry { file: GROUP, name: name.into() }),
        Some(gid) => Ok(gid),
        None => Ok(None),
    }
}

fn lookup(root: &Root, user: &str, group: &str) -> Result<ExecUser, UserError> {
    let uid = numeric(user)?;
    let gid = numeric(group)?;
    let passwd = load(root, PASSWD)?.unwrap_or_default();
    let entry = first_user(&passwd, |u| match (user, uid) {
        ("", _) => u.uid == Some(0),
        (_, Some(id)) => u.uid == Some(id),
        (name, None) => u.name == name.as_bytes(),
    })?;
    let mut exec = ExecUser::default();
    match (&entry, uid) {
        (Some(e), _) => {
            let name = || String::from_utf8_lossy(e.name).into_owned();
            let bad = || UserError::BadEntry { file: PASSWD, name: name() };
            exec.uid = e.uid.ok_or_else(bad)?;
            exec.gid = e.gid.ok_or_else(bad)?;
            exec.home = Some(String::from_utf8_lossy(e.home).into_owned());
        }
        (None, Some(id)) => exec.uid = id,
        (None, None) if user.is_empty() => {}
        (None, None) => return Err(UserError::NoUser(user.into())),
    }
    match (group, gid) {
        ("", _) => {
            if let Some(e) = entry {
                exec.additional_gids = groups_of(root, e.name)?;
            }
        }
        (_, Some(id)) => exec.gid = id,
        (name, None) => exec.gid = find_group(root, name)?.ok_or_else(|| UserError::NoGroup(name.into()))?,
    }
    Ok(exec)
}

/// The groups that list a user, each once, in the order of the file.
fn groups_of(root: &Root, user: &[u8]) -> Result<Vec<u32>, UserError> {
    let file = load(root, GROUP)?.unwrap_or_default();
    let mut gids = Vec::new();
    let mut seen = std::collections::HashSet::new();
    each_group(&file, |g| {
        let member = g.members.split(|&b| b == b',').any(|m| m == user);
        if let Some(gid) = g.gid.filter(|&gid| member && seen.insert(gid)) {
            gids.push(gid);
        }
    })?;
    Ok(gids)
}

/// The content of a user file; `None` when there is none that could be read as one.
fn load(root: &Root, path: &'static str) -> Result<Option<Vec<u8>>, UserError> {
    match root.read(path, MAX_FILE) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn first_user<'f>(file: &'f [u8], want: impl Fn(&User<'f>) -> bool) -> Result<Option<User<'f>>, UserError> {
    for (i, line) in file.split(|&b| b == b'\n').enumerate() {
        if line.len() >= MAX_PASSWD_LINE {
            return Err(UserError::LongLine { file: PASSWD, line: i + 1 });
        }
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        // name:password:uid:gid:comment:home:shell (passwd(5))
        let mut fields = line.split(|&b| b == b':');
        let name = fields.next().unwrap_or_default();
        let uid = fields.nth(1).and_then(id);
        let gid = fields.next().and_then(id);
        let home = fields.nth(1).unwrap_or_default();
        let user = User { name, uid, gid, home };
        if want(&user) {
            return Ok(Some(user));
        }
    }
    Ok(None)
}

fn each_group<'f>(file: &'f [u8], mut visit: impl FnMut(Group<'f>)) -> Result<(), UserError> {
    for (i, line) in file.split(|&b| b == b'\n').enumerate() {
        if line.len() >= MAX_GROUP_LINE {
            return Err(UserError::LongLine { file: GROUP, line: i + 1 });
        }
        let line = line.trim_ascii();
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        // name:password:gid:members (group(5))
        let mut fields = line.split(|&b| b == b':');
        let name = fields.next().unwrap_or_default();
        let gid = fields.nth(1).and_then(id);
        let members = fields.next().unwrap_or_default();
        visit(Group { name, gid, members });
    }
    Ok(())
}

/// An id in a file: any but the one that means "none" to the kernel.
fn id(field: &[u8]) -> Option<u32> {
    let id: u32 = std::str::from_utf8(field).ok()?.parse().ok()?;
    (id != u32::MAX).then_some(id)
}

/// The short way: a number, or root.
fn plain_id(text: &str) -> Option<u32> {
    match text {
        "root" => Some(0),
        _ if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok().filter(|&id| id != u32::MAX),
        _ => None,
    }
}

/// A number as argument: `None` for a name, an error for one out of range, negative ones included.
fn numeric(text: &str) -> Result<Option<u32>, UserError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<i64>() {
        Ok(n) if (0..=MAX_ID).contains(&n) => Ok(Some(n as u32)),
        _ => Err(UserError::Range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD_TEXT: &str = "root:x:0:0:root:/root:/bin/sh\n\n  app:x:1000:1001:App:/home/app:/bin/sh\n\
        1000:x:5:5::/five:\nbroken:x:no:1::/:\n# comment:x:9:9\nfar:x:4294967295:1:::\n";
    const GROUP_TEXT: &str =
        "root:x:0:\n#c:x:1:app\nwheel:x:10:root,app\nstaff:x:50:app\nagain:x:10:app\nodd:x:z:app\n";

    fn image(passwd: &str, group: &str) -> (tempfile::TempDir, Root) {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir(tmp.path().join("etc")).unwrap();
        std::fs::write(tmp.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(tmp.path().join("etc/group"), group).unwrap();
        let root = Root::open(tmp.path()).unwrap();
        (tmp, root)
    }

    #[test]
    fn the_own_group_is_one_of_all() {
        assert_eq!(user(1, 5, &[10], None).groups(), [5, 10]);
        assert_eq!(user(1, 10, &[7, 10], None).groups(), [7, 10]);
    }

    fn user(uid: u32, gid: u32, additional: &[u32], home: Option<&str>) -> ExecUser {
        ExecUser { uid, gid, additional_gids: additional.to_vec(), home: home.map(Into::into) }
    }

    #[test]
    fn all_forms_of_a_user() {
        let (_tmp, root) = image(PASSWD_TEXT, GROUP_TEXT);
        for (spec, want) in [
            ("", user(0, 0, &[10], Some("/root"))),
            ("root", user(0, 0, &[10], Some("/root"))),
            ("app", user(1000, 1001, &[10, 50], Some("/home/app"))),
            // A number is an id even where it is somebody's name.
            ("1000", user(1000, 1001, &[10, 50], Some("/home/app"))),
            ("app:staff", user(1000, 50, &[], Some("/home/app"))),
            ("app:7", user(1000, 7, &[], Some("/home/app"))),
            ("77", user(77, 0, &[], None)),
            ("77:88", user(77, 88, &[], None)),
            ("root:88", user(0, 88, &[], None)),
            ("77:staff", user(77, 50, &[], None)),
            (":staff", user(0, 50, &[], Some("/root"))),
            ("app:staff:x", user(1000, 50, &[], Some("/home/app"))),
        ] {
            assert_eq!(exec_user(&root, spec).unwrap(), want, "{spec}");
        }
        for (spec, text) in [
            ("nobody", "unable to find user nobody: no matching entries in passwd file"),
            ("app:none", "unable to find group none: no matching entries in group file"),
            ("-1", "uids and gids must be in range 0-2147483647"),
            ("2147483648", "uids and gids must be in range 0-2147483647"),
            ("app:99999999999999999999", "uids and gids must be in range 0-2147483647"),
            ("broken", "/etc/passwd entry of broken has no valid id"),
            ("far", "/etc/passwd entry of far has no valid id"),
            ("app:odd", "/etc/group entry of odd has no valid id"),
        ] {
            assert_eq!(exec_user(&root, spec).unwrap_err().to_string(), text, "{spec}");
        }
    }

    #[test]
    fn owners_by_name() {
        let (_tmp, root) = image(PASSWD_TEXT, GROUP_TEXT);
        assert_eq!(find_user(&root, "app").unwrap(), Some((1000, 1001)));
        assert_eq!(find_user(&root, "none").unwrap(), None);
        assert_eq!(find_group(&root, "wheel").unwrap(), Some(10));
        assert_eq!(find_group(&root, "none").unwrap(), None);
    }

    #[test]
    fn without_files_only_numbers_work() {
        let tmp = tempfile::tempdir().unwrap();
        let root = Root::open(tmp.path()).unwrap();
        assert_eq!(exec_user(&root, "").unwrap(), ExecUser::default());
        assert_eq!(exec_user(&root, "5").unwrap(), user(5, 0, &[], None));
        assert!(matches!(exec_user(&root, "app"), Err(UserError::NoUser(_))));
        std::fs::write(tmp.path().join("etc"), "").unwrap();
        assert_eq!(find_user(&root, "app").unwrap(), None);
    }

    #[test]
    fn hostile_files_cost_nothing() {
        let (tmp, root) = image("", "");
        let passwd = tmp.path().join("etc/passwd");
        // A sparse file of 1 GB.
        std::fs::File::create(&passwd).unwrap().set_len(1 << 30).unwrap();
        let e = exec_user(&root, "app").unwrap_err().to_string();
        assert_eq!(e, "/etc/passwd exceeds 10485760 bytes");
        std::fs::write(&passwd, "x".repeat(70_000)).unwrap();
        assert!(matches!(exec_user(&root, "app"), Err(UserError::LongLine { line: 1, .. })));
        // Millions of fields.
        std::fs::write(&passwd, format!("a{}\napp:x:3:4\n", ":".repeat(60_000))).unwrap();
        assert_eq!(find_user(&root, "app").unwrap(), Some((3, 4)));
        std::fs::remove_file(&passwd).unwrap();
        // A FIFO would block, a link outside leads to the host's users.
        rustix::fs::mkfifoat(rustix::fs::CWD, &passwd, rustix::fs::Mode::RUSR).unwrap();
        assert!(matches!(find_user(&root, "root"), Err(UserError::File(Error::NotRegular { .. }))));
        std::fs::remove_file(&passwd).unwrap();
        std::os::unix::fs::symlink("../../../../../../etc/passwd", &passwd).unwrap();
        assert!(matches!(find_user(&root, "root"), Err(UserError::File(_))));
    }
}
