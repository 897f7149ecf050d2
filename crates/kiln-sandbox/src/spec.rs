//! What to run: one process, its root, what it sees of the machine, and what it may do.

use crate::hooks::Hooks;
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// One process to run in a root of its own.
#[derive(Debug)]
pub struct ProcessSpec {
    /// A name for logs and the cgroup: letters, digits, `-`, `_`, `.`; at most 128 bytes.
    pub id: String,
    /// The root as a detached mount (`kiln_sys::mount::{overlay, bind_detached}`); used up by the run.
    pub root: OwnedFd,
    /// Make the root read-only (mount points are still created first).
    pub read_only_root: bool,
    /// Mounted in this order, after and over the standard ones (so one on `/dev/shm` replaces that). A
    /// destination in `/proc` is refused.
    pub mounts: Vec<SandboxMount>,
    /// The program, and what it sets itself.
    pub program: ProgramSpec,
    /// Host name the process sees.
    pub hostname: String,
    /// What of the network it sees.
    pub network: Network,
    /// cgroup limits.
    pub resources: Resources,
    /// cgroup below which the step's own one is made, relative to the mounted hierarchy.
    pub cgroup_parent: Option<String>,
    /// Size of `/dev/shm` in bytes; `None` is 64 MiB.
    pub shm_size: Option<u64>,
    /// Programs that are run as it comes and goes; not for those that join it.
    pub hooks: Hooks,
    /// Resource control of Intel processors; by OCI runtimes only.
    pub intel_rdt: Option<IntelRdt>,
}

impl ProcessSpec {
    /// A spec with BuildKit's defaults: host network, no limits.
    pub fn new(id: impl Into<String>, root: OwnedFd, program: ProgramSpec) -> Self {
        ProcessSpec {
            id: id.into(),
            root,
            read_only_root: false,
            mounts: Vec::new(),
            program,
            hostname: "buildkitsandbox".into(),
            network: Network::Host,
            resources: Resources::default(),
            cgroup_parent: None,
            shm_size: None,
            hooks: Hooks::default(),
            intel_rdt: None,
        }
    }
}

/// A program, and what every process of a sandbox sets itself: the first, and those that join it.
#[derive(Debug, Clone)]
pub struct ProgramSpec {
    /// Program and arguments; the program is looked up in the `PATH` of `env`, inside the root.
    pub args: Vec<String>,
    /// Environment as `NAME=value`. Only `HOME` is added when missing, from the root's `/etc/passwd`.
    pub env: Vec<String>,
    /// Working directory, absolute; made (0755, owned by `uid`:`gid`) when missing.
    pub cwd: PathBuf,
    /// User id inside the root.
    pub uid: u32,
    /// Group id inside the root.
    pub gid: u32,
    /// Supplementary groups; empty means none at all.
    pub additional_gids: Vec<u32>,
    /// How far it is confined; one that joins never less than the sandbox's first process.
    pub security: Security,
    /// Limits set before the program starts.
    pub ulimits: Vec<Ulimit>,
    /// Give the process a terminal of this size; then the stdio of the call is not used.
    pub tty: Option<TerminalSize>,
}

impl ProgramSpec {
    /// A spec with BuildKit's defaults: `/` as directory, root user, sandboxed, no limits.
    pub fn new(args: Vec<String>) -> Self {
        ProgramSpec {
            args,
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            uid: 0,
            gid: 0,
            additional_gids: Vec::new(),
            security: Security::Sandbox,
            ulimits: Vec::new(),
            tty: None,
        }
    }

    /// The same for a process that joins a sandbox whose first process is confined like `first`.
    pub(crate) fn beside(mut self, first: Security) -> Self {
        if first == Security::Sandbox {
            self.security = Security::Sandbox;
        }
        self
    }
}

/// Something mounted inside the root.
#[derive(Debug)]
pub struct SandboxMount {
    /// Absolute path inside the root; links in it are resolved inside the root. Missing parts are made.
    pub dest: PathBuf,
    /// What is mounted there.
    pub kind: MountKind,
}

/// What a [`SandboxMount`] shows.
#[derive(Debug)]
pub enum MountKind {
    /// A directory or file.
    Bind {
        /// A handle (`O_PATH` is enough) inside a mount of the daemon's namespace; the run clones it.
        fd: OwnedFd,
        /// How it is mounted.
        options: BindOptions,
    },
    /// An empty filesystem in memory (nosuid).
    Tmpfs {
        /// Size in bytes; `None` is the kernel's default, half of the memory.
        size: Option<u64>,
        /// Permission bits of its root.
        mode: u32,
    },
    /// A device, which the process may open.
    Device(DeviceNode),
    /// A read-only file kept in memory only: a secret, `/etc/resolv.conf`, `/etc/hosts`.
    File {
        /// The bytes.
        contents: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// How a directory or file is mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BindOptions {
    /// Refuse writes.
    pub read_only: bool,
    /// Set-user-id bits and file capabilities do not count.
    pub nosuid: bool,
    /// Device nodes cannot be opened.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
    /// What is mounted below it comes along, mounted in the same way.
    pub recursive: bool,
}

/// A device node of the sandbox's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// What it is.
    pub kind: NodeKind,
    /// Of its number.
    pub major: u32,
    /// Of its number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What may be done with the device, also through other nodes of it. All may be done in an insecure sandbox.
    pub access: DeviceAccess,
}

/// Kinds of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeKind {
    /// A device of blocks.
    Block,
    /// A device of characters.
    Char,
    /// A named pipe, which has no number.
    Fifo,
}

/// What a device cgroup lets be done with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceAccess {
    /// Open for reading.
    pub read: bool,
    /// Open for writing.
    pub write: bool,
    /// Make nodes of it; every sandbox may make any node.
    pub mknod: bool,
}

impl DeviceAccess {
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true, mknod: true };
}

/// Resource control, see the OCI runtime specification, config-linux.md, "IntelRdt". Empty is not set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IntelRdt {
    /// The class of service.
    pub clos_id: String,
    /// Its share of caches.
    pub l3_cache_schema: String,
    /// Its share of memory bandwidth.
    pub mem_bw_schema: String,
    /// All its lines.
    pub schemata: Vec<String>,
    /// Watch cache and bandwidth.
    pub enable_monitoring: bool,
}

/// What of the network the process sees.
#[derive(Debug)]
pub enum Network {
    /// The daemon's network.
    Host,
    /// A loopback interface only.
    None,
    /// That of a network namespace, which is there already ([`crate::listening_network`]).
    Namespace(OwnedFd),
}

/// How far the process is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Security {
    /// Docker's default capabilities and seccomp profile, masked and read-only paths.
    Sandbox,
    /// All capabilities, all devices, writable `/sys` and cgroups (entitlement `security.insecure`).
    Insecure,
}

/// A resource limit, see setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// Docker's name in lower case, such as `nofile`.
    pub name: String,
    /// Soft limit; -1 is unlimited.
    pub soft: i64,
    /// Hard limit; -1 is unlimited.
    pub hard: i64,
}

/// cgroup limits; `None` everywhere means that none is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Memory in bytes.
    pub memory: Option<i64>,
    /// Memory and swap together in bytes; -1 is unlimited swap.
    pub memory_swap: Option<i64>,
    /// Relative CPU weight, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// CPU time in microseconds per period.
    pub cpu_quota: Option<i64>,
    /// Length of the period in microseconds.
    pub cpu_period: Option<u64>,
    /// CPUs, such as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    pub cpuset_mems: Option<String>,
    /// Number of processes and threads.
    pub pids: Option<i64>,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

impl TerminalSize {
    /// The same for the kernel; nobody knows the size in pixels.
    pub(crate) fn winsize(self) -> rustix::termios::Winsize {
        rustix::termios::Winsize { ws_row: self.rows, ws_col: self.columns, ws_xpixel: 0, ws_ypixel: 0 }
    }
}

/// Where the process reads and writes; all three are duplicated into it.
#[derive(Debug)]
pub struct Stdio {
    /// Descriptor 0.
    pub stdin: OwnedFd,
    /// Descriptor 1.
    pub stdout: OwnedFd,
    /// Descriptor 2.
    pub stderr: OwnedFd,
}
