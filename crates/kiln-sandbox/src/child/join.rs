//! Entering a sandbox that runs.
//!
//! What is in it is not trusted any more: its processes may have changed every file meanwhile. So nothing of it is
//! used but what is reached by handle and checked, and this process cannot be looked into: it is not dumpable until
//! it has become the program.

use super::{At, dev, exec, identity, rooted};
use crate::error::Step;
use crate::spec::TerminalSize;
use crate::wire::{Failure, Program};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The filesystem magic of devpts, statfs(2).
const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;

/// Takes the namespaces of the process behind `first`, then the terminal and the directory of `program` in them.
/// The pid namespace was given by the fork.
pub(super) fn enter(first: &OwnedFd, program: &Program, reply: BorrowedFd<'_>) -> Result<(), Failure> {
    let all = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    // All or none, and with them the root and the directory of the mount namespace.
    move_into_thread_name_spaces(first.as_fd(), all).map_err(Failure::join)?;
    if let Some(size) = program.tty {
        let terminal = terminal(size, reply)?;
        identity::use_terminal(&terminal, program).at(Step::Terminal)?;
    }
    exec::enter_working_directory(program)
}

fn terminal(size: TerminalSize, reply: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let step = Step::Terminal;
    let root = rooted::open_slash().on(step, "/")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let pts = rustix::fs::openat2(&root, "dev/pts", flags, Mode::empty(), resolve).on(step, "/dev/pts")?;
    // Nothing else has a master side that could be handed to the daemon.
    if rustix::fs::fstatfs(&pts).on(step, "/dev/pts")?.f_type.cast_unsigned() != DEVPTS_SUPER_MAGIC {
        return Err("is not the container's own devpts").on(step, "/dev/pts");
    }
    dev::open_terminal(pts.as_fd(), size, reply)
}
