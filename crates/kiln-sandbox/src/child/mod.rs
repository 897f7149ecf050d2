//! The new process, from fork to execve: it builds its own sandbox, or enters a running one, step by step.
//!
//! It starts as root, with an almost empty mount tree. Making a sandbox, it is in fresh namespaces and holds handles
//! of everything it mounts. The steps are in the order of [`Step`]; privileges go last.

mod dev;
mod exec;
mod hooks;
mod identity;
mod join;
mod mounts;
pub(crate) mod rooted;

pub(crate) use identity::{DOCKER_CAPABILITY_NAMES, is_limit};
pub(crate) use mounts::{ROOT_POINT, SCRATCH_POINT};

use crate::error::Step;
use crate::spec::Security;
use crate::wire::{self, Bundled, Failure, FdIndex, Net, Place, Program, Reply, Root, Sandbox};
use kiln_sys::caps::Set;
use kiln_sys::mount::{self, Attrs};
use kiln_sys::socket;
use rustix::fs::Mode;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
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
struct Handles {
    all: Vec<Option<OwnedFd>>,
    /// Of a run with hooks: what execve(2) closes.
    executed: Option<OwnedFd>,
}

impl Handles {
    fn take(&mut self, index: FdIndex) -> Result<OwnedFd, Failure> {
        let found = self.all.get_mut(index).and_then(Option::take);
        found.ok_or_else(|| Failure::new(Step::Request, format_args!("descriptor {index} is missing")))
    }
}

/// Runs in the child; comes back only when a step failed, after saying so on the run's socket.
///
/// `fds` is the whole packet.
pub(crate) fn run(fds: Vec<OwnedFd>) -> i32 {
    let mut handles = Handles { all: fds.into_iter().map(Some).collect(), executed: None };
    let Ok(reply) = handles.take(wire::REPLY_SOCKET) else { return 1 };
    let failure = match set_up_and_exec(&mut handles, reply.as_fd()) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    // The readers may be gone; then nobody wants to know.
    if let Some(pipe) = &handles.executed {
        let _ = rustix::io::write(pipe, b"!");
    }
    let _ = socket::send(reply.as_fd(), &failure.packet(Reply::Failed), &[], true);
    1
}

enum Never {}

fn set_up_and_exec(handles: &mut Handles, reply: BorrowedFd<'_>) -> Result<Never, Failure> {
    let file = handles.take(wire::REQUEST_FILE)?;
    let (request, blobs) = wire::read_request(file).at(Step::Request)?;
    let program = &request.program;
    rustix::process::umask(Mode::empty());
    rustix::process::setsid().at(Step::Session)?;
    own_keyring()?;
    if program.tty.is_none() {
        let [stdin, stdout, stderr] = program.stdio;
        let streams = [handles.take(stdin)?, handles.take(stdout)?, handles.take(stderr)?];
        identity::use_streams(&streams, program).at(Step::Stdio)?;
    }
    join_v1_cgroups(handles, program)?;
    let bundled = match &request.place {
        Place::New(sandbox) => {
            make(handles, program, sandbox, &blobs, reply)?;
            sandbox.bundled()
        }
        Place::Join(first) => {
            join::enter(&handles.take(*first)?, program, reply)?;
            None
        }
    };
    become_and_exec(handles, program, bundled)
}

impl Sandbox {
    /// There when it has hooks.
    fn bundled(&self) -> Option<&Bundled> {
        if let Root::Bundled(bundled) = &self.root { Some(bundled) } else { None }
    }
}

/// Makes the sandbox around this process.
fn make(
    handles: &mut Handles,
    program: &Program,
    sandbox: &Sandbox,
    blobs: &[u8],
    reply: BorrowedFd<'_>,
) -> Result<(), Failure> {
    if let Some(bundled) = sandbox.bundled() {
        handles.executed = Some(handles.take(bundled.executed)?);
    }
    // Only after joining cgroups: the namespace's root is the cgroup the process is in when it is made.
    kiln_sys::mountns::unshare(rustix::thread::UnshareFlags::NEWCGROUP).at(Step::Cgroup)?;
    match sandbox.network {
        Net::Host => {}
        Net::New => kiln_sys::net::loopback_up().at(Step::Loopback)?,
        Net::Given(index) => enter_network(&handles.take(index)?)?,
    }
    let built = mounts::build(handles, program, sandbox, blobs, reply)?;
    rustix::system::sethostname(sandbox.hostname.as_bytes()).at(Step::Hostname)?;
    if let Some(terminal) = built.terminal {
        identity::use_terminal(&terminal, program).at(Step::Terminal)?;
    }
    exec::enter_working_directory(program)?;
    if sandbox.read_only_root {
        mount::set_attrs(built.root.as_fd(), Attrs::default().read_only(), false).at(Step::ReadOnlyRoot)?;
    }
    let ready = serde_json::to_vec(&Reply::Ready).at(Step::Join)?;
    socket::send(reply, &ready, &[], true).at(Step::Join)
}

fn enter_network(namespace: &OwnedFd) -> Result<(), Failure> {
    let kind = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(namespace.as_fd(), kind).at(Step::Network)
}

/// Gives up what the program must not have, and becomes it.
fn become_and_exec(
    handles: &mut Handles,
    program: &Program,
    bundled: Option<&Bundled>,
) -> Result<Never, Failure> {
    let env = exec::environment(program);
    identity::set_limits(program)?;
    // While CAP_SYS_ADMIN is there: later the kernel would ask for no_new_privs, which steps do not get.
    if let Some(index) = program.seccomp {
        let filter = identity::read_program(handles.take(index)?).at(Step::Seccomp)?;
        kiln_sys::seccomp::load(&filter).at(Step::Seccomp)?;
    }
    match program.security {
        Security::Sandbox => identity::become_user(program, identity::DOCKER_CAPABILITIES, false)?,
        Security::Insecure => identity::become_user(program, Set::all(), true)?,
    }
    kiln_sys::process::close_on_exec_from(3).at(Step::Descriptors)?;
    kiln_sys::process::reset_signals().at(Step::Signals)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    if let Some(bundled) = bundled {
        hooks::start_container(bundled)?;
    }
    Err(exec::exec(&program.args, &env))
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
fn join_v1_cgroups(handles: &mut Handles, program: &Program) -> Result<(), Failure> {
    for index in &program.v1_cgroups {
        let procs = handles.take(*index)?;
        rustix::io::write(&procs, b"0").at(Step::Cgroup)?;
    }
    Ok(())
}
