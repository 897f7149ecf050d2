//! Who the process is and what it may do: streams, limits, capabilities, ids.

use super::At;
use crate::error::Step;
use crate::wire::{Failure, Program};
use kiln_sys::caps::{self, Set};
use rustix::fs::{FileType, Gid, Uid};
use rustix::process::{Resource, Rlimit};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Docker's default set, which BuildKit uses too.
pub(super) const DOCKER_CAPABILITIES: Set = Set::empty()
    .union(Set::CHOWN)
    .union(Set::DAC_OVERRIDE)
    .union(Set::FSETID)
    .union(Set::FOWNER)
    .union(Set::MKNOD)
    .union(Set::NET_RAW)
    .union(Set::SETGID)
    .union(Set::SETUID)
    .union(Set::SETFCAP)
    .union(Set::SETPCAP)
    .union(Set::NET_BIND_SERVICE)
    .union(Set::SYS_CHROOT)
    .union(Set::KILL)
    .union(Set::AUDIT_WRITE);

/// The same by name.
pub(crate) const DOCKER_CAPABILITY_NAMES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Makes the three handles the standard streams.
pub(super) fn use_streams(streams: &[OwnedFd; 3], program: &Program) -> rustix::io::Result<()> {
    for stream in streams {
        own_if_pipe(stream.as_fd(), program)?;
    }
    rustix::stdio::dup2_stdin(&streams[0])?;
    rustix::stdio::dup2_stdout(&streams[1])?;
    rustix::stdio::dup2_stderr(&streams[2])
}

/// Gives the pipe to the step's user, so that it can open `/dev/stdout` again; runc does the same.
fn own_if_pipe(stream: BorrowedFd<'_>, program: &Program) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(stream)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo && stat.st_uid != program.uid {
        rustix::fs::fchown(stream, Some(Uid::from_raw(program.uid)), None)?;
    }
    Ok(())
}

/// Makes the terminal the standard streams and the controlling terminal of the session.
pub(super) fn use_terminal(slave: &OwnedFd, program: &Program) -> rustix::io::Result<()> {
    rustix::fs::fchown(slave, Some(Uid::from_raw(program.uid)), None)?;
    rustix::process::ioctl_tiocsctty(slave)?;
    rustix::stdio::dup2_stdin(slave)?;
    rustix::stdio::dup2_stdout(slave)?;
    rustix::stdio::dup2_stderr(slave)
}

/// Docker's names of the limits, in the kernel's numbering (asm-generic/resource.h).
const RESOURCES: &[(&str, Resource)] = &[
    ("cpu", Resource::Cpu),
    ("fsize", Resource::Fsize),
    ("data", Resource::Data),
    ("stack", Resource::Stack),
    ("core", Resource::Core),
    ("rss", Resource::Rss),
    ("nproc", Resource::Nproc),
    ("nofile", Resource::Nofile),
    ("memlock", Resource::Memlock),
    ("as", Resource::As),
    ("locks", Resource::Locks),
    ("sigpending", Resource::Sigpending),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
];

/// True for a limit's name in Docker's spelling.
pub(crate) fn is_limit(name: &str) -> bool {
    RESOURCES.iter().any(|(known, _)| *known == name)
}

pub(super) fn set_limits(program: &Program) -> Result<(), Failure> {
    for limit in &program.rlimits {
        let Some((_, resource)) = RESOURCES.iter().find(|(name, _)| *name == limit.name) else {
            return Err("unknown limit").on(Step::Limits, &limit.name);
        };
        let new = Rlimit { current: limit.soft, maximum: limit.hard };
        rustix::process::setrlimit(*resource, new).on(Step::Limits, &limit.name)?;
    }
    Ok(())
}

/// Reads the compiled profile; the file is shared by all runs, so by position.
pub(super) fn read_program(fd: OwnedFd) -> std::io::Result<Vec<u8>> {
    let file = File::from(fd);
    let len = file.metadata()?.len().min(1 << 20);
    let mut program = vec![0; usize::try_from(len).unwrap_or(0)];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut program, 0)?;
    Ok(program)
}

/// Drops everything outside `keep`, then becomes the user. `inherit` also keeps the capabilities for a
/// user that is not root, over execve(2).
pub(super) fn become_user(program: &Program, keep: Set, inherit: bool) -> Result<(), Failure> {
    let (caps_step, user_step) = (Step::Capabilities, Step::User);
    // A daemon with less cannot give it.
    let keep = keep & caps::get().at(caps_step)?.permitted;
    caps::limit_bounding(keep).at(caps_step)?;
    caps::clear_ambient().at(caps_step)?;
    caps::keep_over_setuid(true).at(caps_step)?;
    let groups: Vec<Gid> = program.additional_gids.iter().map(|g| Gid::from_raw(*g)).collect();
    rustix::thread::set_thread_groups(&groups).on(user_step, "groups")?;
    let (uid, gid) = (Uid::from_raw(program.uid), Gid::from_raw(program.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).on(user_step, format_args!("gid {}", program.gid))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).on(user_step, format_args!("uid {}", program.uid))?;
    caps::keep_over_setuid(false).at(caps_step)?;
    caps::set(keep, keep, if inherit { keep } else { Set::empty() }).at(caps_step)?;
    if inherit {
        caps::raise_ambient(keep).at(caps_step)?;
    }
    Ok(())
}
