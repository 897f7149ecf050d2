//! The last steps inside the new root: directory, environment, program.

use super::At;
use super::rooted::{self, Missing, Owner};
use crate::error::{ExecFailure, ExecFailureKind, Step};
use crate::wire::{Failure, Program};
use rustix::fs::{Access, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;

/// How much of `/etc/passwd` is looked at for a home directory.
const PASSWD_LIMIT: u64 = 1 << 20;

/// Enters the program's directory, after making it when missing.
///
/// The walk reads links itself, so that a `/proc/self/fd/N` leads nowhere but to a path in the root.
pub(super) fn enter_working_directory(program: &Program) -> Result<(), Failure> {
    let step = Step::WorkingDirectory;
    let what = program.cwd.display();
    let root = rooted::open_slash().on(step, "/")?;
    let owner = Owner { uid: program.uid, gid: program.gid };
    let directory =
        rooted::open_or_make(root.as_fd(), &program.cwd, Missing::Directory, Some(owner)).on(step, &what)?;
    rustix::process::fchdir(&directory).on(step, &what)?;
    // The kernel marks a directory outside the root.
    let here = rustix::process::getcwd(Vec::new()).on(step, &what)?;
    if here.as_bytes().starts_with(b"/") { Ok(()) } else { Err("it is outside the root").on(step, &what) }
}

/// The environment with `HOME` filled in when it is not there (or empty), as runc does.
pub(super) fn environment(program: &Program) -> Vec<String> {
    let mut env = program.env.clone();
    if value(&env, "HOME").is_none_or(str::is_empty) {
        env.retain(|entry| !entry.starts_with("HOME="));
        env.push(format!("HOME={}", home(program.uid).unwrap_or_else(|| "/".into())));
    }
    env
}

fn value<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    // Of two the first counts, as for getenv(3).
    env.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

/// The home directory of `uid` in the root's user file; nothing there, or nothing usable, is no error.
fn home(uid: u32) -> Option<String> {
    let root = rooted::open_slash().ok()?;
    // O_NONBLOCK: a FIFO in its place must not hold the step.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(&root, "etc/passwd", flags, Mode::empty(), resolve).ok()?;
    if rooted::file_type(file.as_fd()).ok()? != FileType::RegularFile {
        return None;
    }
    find_home(BufReader::new(File::from(file).take(PASSWD_LIMIT)), uid)
}

fn find_home(passwd: impl BufRead, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    // name:password:uid:gid:comment:home:shell, passwd(5)
    passwd.split(b'\n').map_while(Result::ok).find_map(|line| {
        let line = String::from_utf8(line).ok()?;
        let mut fields = line.split(':');
        (fields.nth(2)? == uid).then(|| fields.nth(2).map(str::to_owned)).flatten()
    })
}

/// Replaces this process by the program. Comes back only with the reason why not.
pub(super) fn exec(args: &[String], env: &[String]) -> Failure {
    let program = args.first().map(String::as_str).unwrap_or_default();
    let failed = |kind| Failure::Exec(ExecFailure { program: program.to_owned(), kind });
    let path = match find(program, value(env, "PATH").unwrap_or_default()) {
        Ok(path) => path,
        Err(kind) => return failed(kind),
    };
    let strings = |list: &[String]| -> Result<Vec<CString>, std::ffi::NulError> {
        list.iter().map(|s| CString::new(s.as_str())).collect()
    };
    match (CString::new(path), strings(args), strings(env)) {
        (Ok(path), Ok(args), Ok(env)) => {
            let error = kiln_sys::process::execve(&path, &args, &env);
            failed(ExecFailureKind::Refused(error.errno.raw_os_error()))
        }
        _ => failed(ExecFailureKind::Refused(Errno::INVAL.raw_os_error())),
    }
}

/// Looks the program up as a shell does: a name with a slash is a path, any other is sought in `PATH`.
fn find(program: &str, path: &str) -> Result<String, ExecFailureKind> {
    if program.contains('/') {
        return match executable(program) {
            Ok(()) => Ok(program.to_owned()),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(ExecFailureKind::NoSuchFile),
            Err(_) => Err(ExecFailureKind::PermissionDenied),
        };
    }
    if program.is_empty() || path.is_empty() {
        return Err(ExecFailureKind::NotInPath);
    }
    path.split(':')
        .map(|dir| if dir.is_empty() { format!("./{program}") } else { format!("{dir}/{program}") })
        .find(|candidate| executable(candidate).is_ok())
        .ok_or(ExecFailureKind::NotInPath)
}

/// A regular file this user may execute, reached without the links of procfs that lead out of the root.
fn executable(path: &str) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?;
    if rooted::file_type(file.as_fd())? != FileType::RegularFile {
        return Err(Errno::ACCESS);
    }
    // Real and effective ids are the same by now.
    rustix::fs::access(path, Access::EXEC_OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_the_sixth_field_of_the_users_line() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/var/www:\nx:y:33:1::/second:\n";
        assert_eq!(find_home(&passwd[..], 33).as_deref(), Some("/var/www"));
        assert_eq!(find_home(&passwd[..], 0).as_deref(), Some("/root"));
        assert_eq!(find_home(&passwd[..], 3), None);
    }

    #[test]
    fn lookup_follows_path_and_slashes() {
        assert_eq!(find("sh", "/nonexistent:/bin"), Ok("/bin/sh".into()));
        assert_eq!(find("sh", ""), Err(ExecFailureKind::NotInPath));
        assert_eq!(find("", "/bin"), Err(ExecFailureKind::NotInPath));
        assert_eq!(find("no-such-program", "/bin:"), Err(ExecFailureKind::NotInPath));
        assert_eq!(find("/no/such", "/bin"), Err(ExecFailureKind::NoSuchFile));
        assert_eq!(find("/etc", "/bin"), Err(ExecFailureKind::PermissionDenied));
        assert_eq!(find("/proc/self/exe", "/bin"), Err(ExecFailureKind::PermissionDenied));
    }
}
