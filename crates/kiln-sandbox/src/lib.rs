//! Runs processes in a prepared root, sealed off from the host.
//!
//! The daemon never forks. A small single-threaded helper, the same binary re-executed, does: it is started
//! once ([`Launcher::start`]) and then makes one child per run, which builds its own sandbox by descriptors
//! and executes the program as process 1 of a pid namespace; more processes can join it ([`Process::join`]).
//! [`OciRuntime`] does the same job with a runtime binary such as `runc`.

mod bundle;
mod cgroup;
mod child;
mod error;
mod executor;
mod helper;
mod hooks;
mod launcher;
mod network;
mod oci;
mod seccomp;
mod spec;
mod wire;

pub use error::{ExecFailure, ExecFailureKind, SandboxError, Step};
pub use executor::{Executor, ExitStatus, Process, Usage};
pub use helper::helper_main;
pub use hooks::{Hook, Hooks};
pub use launcher::{Launcher, LauncherConfig};
pub use network::listening_network;
pub use oci::OciRuntime;
pub use spec::{
    BindOptions, DeviceAccess, DeviceNode, IntelRdt, MountKind, Network, NodeKind, ProcessSpec, ProgramSpec,
    Resources, SandboxMount, Security, Stdio, TerminalSize, Ulimit,
};
