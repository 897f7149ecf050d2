//! From a [`ProcessSpec`] to the packet the helper gets.

use super::connection::Packet;
use super::hooks::Hooked;
use crate::cgroup::StepCgroup;
use crate::child::is_limit;
use crate::error::SandboxError;
use crate::spec::{
    BindOptions, DeviceNode, MountKind, Network, NodeKind, ProcessSpec, ProgramSpec, SandboxMount, Stdio,
    Ulimit,
};
use crate::wire::{
    self, Bundled, Devices, FdIndex, Mount, Net, Order, Place, Program, Request, Rlimit, Root, Sandbox,
    Source, Spaces,
};
use kiln_sys::bpf::{Access, DeviceKind, DeviceRule};
use kiln_sys::mount::{self, Attrs};
use kiln_sys::socket;
use rustix::fs::FileType;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// 64 MiB, Docker's default.
pub(crate) const SHM_SIZE: u64 = 64 << 20;

/// Refuses what could not be run, before anything is made for it.
pub(crate) fn validate(spec: &ProcessSpec) -> Result<(), SandboxError> {
    let wrong = |field, reason: &str| Err(SandboxError::invalid(field, reason));
    let id_char = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if spec.id.is_empty() || spec.id.len() > 128 || spec.id.starts_with('.') || !spec.id.chars().all(id_char)
    {
        return wrong("id", "must be 1 to 128 letters, digits, `-`, `_` and `.`, not starting with a dot");
    }
    validate_program(&spec.program)?;
    // HOST_NAME_MAX of the kernel.
    if spec.hostname.len() > 64 {
        return wrong("hostname", "is longer than 64 bytes");
    }
    for SandboxMount { dest, .. } in &spec.mounts {
        if !dest.is_absolute() || dest.parent().is_none() {
            return Err(SandboxError::invalid(
                "mounts",
                format!("destination {} must be an absolute path below the root", dest.display()),
            ));
        }
    }
    match spec.hooks.all().find(|hook| !hook.path.is_absolute()) {
        Some(hook) => {
            Err(SandboxError::invalid("hooks", format!("{} is not an absolute path", hook.path.display())))
        }
        None => Ok(()),
    }
}

/// The part that joining processes have too.
pub(crate) fn validate_program(spec: &ProgramSpec) -> Result<(), SandboxError> {
    let wrong = |field, reason: &str| Err(SandboxError::invalid(field, reason));
    if spec.args.is_empty() {
        return wrong("args", "no program to run");
    }
    if spec.args.iter().chain(&spec.env).any(|s| s.contains('\0')) {
        return wrong("args", "arguments and environment cannot contain a NUL byte");
    }
    if !spec.cwd.is_absolute() {
        return wrong("cwd", "the working directory must be an absolute path");
    }
    match spec.ulimits.iter().find(|u| !is_limit(&u.name) || u.soft < -1 || u.hard < -1) {
        Some(limit) => Err(SandboxError::invalid("ulimits", format!("{:?} is not a limit", limit.name))),
        None => Ok(()),
    }
}

/// Collects descriptors and their numbers.
#[derive(Default)]
struct Fds(Vec<OwnedFd>);

impl Fds {
    fn push(&mut self, fd: OwnedFd) -> FdIndex {
        self.0.push(fd);
        self.0.len() - 1
    }

    fn push_copy(&mut self, fd: BorrowedFd<'_>) -> Result<FdIndex, SandboxError> {
        let copy = fd.try_clone_to_owned().map_err(|e| SandboxError::prepare("copy a descriptor", e))?;
        Ok(self.push(copy))
    }
}

/// Builds the packet, and the daemon's end of the run's own socket.
pub(super) fn build(
    spec: ProcessSpec,
    stdio: Stdio,
    cgroup: &StepCgroup,
    profile: Option<BorrowedFd<'_>>,
    hooked: Option<&mut Hooked>,
) -> Result<(Packet, OwnedFd), SandboxError> {
    let (mut fds, ours) = begin()?;
    let mut blobs = Vec::new();
    let network = match spec.network {
        Network::Host => Net::Host,
        Network::None => Net::New,
        Network::Namespace(fd) => Net::Given(fds.push(fd)),
    };
    let nodev = cgroup.devices == Devices::NoDev;
    let mounts = spec
        .mounts
        .into_iter()
        .map(|m| mount_order(m, nodev, &mut fds, &mut blobs))
        .collect::<Result<_, _>>()?;
    let root = match hooked {
        None => Root::Detached(fds.push(spec.root)),
        Some(hooked) => Root::Bundled(Box::new(bundled(hooked, &mut fds)?)),
    };
    let sandbox = Sandbox {
        root,
        read_only_root: spec.read_only_root,
        mounts,
        hostname: spec.hostname,
        network,
        devices: cgroup.devices,
        shm_size: spec.shm_size.unwrap_or(SHM_SIZE),
        cgroup_view: cgroup.view.clone(),
    };
    let program = program(spec.program, stdio, cgroup, profile, &mut fds)?;
    let request = Request { program, place: Place::New(Box::new(sandbox)) };
    let packet = finish(fds, &request, &blobs, Spaces::New { network: network == Net::New }, cgroup)?;
    Ok((packet, ours))
}

fn bundled(hooked: &mut Hooked, fds: &mut Fds) -> Result<Bundled, SandboxError> {
    let failed = |e| SandboxError::prepare("share the mount namespace with hooks", e);
    let namespace = std::fs::File::open("/proc/self/ns/mnt").map_err(failed)?;
    Ok(Bundled {
        namespace: fds.push(namespace.into()),
        executed: fds.push(hooked.take_executed().map_err(failed)?),
        container: hooked.container().clone(),
        create_container: hooked.hooks().create_container.clone(),
        start_container: hooked.hooks().start_container.clone(),
    })
}

/// The same for one more process beside the one behind `first`.
pub(super) fn build_join(
    spec: ProgramSpec,
    stdio: Stdio,
    first: BorrowedFd<'_>,
    cgroup: &StepCgroup,
    profile: Option<BorrowedFd<'_>>,
) -> Result<(Packet, OwnedFd), SandboxError> {
    let (mut fds, ours) = begin()?;
    let first = fds.push_copy(first)?;
    let program = program(spec, stdio, cgroup, profile, &mut fds)?;
    let request = Request { program, place: Place::Join(first) };
    let packet = finish(fds, &request, &[], Spaces::Of(first), cgroup)?;
    Ok((packet, ours))
}

/// The descriptors every packet begins with, and the daemon's end of the socket.
fn begin() -> Result<(Fds, OwnedFd), SandboxError> {
    let (ours, theirs) = socket::pair().map_err(|e| SandboxError::prepare("make a socket", e))?;
    let mut fds = Fds::default();
    fds.push(theirs);
    // Holds the place of the request, which is written last because it names the others.
    fds.push_copy(ours.as_fd())?;
    Ok((fds, ours))
}

fn program(
    spec: ProgramSpec,
    stdio: Stdio,
    cgroup: &StepCgroup,
    profile: Option<BorrowedFd<'_>>,
    fds: &mut Fds,
) -> Result<Program, SandboxError> {
    Ok(Program {
        stdio: [fds.push(stdio.stdin), fds.push(stdio.stdout), fds.push(stdio.stderr)],
        args: spec.args,
        env: spec.env,
        cwd: spec.cwd,
        uid: spec.uid,
        gid: spec.gid,
        additional_gids: spec.additional_gids,
        security: spec.security,
        rlimits: spec.ulimits.into_iter().map(rlimit).collect(),
        tty: spec.tty,
        v1_cgroups: cgroup.v1.iter().map(|m| fds.push_copy(m.handle.as_fd())).collect::<Result<_, _>>()?,
        seccomp: profile.map(|p| fds.push_copy(p)).transpose()?,
    })
}

fn finish(
    mut fds: Fds,
    request: &Request,
    blobs: &[u8],
    spaces: Spaces,
    cgroup: &StepCgroup,
) -> Result<Packet, SandboxError> {
    let unified = cgroup.unified.as_ref().map(|m| fds.push_copy(m.handle.as_fd())).transpose()?;
    let order = Order { spaces, cgroup: unified };
    if fds.0.len() > socket::MAX_FDS {
        return Err(SandboxError::invalid("mounts", format!("more than {} descriptors", socket::MAX_FDS)));
    }
    fds.0[wire::REQUEST_FILE] =
        wire::write_request(request, blobs).map_err(|e| SandboxError::prepare("write the request", e))?;
    let bytes = serde_json::to_vec(&order).map_err(|e| SandboxError::prepare("write the order", e))?;
    Ok(Packet { bytes, fds: fds.0 })
}

fn rlimit(limit: Ulimit) -> Rlimit {
    // -1, the only negative value let through, is unlimited.
    Rlimit { name: limit.name, soft: u64::try_from(limit.soft).ok(), hard: u64::try_from(limit.hard).ok() }
}

/// The devices that a step brings along, each once.
pub(super) fn device_rules(mounts: &[SandboxMount]) -> Vec<DeviceRule> {
    let mut rules: Vec<DeviceRule> = Vec::new();
    let nodes =
        mounts.iter().filter_map(|m| if let MountKind::Device(node) = &m.kind { Some(node) } else { None });
    for rule in nodes.filter_map(device_rule) {
        let same = |r: &&mut DeviceRule| (r.kind, r.major, r.minor) == (rule.kind, rule.major, rule.minor);
        match rules.iter_mut().find(same) {
            Some(known) => known.access = known.access.union(rule.access),
            None => rules.push(rule),
        }
    }
    rules
}

fn device_rule(node: &DeviceNode) -> Option<DeviceRule> {
    let kind = match node.kind {
        NodeKind::Block => DeviceKind::Block,
        NodeKind::Char => DeviceKind::Char,
        NodeKind::Fifo => return None,
    };
    // Nodes may be made of everything.
    let access = Access { read: node.access.read, write: node.access.write };
    Some(DeviceRule { kind, major: node.major, minor: Some(node.minor), access })
}

fn mount_order(
    mount: SandboxMount,
    nodev: bool,
    fds: &mut Fds,
    blobs: &mut Vec<u8>,
) -> Result<Mount, SandboxError> {
    let source = match mount.kind {
        MountKind::Bind { fd, options } => {
            let BindOptions { read_only, nosuid, noexec, recursive, .. } = options;
            let attrs = Attrs { read_only, nosuid, nodev: nodev || options.nodev, noexec };
            let (tree, directory) = bind(&fd, attrs, recursive).map_err(|e| SandboxError::Prepare {
                action: "bind a mount",
                message: format!("{}: {e}", mount.dest.display()),
            })?;
            Source::Bind { tree: fds.push(tree), directory }
        }
        MountKind::Tmpfs { size, mode } => Source::Tmpfs { size, mode },
        MountKind::Device(node) => Source::Device(node),
        MountKind::File { contents, mode, uid, gid } => {
            let start = blobs.len();
            blobs.extend(contents);
            Source::File { start, end: blobs.len(), mode, uid, gid }
        }
    };
    Ok(Mount { dest: mount.dest, source })
}

fn bind(fd: &OwnedFd, attrs: Attrs, recursive: bool) -> kiln_sys::Result<(OwnedFd, bool)> {
    let stat = rustix::fs::fstat(fd).map_err(|e| kiln_sys::Error::new(kiln_sys::Call::Open, "", e))?;
    let tree = mount::bind_detached(fd.as_fd(), recursive, false)?;
    if attrs != Attrs::default() {
        mount::set_attrs(tree.as_fd(), attrs, recursive)?;
    }
    Ok((tree, FileType::from_raw_mode(stat.st_mode) == FileType::Directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn spec(change: impl FnOnce(&mut ProcessSpec)) -> Result<(), String> {
        let root = File::open("/").unwrap().into();
        let mut spec = ProcessSpec::new("a-1.b_2", root, ProgramSpec::new(vec!["true".into()]));
        change(&mut spec);
        validate(&spec).map_err(|e| e.to_string())
    }

    #[test]
    fn ids_are_names_and_nothing_else() {
        assert_eq!(spec(|_| ()), Ok(()));
        for id in ["", ".", "..", ".a", "a/b", "../x", "a b", "a\0", "\u{e4}", &"x".repeat(129)] {
            assert!(spec(|s| s.id = id.into()).is_err(), "{id:?}");
        }
    }

    #[test]
    fn what_cannot_run_is_refused_with_its_field() {
        let text = |change: fn(&mut ProcessSpec)| spec(change).unwrap_err();
        assert_eq!(text(|s| s.program.args.clear()), "args: no program to run");
        assert_eq!(
            text(|s| s.program.cwd = "w".into()),
            "cwd: the working directory must be an absolute path"
        );
        assert!(text(|s| s.program.env = vec!["A=\0".into()]).starts_with("args: "));
        assert!(text(|s| s.hostname = "h".repeat(65)).starts_with("hostname: "));
        let limit = |name: &str, soft| Ulimit { name: name.into(), soft, hard: -1 };
        assert_eq!(spec(|s| s.program.ulimits = vec![limit("nofile", -1)]), Ok(()));
        assert_eq!(
            spec(|s| s.program.ulimits = vec![limit("NOFILE", 1)]),
            Err("ulimits: \"NOFILE\" is not a limit".into())
        );
        assert!(spec(|s| s.program.ulimits = vec![limit("nofile", -2)]).is_err());
        for dest in ["/", "a", ""] {
            let kind = MountKind::Tmpfs { size: None, mode: 0o755 };
            assert!(spec(|s| s.mounts = vec![SandboxMount { dest: dest.into(), kind }]).is_err());
        }
    }
}
