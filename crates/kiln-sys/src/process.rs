//! Making, replacing and reaping processes.

use crate::error::{Call, Error, Result};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// From linux/sched.h; the libc crate's constant does not fit its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Proof that this process has one thread, so that a fork leaves no lock behind held by a missing thread.
///
/// Whoever holds it must not start threads.
#[derive(Debug)]
pub struct SingleThreaded {
    // Neither Send nor Sync: it belongs to the one thread.
    _not_send: PhantomData<*const ()>,
}

impl SingleThreaded {
    /// Counts the threads in `/proc/self/task`; EBUSY when there is more than one.
    pub fn check() -> Result<SingleThreaded> {
        let count = std::fs::read_dir("/proc/self/task")
            .map_err(|e| {
                let errno = Errno::from_io_error(&e).unwrap_or(Errno::IO);
                Error::new(Call::Open, "/proc/self/task", errno)
            })?
            .count();
        if count == 1 {
            Ok(SingleThreaded { _not_send: PhantomData })
        } else {
            Err(Error::new(Call::Clone3, format!("with {count} threads"), Errno::BUSY))
        }
    }
}

/// New namespaces for a child; see clone(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Mounts.
    pub mount: bool,
    /// Process ids; the child is process 1.
    pub pid: bool,
    /// System V and POSIX message queues, semaphores, shared memory.
    pub ipc: bool,
    /// Host name.
    pub uts: bool,
    /// Network.
    pub network: bool,
}

impl Namespaces {
    fn flags(self) -> u64 {
        let mut flags = 0;
        for (wanted, flag) in [
            (self.mount, libc::CLONE_NEWNS),
            (self.pid, libc::CLONE_NEWPID),
            (self.ipc, libc::CLONE_NEWIPC),
            (self.uts, libc::CLONE_NEWUTS),
            (self.network, libc::CLONE_NEWNET),
        ] {
            if wanted {
                flags |= flag as u64;
            }
        }
        flags
    }
}

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Forked {
    /// The new process.
    Child,
    /// The old one.
    Parent {
        /// The child's id in the caller's pid namespace.
        pid: Pid,
        /// A handle of the child.
        pidfd: OwnedFd,
    },
}

/// Forks with clone3(2) into new namespaces and, when given, into the v2 cgroup `cgroup`.
///
/// Needs `CAP_SYS_ADMIN` for the namespaces; ENOSPC when a namespace limit is reached, EAGAIN for the limit of
/// processes, EBUSY when the cgroup has controllers delegated to its children.
pub fn fork_into(
    _proof: &SingleThreaded,
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Forked> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain integers, for which all zeroes is the documented "nothing asked for".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces.flags() | libc::CLONE_PIDFD as u64;
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child gets a copy of the memory and goes on on its own copy of the stack,
    // like fork(2). The process has one thread (`_proof`), so no lock is held by a thread the child lacks.
    // `args` and `pidfd` outlive the call.
    let ret =
        unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&args), size_of::<libc::clone_args>()) };
    match ret {
        0 => Ok(Forked::Child),
        pid if pid > 0 => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let pid = pid.ok_or_else(|| Error::new(Call::Clone3, "pid", Errno::RANGE))?;
            // SAFETY: the call succeeded with CLONE_PIDFD, so the kernel stored a new descriptor that
            // nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Forked::Parent { pid, pidfd })
        }
        _ => Err(Error::last(Call::Clone3, "")),
    }
}

/// Replaces the program of this process. Comes back only with an error.
///
/// E2BIG when arguments and environment pass a quarter of the stack limit, or one string 128 KiB.
pub fn execve(program: &CStr, args: &[CString], env: &[CString]) -> Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: all strings are NUL-terminated and both arrays end with a null pointer; they live until the
    // call returns, which it does only on failure.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    Error::last(Call::Execve, program.to_string_lossy())
}

/// Marks every descriptor from `first` on to be closed by execve(2).
pub fn close_on_exec_from(first: u32) -> Result<()> {
    // SAFETY: no pointers; with CLOSE_RANGE_CLOEXEC the descriptors stay open, so owners stay valid.
    let ret =
        unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if ret == 0 { Ok(()) } else { Err(Error::last(Call::CloseRange, "")) }
}

/// Gives every signal its default action and blocks none, as a program expects at its start.
///
/// Ignored signals and the mask survive execve(2); Rust's runtime ignores SIGPIPE.
pub fn reset_signals() -> Result<()> {
    // The C library's own function leaves out 32 and 33, which it keeps for itself; a parent may have
    // ignored them all the same. Zero is SIG_DFL, no flags, no restorer, empty mask; the kernel's structure
    // has at most 32 bytes.
    let default = [0u64; 8];
    // SIGKILL and SIGSTOP cannot be changed (EINVAL).
    for signal in (1..=64).filter(|s| ![libc::SIGKILL, libc::SIGSTOP].contains(s)) {
        // SAFETY: the kernel reads its sigaction from `default`, which is larger; it installs no handler. The
        // old action is not asked for. The last argument is the size of the kernel's signal mask.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<libc::c_void>(),
                8usize,
            )
        };
        if ret != 0 {
            return Err(Error::last(Call::Sigaction, signal.to_string()));
        }
    }
    // SAFETY: an all-zero sigset_t is valid storage; sigemptyset initialises it before it is read, and the
    // old mask is not asked for.
    let ret = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut())
    };
    if ret == 0 { Ok(()) } else { Err(Error::last(Call::Sigprocmask, "")) }
}

/// How a child ended, as wait4(2) tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By exit(2) with this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
}

/// What a process and the children it waited for used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in user code.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Largest resident set of one process, in bytes.
    pub peak_rss: u64,
}

/// Reaps one ended child of any kind, without waiting. `None` when none has ended (or there is no child).
///
/// The first process of a pid namespace becomes reapable only after all others of it are gone.
pub fn reap_any() -> Result<Option<(Pid, Ended, Usage)>> {
    let mut status = 0;
    // SAFETY: rusage is plain integers; wait4 fills it before it is read.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals of the right type.
    let pid = unsafe { libc::wait4(-1, &mut status, libc::WNOHANG, &mut usage) };
    match pid {
        0 => Ok(None),
        -1 => match Error::last(Call::Wait, "") {
            e if e.errno == Errno::CHILD => Ok(None),
            e => Err(e),
        },
        pid => {
            let ended = if libc::WIFSIGNALED(status) {
                Ended::Signalled(libc::WTERMSIG(status))
            } else {
                Ended::Exited(libc::WEXITSTATUS(status))
            };
            Ok(Pid::from_raw(pid).map(|pid| (pid, ended, Usage::from(&usage))))
        }
    }
}

impl From<&libc::rusage> for Usage {
    fn from(raw: &libc::rusage) -> Usage {
        let time = |t: libc::timeval| {
            Duration::from_secs(u64::try_from(t.tv_sec).unwrap_or(0))
                + Duration::from_micros(u64::try_from(t.tv_usec).unwrap_or(0))
        };
        Usage {
            user: time(raw.ru_utime),
            system: time(raw.ru_stime),
            // In KiB, getrusage(2).
            peak_rss: u64::try_from(raw.ru_maxrss).unwrap_or(0) * 1024,
        }
    }
}

/// The largest resident set this process has had, in bytes.
pub fn peak_rss() -> Result<u64> {
    // SAFETY: rusage is plain integers; the kernel fills it before it is read.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live local of the right type.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) } != 0 {
        return Err(Error::last(Call::Getrusage, ""));
    }
    Ok(Usage::from(&usage).peak_rss)
}

/// Asks the kernel for `signal` when the thread that made this process ends; `None` takes it back.
///
/// Cleared by a change of user and by executing a set-user-id program (prctl(2)).
pub fn die_with_parent(signal: Option<Signal>) -> Result<()> {
    rustix::process::set_parent_process_death_signal(signal)
        .map_err(|e| Error::new(Call::Prctl, "PR_SET_PDEATHSIG", e))
}

/// Makes a child of `command` die (SIGKILL) with the thread that starts it, and gives it the umask 022. Start it from a
/// thread that lives as long as the process, such as a worker of the async runtime (prctl(2), PR_SET_PDEATHSIG).
pub fn tie_to_parent(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let set = || {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        die_with_parent(Some(Signal::KILL)).map_err(std::io::Error::from)
    };
    // SAFETY: between fork and exec only two system calls are made; nothing allocates or locks.
    unsafe { command.pre_exec(set) };
}

/// Gives the process an empty session keyring of its own, so that it cannot use the keys of its maker.
///
/// EDQUOT when the user has too many keys; ENOSYS or EPERM where keyrings are not to be had at all.
pub fn new_session_keyring() -> Result<()> {
    // SAFETY: a null name asks for an anonymous keyring; no other memory is passed.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
            0,
            0,
            0,
        )
    };
    if ret >= 0 { Ok(()) } else { Err(Error::last(Call::Keyctl, "KEYCTL_JOIN_SESSION_KEYRING")) }
}

/// Sends a signal by number to the process behind `pidfd`. A process that is gone is no error.
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: no memory is passed; a null siginfo is the documented "as kill(2)".
    let ret = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if ret == 0 {
        return Ok(());
    }
    match Error::last(Call::Signal, signal.to_string()) {
        e if e.errno == Errno::SRCH => Ok(()),
        e => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_use_is_plausible() {
        let rss = peak_rss().unwrap();
        assert!((500_000..50_000_000_000).contains(&rss), "{rss}");
    }

    #[test]
    fn a_threaded_process_gets_no_proof() {
        // The test runner has a thread for this test beside its own.
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || stopped.recv());
        assert_eq!(SingleThreaded::check().unwrap_err().errno, Errno::BUSY);
        drop(stop);
        let _ = thread.join();
    }

    #[test]
    fn execve_comes_back_with_the_reason() {
        let error = execve(c"/no/such/program", &[c"x".to_owned()], &[]);
        assert_eq!(error.to_string(), "execve /no/such/program: No such file or directory (os error 2)");
    }

    #[test]
    fn signalling_a_process_that_is_gone_is_no_error() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        child.wait().unwrap();
        use std::os::fd::AsFd;
        signal(pidfd.as_fd(), libc::SIGTERM).unwrap();
    }
}
