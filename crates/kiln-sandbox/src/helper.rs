//! The helper process: the same binary again, with one thread, that makes one child per run and reaps it.
//!
//! It is process 1 of a pid namespace, so that the kernel kills every child with it, and it ends when its
//! socket does, so that it cannot outlive the daemon. Its mount namespace holds one empty filesystem: there
//! is nothing of the host that a child could reach.

use crate::child;
use crate::error::Step;
use crate::wire::{self, Failure, Order, PACKET, Reply, Spaces};
use kiln_sys::mount::{self, Attrs};
use kiln_sys::process::{Ended, Forked, Namespaces, SingleThreaded};
use kiln_sys::socket;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, Signal};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use std::ffi::OsString;
use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// `argv[0]` that makes a process the helper.
pub(crate) const HELPER_NAME: &str = "kiln-sandbox-helper";

/// Call it first in `main`, before any thread exists: when this process was started as the sandbox helper, it
/// does the helper's work to the end and returns the exit code; otherwise it returns `None` at once.
pub fn helper_main(args: impl IntoIterator<Item = OsString>) -> Option<i32> {
    if args.into_iter().next()? != HELPER_NAME {
        return None;
    }
    // What it has to say goes to the daemon's stderr: it has no socket to say it on yet.
    Some(start().unwrap_or_else(|e| {
        let _ = rustix::io::write(rustix::stdio::stderr(), format!("{HELPER_NAME}: {e}\n").as_bytes());
        1
    }))
}

fn start() -> Result<i32, String> {
    let single = SingleThreaded::check().map_err(text)?;
    // Keys of a terminal are for the daemon; the session of its own keeps them away.
    rustix::process::setsid().map_err(text)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(text)?;
    // Tried again in every child; this one is for those that then get none.
    let _ = kiln_sys::process::new_session_keyring();
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).map_err(text)?;
    let namespaces = Namespaces { mount: true, pid: true, ..Namespaces::default() };
    match kiln_sys::process::fork_into(&single, namespaces, None).map_err(text)? {
        Forked::Child => {
            kiln_sys::process::die_with_parent(Some(Signal::KILL)).map_err(text)?;
            empty_root().map_err(text)?;
            serve(&single, &control)
        }
        Forked::Parent { pidfd, .. } => {
            drop(control);
            await_end(pidfd.as_fd()).map_err(text)
        }
    }
}

fn text(e: impl Display) -> String {
    e.to_string()
}

/// What the first helper process does: it is only there to be waited for.
fn await_end(pidfd: BorrowedFd<'_>) -> rustix::io::Result<i32> {
    // Its copy of the control socket, which would keep the daemon from noticing the end.
    let null = rustix::fs::openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    let mut poll = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, None))?;
    Ok(0)
}

/// Leaves the host's mount tree for a tiny read-only one.
fn empty_root() -> kiln_sys::Result<()> {
    let wrong = |call, what: &'static str| move |e| kiln_sys::Error::new(call, what, e);
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )
    .map_err(wrong(kiln_sys::Call::Mount, "/ as rprivate"))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let host =
        rustix::fs::openat(CWD, "/", flags, Mode::empty()).map_err(wrong(kiln_sys::Call::Open, "/"))?;
    let fs = mount::new_filesystem("tmpfs", &[("mode", "0755"), ("nr_inodes", "8")], Attrs::SEALED)?;
    mount::attach(fs.as_fd(), host.as_fd())?;
    for name in [child::ROOT_POINT, child::SCRATCH_POINT] {
        rustix::fs::mkdirat(&fs, name, Mode::RWXU).map_err(wrong(kiln_sys::Call::Mkdir, name))?;
    }
    mount::set_attrs(fs.as_fd(), Attrs::SEALED.read_only(), false)?;
    mount::change_root(fs.as_fd())
}

/// A child that has not been reaped.
struct Run {
    pid: Pid,
    pidfd: OwnedFd,
    reply: OwnedFd,
    killed: bool,
}

/// The loop. Ends when the daemon's end of the socket is closed.
fn serve(single: &SingleThreaded, control: &OwnedFd) -> Result<i32, String> {
    let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).map_err(text)?;
    let mut runs: Vec<Run> = Vec::new();
    loop {
        let mut poll = vec![PollFd::new(control, PollFlags::IN)];
        for run in &runs {
            poll.push(PollFd::new(&run.pidfd, PollFlags::IN));
            // Only its end is of interest, which is always reported, and only once.
            let end = if run.killed { &run.pidfd } else { &run.reply };
            poll.push(PollFd::new(end, PollFlags::empty()));
        }
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, None)).map_err(text)?;
        let events: Vec<PollFlags> = poll.iter().map(PollFd::revents).collect();
        drop(poll);
        let any_ended = kill_abandoned(&mut runs, &events[1..]);
        if any_ended {
            reap(&mut runs)?;
        }
        if !events[0].is_empty() {
            let message = socket::receive(control.as_fd(), PACKET, true).map_err(text)?;
            if message.bytes.is_empty() && message.fds.is_empty() {
                return Ok(0);
            }
            match launch(single, own.as_fd(), &message.bytes, message.fds, &mut runs)? {
                Launched::Parent => {}
                Launched::Child(fds) => {
                    drop(runs);
                    return Ok(child::run(fds));
                }
            }
        }
    }
}

/// Kills the children whose run nobody waits for any more. True when some child has ended.
fn kill_abandoned(runs: &mut [Run], events: &[PollFlags]) -> bool {
    let mut ended = false;
    for (run, events) in runs.iter_mut().zip(events.chunks_exact(2)) {
        if !events[0].is_empty() {
            ended = true;
        } else if !events[1].is_empty() {
            run.killed = true;
            // It may have ended in this moment; its end is then seen in the next round.
            let _ = kiln_sys::process::signal(run.pidfd.as_fd(), Signal::KILL.as_raw());
        }
    }
    ended
}

enum Launched {
    Parent,
    Child(Vec<OwnedFd>),
}

/// Forks for one order. An error is the helper's own end; what is wrong with the order is answered.
fn launch(
    single: &SingleThreaded,
    own: BorrowedFd<'_>,
    bytes: &[u8],
    mut fds: Vec<OwnedFd>,
    runs: &mut Vec<Run>,
) -> Result<Launched, String> {
    let forked = match serde_json::from_slice::<Order>(bytes) {
        Ok(order) => fork(single, own, &order, &fds)?,
        Err(e) => Err(Failure::new(Step::Fork, e)),
    };
    if let Ok(Forked::Child) = forked {
        return Ok(Launched::Child(fds));
    }
    if fds.len() <= wire::REQUEST_FILE {
        return Ok(Launched::Parent);
    }
    let reply = fds.swap_remove(wire::REPLY_SOCKET);
    match forked {
        Ok(Forked::Parent { pid, pidfd }) => {
            answer(&reply, &Reply::Spawned, &[pidfd.as_fd()]);
            runs.push(Run { pid, pidfd, reply, killed: false });
        }
        Ok(Forked::Child) => {}
        Err(failure) => {
            let _ = socket::send(reply.as_fd(), &failure.packet(Reply::Refused), &[], false);
        }
    }
    Ok(Launched::Parent)
}

/// A child in new namespaces, or in the pid namespace of a running sandbox; it takes the others itself.
fn fork(
    single: &SingleThreaded,
    own: BorrowedFd<'_>,
    order: &Order,
    fds: &[OwnedFd],
) -> Result<Result<Forked, Failure>, String> {
    let cgroup = order.cgroup.and_then(|i| fds.get(i)).map(AsFd::as_fd);
    let spawn = |spaces| {
        kiln_sys::process::fork_into(single, spaces, cgroup).map_err(|e| match (order.spaces, e.errno) {
            // The kernel's answer for a pid namespace whose first process is gone, pid_namespaces(7).
            (Spaces::Of(_), kiln_sys::Errno::NOMEM) => Failure::Ended,
            _ => Failure::new(Step::Fork, e),
        })
    };
    let first = match order.spaces {
        Spaces::New { network } => {
            return Ok(spawn(Namespaces { mount: true, pid: true, ipc: true, uts: true, network }));
        }
        Spaces::Of(index) => fds.get(index),
    };
    let Some(first) = first else { return Ok(Err(Failure::new(Step::Join, "no process to join"))) };
    // The descriptor never names another process.
    if let Err(e) = move_into_thread_name_spaces(first.as_fd(), ThreadNameSpaceType::PROCESS_ID) {
        return Ok(Err(Failure::join(e)));
    }
    let forked = spawn(Namespaces::default());
    if let Ok(Forked::Child) = forked {
        return Ok(forked);
    }
    // Later children go where this process is; without that nothing can run any more.
    move_into_thread_name_spaces(own, ThreadNameSpaceType::PROCESS_ID).map_err(text)?;
    Ok(forked)
}

fn reap(runs: &mut Vec<Run>) -> Result<(), String> {
    while let Some((pid, ended, usage)) = kiln_sys::process::reap_any().map_err(text)? {
        let Some(index) = runs.iter().position(|r| r.pid == pid) else { continue };
        let run = runs.swap_remove(index);
        let (code, signal) = match ended {
            Ended::Exited(code) => (Some(code), 0),
            Ended::Signalled(signal) => (None, signal),
        };
        answer(&run.reply, &Reply::Exited { code, signal, usage: usage.into() }, &[]);
    }
    Ok(())
}

/// The reader may be gone, which is seen as the end of its socket; so nothing is done about it here.
fn answer(socket: &OwnedFd, reply: &Reply, fds: &[BorrowedFd<'_>]) {
    if let Ok(packet) = serde_json::to_vec(reply) {
        let _ = socket::send(socket.as_fd(), &packet, fds, false);
    }
}
