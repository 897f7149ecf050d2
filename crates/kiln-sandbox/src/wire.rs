//! What daemon, helper and child say to each other. One binary is on all ends, so there is no version.
//!
//! A run is one packet on the helper's socket: an [`Order`] and the descriptors it numbers. The details lie in
//! a memory file that only the child reads, so that the helper does little and keeps nothing. Answers come
//! over a socket of the run's own.

use crate::error::{ExecFailure, SandboxError, Step};
use crate::hooks::{Container, Hook};
use crate::spec::{DeviceNode, Security, TerminalSize};
use kiln_sys::process::Usage;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

/// Largest order and reply packet in bytes.
pub(crate) const PACKET: usize = 4096;

/// Largest request: arguments and environment as execve(2) takes them (2 MiB), and secrets, with room.
const REQUEST_LIMIT: u64 = 64 << 20;

/// Index of a descriptor in the packet of an order.
pub(crate) type FdIndex = usize;

/// What the helper must know to fork.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) spaces: Spaces,
    /// v2 cgroup to be born in.
    pub(crate) cgroup: Option<FdIndex>,
}

/// The namespaces of a new process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Spaces {
    /// Fresh ones.
    New {
        /// A network namespace too.
        network: bool,
    },
    /// Those of a running sandbox; the descriptor is the pidfd of its first process. The helper only gives the
    /// process id, the child takes the rest.
    Of(FdIndex),
}

/// Where the run's reply socket stands in the packet.
pub(crate) const REPLY_SOCKET: FdIndex = 0;
/// Where the memory file of the request stands.
pub(crate) const REQUEST_FILE: FdIndex = 1;

/// How device nodes are kept from being more than they should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Devices {
    /// The cgroup has a device filter.
    Filtered,
    /// There is no filter: nothing but the standard devices lies on a mount that lets devices be opened.
    NoDev,
    /// The machine's, with this many loop devices.
    All {
        /// Number of `/dev/loopN`.
        loops: u32,
    },
}

/// What the child does, in full.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) program: Program,
    pub(crate) place: Place,
}

/// Where the program runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Place {
    /// In a sandbox that the child makes.
    New(Box<Sandbox>),
    /// In the one whose first process is behind this pidfd.
    Join(FdIndex),
}

/// The program and who it is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(crate) stdio: [FdIndex; 3],
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: PathBuf,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) security: Security,
    pub(crate) rlimits: Vec<Rlimit>,
    pub(crate) tty: Option<TerminalSize>,
    /// `cgroup.procs` files of v1 cgroups to join.
    pub(crate) v1_cgroups: Vec<FdIndex>,
    /// The compiled seccomp program.
    pub(crate) seccomp: Option<FdIndex>,
}

/// The sandbox to make.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sandbox {
    pub(crate) root: Root,
    pub(crate) read_only_root: bool,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) hostname: String,
    pub(crate) network: Net,
    pub(crate) devices: Devices,
    pub(crate) shm_size: u64,
    pub(crate) cgroup_view: CgroupView,
}

/// Where the root comes from.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Root {
    /// A detached mount, to be attached in the helper's empty tree.
    Detached(FdIndex),
    /// It is mounted in a bundle, where hooks find it: the sandbox is made in a copy of the daemon's mount tree.
    Bundled(Box<Bundled>),
}

/// A root for hooks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Bundled {
    /// The daemon's mount namespace.
    pub(crate) namespace: FdIndex,
    /// The writing end of a pipe that execve(2) closes; something is written when it does not come to that.
    pub(crate) executed: FdIndex,
    pub(crate) container: Container,
    pub(crate) create_container: Vec<Hook>,
    pub(crate) start_container: Vec<Hook>,
}

/// The network of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Net {
    /// The helper's, which is the daemon's.
    Host,
    /// A new one, in which the child is born.
    New,
    /// Behind this descriptor; the child enters it.
    Given(FdIndex),
}

/// What `/sys/fs/cgroup` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CgroupView {
    /// Nothing: the host has none mounted.
    None,
    /// The v2 hierarchy.
    Unified,
    /// A directory with the named v1 controllers, and v2 as `unified` when set.
    Hybrid { controllers: Vec<String>, unified: bool },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Mount {
    pub(crate) dest: PathBuf,
    pub(crate) source: Source,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Source {
    Bind { tree: FdIndex, directory: bool },
    Tmpfs { size: Option<u64>, mode: u32 },
    Device(DeviceNode),
    File { start: usize, end: usize, mode: u32, uid: u32, gid: u32 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rlimit {
    /// Docker's name of the resource.
    pub(crate) name: String,
    pub(crate) soft: Option<u64>,
    pub(crate) hard: Option<u64>,
}

/// From the daemon to a child that waits after [`Reply::Created`].
pub(crate) const GO_ON: &[u8] = b"go on";

/// Answers on the run's socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// From the helper; carries the pidfd. The id is as the helper sees it.
    Spawned,
    /// From the helper: no child was made.
    Refused(Failure),
    /// From the child; carries the master side of the terminal.
    Terminal,
    /// From the child of a sandbox with hooks: everything is mounted. It goes on when it is sent [`GO_ON`].
    Created,
    /// From the first child of a sandbox: others may join it now.
    Ready,
    /// From the child, which then exits.
    Failed(Failure),
    /// From the helper, last: exit code or signal.
    Exited { code: Option<i32>, signal: i32, usage: UsageReply },
}

/// A failed step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Failure {
    Exec(ExecFailure),
    /// The sandbox to join is gone.
    Ended,
    Setup {
        step: Step,
        message: String,
    },
}

impl Failure {
    pub(crate) fn new(step: Step, message: impl std::fmt::Display) -> Self {
        Failure::Setup { step, message: message.to_string() }
    }

    /// A process cannot enter a sandbox. One that has ended has no namespaces (ESRCH, setns(2)).
    pub(crate) fn join(e: kiln_sys::Errno) -> Self {
        if e == kiln_sys::Errno::SRCH { Failure::Ended } else { Failure::new(Step::Join, e) }
    }

    /// The failure as a packet that is never too long.
    pub(crate) fn packet(self, wrap: fn(Failure) -> Reply) -> Vec<u8> {
        let failure = match self {
            Failure::Exec(e) => Failure::Exec(ExecFailure { program: short(e.program), kind: e.kind }),
            Failure::Setup { step, message } => Failure::Setup { step, message: short(message) },
            Failure::Ended => Failure::Ended,
        };
        serde_json::to_vec(&wrap(failure)).unwrap_or_default()
    }
}

/// The beginning of a text, so much of it that it fits a packet as JSON.
fn short(mut text: String) -> String {
    const LIMIT: usize = PACKET - 512;
    let escaped = |c: char| match c {
        '"' | '\\' => 2,
        c if c.is_control() => 6,
        c => c.len_utf8(),
    };
    let mut length = 0;
    let end = text.char_indices().find(|(_, c)| {
        length += escaped(*c);
        length > LIMIT
    });
    if let Some((end, _)) = end {
        text.truncate(end);
    }
    text
}

impl From<Failure> for SandboxError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Exec(e) => SandboxError::Exec(e),
            Failure::Ended => SandboxError::Ended,
            Failure::Setup { step, message } => SandboxError::Setup { step, message },
        }
    }
}

/// [`Usage`] in numbers.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct UsageReply {
    user_us: u64,
    system_us: u64,
    peak_rss: u64,
}

impl From<Usage> for UsageReply {
    fn from(u: Usage) -> Self {
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        UsageReply { user_us: micros(u.user), system_us: micros(u.system), peak_rss: u.peak_rss }
    }
}

impl From<UsageReply> for crate::executor::Usage {
    fn from(u: UsageReply) -> Self {
        crate::executor::Usage {
            user: Duration::from_micros(u.user_us),
            system: Duration::from_micros(u.system_us),
            peak_rss: u.peak_rss,
            oom_kills: 0,
        }
    }
}

/// Writes a request and the contents its [`Source::File`]s point to into a memory file.
pub(crate) fn write_request(request: &Request, blobs: &[u8]) -> std::io::Result<OwnedFd> {
    let json = serde_json::to_vec(request)?;
    let fd = rustix::fs::memfd_create("sandbox-request", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    let mut bytes = Vec::with_capacity(8 + json.len() + blobs.len());
    bytes.extend((json.len() as u64).to_ne_bytes());
    bytes.extend(json);
    bytes.extend(blobs);
    if bytes.len() as u64 > REQUEST_LIMIT {
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "arguments, environment and files are too long",
        ));
    }
    file.write_all(&bytes)?;
    Ok(file.into())
}

/// Reads what [`write_request`] wrote.
pub(crate) fn read_request(fd: OwnedFd) -> std::io::Result<(Request, Vec<u8>)> {
    let mut file = File::from(fd);
    file.rewind()?;
    let mut len = [0; 8];
    file.read_exact(&mut len)?;
    let mut bytes = Vec::new();
    file.take(REQUEST_LIMIT).read_to_end(&mut bytes)?;
    let len = usize::try_from(u64::from_ne_bytes(len)).unwrap_or(usize::MAX);
    let json = bytes.get(..len).ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let request = serde_json::from_slice(json)?;
    Ok((request, bytes.split_off(len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_survives_the_memory_file() {
        let program = Program {
            stdio: [3, 4, 5],
            args: vec!["sh".into(), "-c".into(), "echo \u{1f980} \"quoted\"\n".into()],
            env: vec!["A=b=c".into()],
            cwd: "/w".into(),
            uid: u32::MAX - 1,
            gid: 7,
            additional_gids: vec![1, 2, 3],
            security: Security::Insecure,
            rlimits: vec![Rlimit { name: "nofile".into(), soft: Some(1), hard: None }],
            tty: Some(TerminalSize { rows: 24, columns: 80 }),
            v1_cgroups: vec![9],
            seccomp: None,
        };
        let sandbox = Sandbox {
            root: Root::Bundled(Box::new(Bundled {
                namespace: 2,
                executed: 3,
                container: Container { id: "a".into(), bundle: "/b".into() },
                create_container: vec![Hook {
                    path: "/h".into(),
                    args: vec!["h".into()],
                    env: vec![],
                    timeout: None,
                }],
                start_container: vec![],
            })),
            read_only_root: true,
            mounts: vec![Mount {
                dest: "/run/secret".into(),
                source: Source::File { start: 0, end: 3, mode: 0o400, uid: 1, gid: 2 },
            }],
            hostname: "h".into(),
            network: Net::Given(6),
            devices: Devices::All { loops: 8 },
            shm_size: 1 << 40,
            cgroup_view: CgroupView::Hybrid { controllers: vec!["memory".into()], unified: true },
        };
        let request = Request { program, place: Place::New(Box::new(sandbox)) };
        let text = format!("{request:?}");
        let (back, blobs) = read_request(write_request(&request, b"abc").unwrap()).unwrap();
        assert_eq!(format!("{back:?}"), text);
        assert_eq!(blobs, b"abc");
    }

    #[test]
    fn a_long_failure_still_fits_a_packet() {
        for (text, told) in [("\u{1}\u{e9}", 1300), ("\"\\", 1500), ("\u{7f}x", 2000), ("plain words ", 3500)]
        {
            let packet = Failure::new(Step::Mount, text.repeat(5000)).packet(Reply::Failed);
            assert!(packet.len() <= PACKET, "{}", packet.len());
            let reply: Reply = serde_json::from_slice(&packet).unwrap();
            let Reply::Failed(Failure::Setup { step: Step::Mount, message }) = reply else {
                panic!("{reply:?}")
            };
            assert!(message.len() >= told.min(message.len().max(1000)), "{}", message.len());
        }
    }
}
