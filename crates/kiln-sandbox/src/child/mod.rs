//! The new process, from fork to execve: it builds its own sandbox, step by step.
//!
//! It starts as root in fresh namespaces, with an almost empty mount tree, and holds handles of everything it
//! mounts. The steps are in the order of [`Step`]; privileges go last.

mod dev;
mod exec;
mod identity;
mod mounts;
pub(crate) mod rooted;

pub(crate) use identity::{DOCKER_CAPABILITY_NAMES, is_limit};
pub(crate) use mounts::{ROOT_POINT, SCRATCH_POINT};

use crate::error::Step;
use crate::spec::Security;
use crate::wire::{self, Failure, FdIndex, Reply, Request};
use kiln_sys::caps::Set;
use kiln_sys::mount::{self, Attrs};
use kiln_sys::socket;
use rustix::fs::Mode;
use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Adds the step to an error.
trait At<T> {
    fn at(self, step: Step) -> Result<T, Failure>;
    /// The same, naming the object first.
    fn on(self, step: Step, what: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> At<T> for Result<T, E> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.map_err(|e| Failure::new(step, e))
    }

    fn on(self, step: Step, what: impl Display) -> Result<T, Failure> {
        self.map_err(|e| Failure::new(step, format_args!("{what}: {e}")))
    }
}

/// The handles a child got from the daemon, each used once.
struct Handles(Vec<Option<OwnedFd>>);

impl Handles {
    fn take(&mut self, index: FdIndex) -> Result<OwnedFd, Failure> {
        let found = self.0.get_mut(index).and_then(Option::take);
        found.ok_or_else(|| Failure::new(Step::Request, format_args!("descriptor {index} is missing")))
    }
}

/// Runs in the child; comes back only when a step failed, after saying so on the run's socket.
///
/// `fds` is the whole packet.
pub(crate) fn run(fds: Vec<OwnedFd>) -> i32 {
    let mut handles = Handles(fds.into_iter().map(Some).collect());
    let Ok(reply) = handles.take(wire::REPLY_SOCKET) else { return 1 };
    let failure = match set_up_and_exec(&mut handles, reply.as_fd()) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    // The reader may be gone; then nobody wants to know.
    let _ = socket::send(reply.as_fd(), &failure.packet(Reply::Failed), &[], true);
    1
}

enum Never {}

fn set_up_and_exec(handles: &mut Handles, reply: BorrowedFd<'_>) -> Result<Never, Failure> {
    let file = handles.take(wire::REQUEST_FILE)?;
    let (request, blobs) = wire::read_request(file).at(Step::Request)?;
    rustix::process::umask(Mode::empty());
    rustix::process::setsid().at(Step::Session)?;
    own_keyring()?;
    if request.tty.is_none() {
        let [stdin, stdout, stderr] = request.stdio;
        let streams = [handles.take(stdin)?, handles.take(stdout)?, handles.take(stderr)?];
        identity::use_streams(&streams, &request).at(Step::Stdio)?;
    }
    join_cgroups(handles, &request)?;
    if request.own_network {
        kiln_sys::net::loopback_up().at(Step::Loopback)?;
    }
    let built = mounts::build(handles, &request, &blobs, reply)?;
    rustix::system::sethostname(request.hostname.as_bytes()).at(Step::Hostname)?;
    if let Some(terminal) = built.terminal {
        identity::use_terminal(&terminal, &request).at(Step::Terminal)?;
    }
    exec::enter_working_directory(&request)?;
    if request.read_only_root {
        mount::set_attrs(built.root.as_fd(), Attrs::default().read_only(), false).at(Step::ReadOnlyRoot)?;
    }
    let env = exec::environment(&request);
    identity::set_limits(&request)?;
    let program = match request.seccomp {
        Some(index) => Some(identity::read_program(handles.take(index)?).at(Step::Seccomp)?),
        None => None,
    };
    // While CAP_SYS_ADMIN is there: later the kernel would ask for no_new_privs, which steps do not get.
    if let Some(program) = program {
        kiln_sys::seccomp::load(&program).at(Step::Seccomp)?;
    }
    match request.security {
        Security::Sandbox => identity::become_user(&request, identity::DOCKER_CAPABILITIES, false)?,
        Security::Insecure => identity::become_user(&request, Set::all(), true)?,
    }
    kiln_sys::process::close_on_exec_from(3).at(Step::Descriptors)?;
    kiln_sys::process::reset_signals().at(Step::Signals)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    Err(exec::exec(&request.args, &env))
}

/// The daemon's keys are not for steps. Where there are no keyrings, or no more, nothing can be reached either:
/// a sandboxed step may not call keyctl, and the helper's own keyring holds nothing.
fn own_keyring() -> Result<(), Failure> {
    use kiln_sys::Errno;
    match kiln_sys::process::new_session_keyring() {
        Err(e) if ![Errno::NOSYS, Errno::PERM, Errno::DQUOT].contains(&e.errno) => Err(e).at(Step::Session),
        _ => Ok(()),
    }
}

/// v2 was joined by being born there; v1 is joined by writing "this process" to the files the daemon opened.
fn join_cgroups(handles: &mut Handles, request: &Request) -> Result<(), Failure> {
    for index in &request.v1_cgroups {
        let procs = handles.take(*index)?;
        rustix::io::write(&procs, b"0").at(Step::Cgroup)?;
    }
    // Only now: the namespace's root is the cgroup the process is in when it is made.
    kiln_sys::mountns::unshare(rustix::thread::UnshareFlags::NEWCGROUP).at(Step::Cgroup)
}
