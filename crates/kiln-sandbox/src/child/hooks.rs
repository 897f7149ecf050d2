//! Hooks that the new process runs: in its namespaces before its root is the root, and just before the program.

use super::{At, Handles};
use crate::error::Step;
use crate::hooks::{Call, Container, Hook, HookError, Moment, run_all};
use crate::wire::{Bundled, Failure, GO_ON, PACKET, Reply};
use kiln_sys::mount;
use kiln_sys::socket;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Goes to a copy of the daemon's mount tree, in which nothing is seen from outside, and opens the bundle there.
pub(super) fn enter_bundle(handles: &mut Handles, bundled: &Bundled) -> Result<OwnedFd, Failure> {
    let step = Step::Root;
    let namespace = handles.take(bundled.namespace)?;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount)).at(step)?;
    kiln_sys::mountns::unshare(UnshareFlags::NEWNS).at(step)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, "/", flags, Mode::empty()).on(step, "/")?;
    mount::set_private(top.as_fd(), true).on(step, "/")?;
    let bundle = &bundled.container.bundle;
    rustix::fs::openat(CWD, bundle, flags, Mode::empty()).on(step, bundle.display())
}

/// Everything is mounted: lets the daemon run its hooks, then runs those of the container's namespaces.
pub(super) fn created(bundled: &Bundled, reply: BorrowedFd<'_>) -> Result<(), Failure> {
    let step = Step::Hooks;
    let packet = serde_json::to_vec(&Reply::Created).at(step)?;
    socket::send(reply, &packet, &[], true).at(step)?;
    if socket::receive(reply, PACKET, true).at(step)?.bytes != GO_ON {
        return Err(Failure::new(step, "the daemon is gone"));
    }
    let rootfs = bundled.container.rootfs();
    run(Moment::CreateContainer, &bundled.create_container, &bundled.container, Some(&rootfs))
}

/// Runs the container's own, as the program that is about to begin.
pub(super) fn start_container(bundled: &Bundled) -> Result<(), Failure> {
    run(Moment::StartContainer, &bundled.start_container, &bundled.container, None)
}

fn run(
    moment: Moment,
    hooks: &[Hook],
    container: &Container,
    directory: Option<&Path>,
) -> Result<(), Failure> {
    let call = Call { moment, container, pid: Some(std::process::id()), directory };
    run_all(&call, hooks, None).map_err(|e| match e {
        HookError::Failed(why) => Failure::new(Step::Hooks, why),
        HookError::Stopped => Failure::new(Step::Hooks, "stopped"),
    })
}
