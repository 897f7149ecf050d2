//! Devices of the machine that a step uses: what it is given for them.

use kiln_cdi::{Edits, HookName, NodeKind, Registry, Request};
use kiln_llb::CdiDevice;
use kiln_llb::errdefs::{BuildError, Code};
use kiln_sandbox::{
    BindOptions, DeviceAccess, DeviceNode, Hook, IntelRdt, MountKind, ProcessSpec, SandboxMount,
};
use rustix::fs::{FileType, Mode, OFlags};
use std::path::Path;

/// Permission bits of a node whose description has none and that is not on the host.
const MODE: u32 = 0o666;

/// What the step is to be given for `wanted`.
///
/// # Errors
/// If one that it cannot do without is not there, or is described to need what kiln does not do.
pub(super) async fn edits(registry: &Registry, wanted: &[CdiDevice]) -> Result<Edits, BuildError> {
    if wanted.is_empty() {
        return Ok(Edits::default());
    }
    let registry = registry.clone();
    let scanned = tokio::task::spawn_blocking(move || registry.scan()).await;
    let devices = scanned.map_err(super::failed)?;
    for problem in &devices.problems {
        tracing::debug!(problem, "devices are left out");
    }
    let requests: Vec<_> = wanted.iter().map(|d| Request { name: &d.name, optional: d.optional }).collect();
    let found = devices.find(&requests).map_err(|e| injection(super::failed(e)))?;
    let edits = Edits::of(&found);
    match edits.unsupported() {
        None => Ok(edits),
        Some(what) => {
            let names: Vec<&str> = found.iter().map(|d| d.name.as_str()).collect();
            let message = format!("device {}: {what} is not supported", names.join(", "));
            Err(injection(BuildError::new(Code::Unimplemented, message)))
        }
    }
}

/// Where something is put into the root.
pub(super) fn paths(edits: &Edits) -> impl Iterator<Item = &str> {
    let nodes = edits.device_nodes.iter().map(|n| n.path.as_path());
    // In /dev nothing reaches the root.
    let nodes = nodes.filter(|path| !path.starts_with("/dev"));
    edits.mounts.iter().map(|m| m.container_path.as_path()).chain(nodes).filter_map(Path::to_str)
}

/// Gives it to a process whose user is known.
pub(super) fn give(edits: Edits, spec: &mut ProcessSpec) -> Result<(), BuildError> {
    let Edits { env, device_nodes, mounts, additional_gids, hooks, net_devices: _, intel_rdt } = edits;
    for variable in env {
        let name = variable.split('=').next().unwrap_or_default();
        let same = |v: &&mut String| v.split('=').next() == Some(name);
        match spec.program.env.iter_mut().find(same) {
            Some(set) => *set = variable,
            None => spec.program.env.push(variable),
        }
    }
    for gid in additional_gids.into_iter().filter(|gid| *gid != 0) {
        if !spec.program.additional_gids.contains(&gid) {
            spec.program.additional_gids.push(gid);
        }
    }
    for mount in mounts {
        let kind = bind(&mount).map_err(injection)?;
        spec.mounts.push(SandboxMount { dest: mount.container_path, kind });
    }
    for node in device_nodes {
        let kind = MountKind::Device(device(&node, (spec.program.uid, spec.program.gid)).map_err(injection)?);
        spec.mounts.push(SandboxMount { dest: node.path, kind });
    }
    hooks.into_iter().for_each(|hook| add_hook(hook, spec));
    spec.intel_rdt = intel_rdt.map(|rdt| IntelRdt {
        clos_id: rdt.clos_id,
        l3_cache_schema: rdt.l3_cache_schema,
        mem_bw_schema: rdt.mem_bw_schema,
        schemata: rdt.schemata,
        enable_monitoring: rdt.enable_monitoring,
    });
    Ok(())
}

fn bind(mount: &kiln_cdi::Mount) -> Result<MountKind, BuildError> {
    let fd = rustix::fs::open(&mount.host_path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let fd = fd.map_err(|e| super::failed(format!("{}: {e}", mount.host_path.display())))?;
    let options = BindOptions {
        read_only: mount.has("ro"),
        nosuid: mount.has("nosuid"),
        nodev: mount.has("nodev"),
        noexec: mount.has("noexec"),
        recursive: mount.has("rbind"),
    };
    Ok(MountKind::Bind { fd, options })
}

fn add_hook(hook: kiln_cdi::Hook, spec: &mut ProcessSpec) {
    let hooks = &mut spec.hooks;
    let list = match hook.hook_name {
        HookName::Prestart => &mut hooks.prestart,
        HookName::CreateRuntime => &mut hooks.create_runtime,
        HookName::CreateContainer => &mut hooks.create_container,
        HookName::StartContainer => &mut hooks.start_container,
        HookName::Poststart => &mut hooks.poststart,
        HookName::Poststop => &mut hooks.poststop,
    };
    list.push(Hook { path: hook.path, args: hook.args, env: hook.env, timeout: hook.timeout });
}

/// What a node is by itself.
#[derive(Clone, Copy)]
struct Node {
    kind: NodeKind,
    major: u32,
    minor: u32,
    mode: u32,
}

/// The node as described; what is not described is that of the host's node, and the owner is the process. A
/// description is enough by itself with a type and a number, and for a pipe with the type (`fillMissingInfo` of the
/// interface's own library).
fn device(node: &kiln_cdi::DeviceNode, process: (u32, u32)) -> Result<DeviceNode, BuildError> {
    let described = node.kind.filter(|kind| node.major != 0 || *kind == NodeKind::Fifo);
    let on_host = host_node(node.host());
    let is = match (described, on_host) {
        (Some(kind), on_host) => {
            let mode = on_host.map_or(MODE, |host| host.mode);
            Node { kind, major: node.major, minor: node.minor, mode }
        }
        (None, Err(error)) => return Err(error),
        (None, Ok(host)) if node.kind.is_some_and(|kind| kind != host.kind) => {
            let path = node.host().display();
            return Err(BuildError::msg(format!("{path}: not a device of the type that is described")));
        }
        (None, Ok(host)) if node.major != 0 => Node { major: node.major, minor: node.minor, ..host },
        (None, Ok(host)) => host,
    };
    let kiln_cdi::Permissions { read, write, mknod } = node.permissions;
    Ok(DeviceNode {
        kind: match is.kind {
            NodeKind::Block => kiln_sandbox::NodeKind::Block,
            NodeKind::Char => kiln_sandbox::NodeKind::Char,
            NodeKind::Fifo => kiln_sandbox::NodeKind::Fifo,
        },
        major: is.major,
        minor: is.minor,
        mode: node.file_mode.unwrap_or(is.mode),
        uid: node.uid.unwrap_or(process.0),
        gid: node.gid.unwrap_or(process.1),
        access: DeviceAccess { read, write, mknod },
    })
}

fn host_node(path: &Path) -> Result<Node, BuildError> {
    let stat = rustix::fs::stat(path).map_err(|e| super::failed(format!("{}: {e}", path.display())))?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => NodeKind::Block,
        FileType::CharacterDevice => NodeKind::Char,
        FileType::Fifo => NodeKind::Fifo,
        _ => return Err(BuildError::msg(format!("{}: not a device node", path.display()))),
    };
    let number = stat.st_rdev;
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    Ok(Node { kind, major, minor, mode: stat.st_mode & 0o777 })
}

fn injection(error: BuildError) -> BuildError {
    error.context("CDI device injection failed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_sandbox::ProgramSpec;
    use std::path::PathBuf;

    fn spec() -> ProcessSpec {
        let mut spec = ProcessSpec::new(
            "id",
            std::fs::File::open("/").unwrap().into(),
            ProgramSpec::new(vec!["true".into()]),
        );
        (spec.program.uid, spec.program.gid) = (1000, 1000);
        spec.program.env = vec!["A=1".into(), "B=1".into()];
        spec
    }

    fn node(path: &str, host: Option<&str>) -> kiln_cdi::DeviceNode {
        let host_path = host.map(PathBuf::from);
        kiln_cdi::DeviceNode { path: path.into(), host_path, ..kiln_cdi::DeviceNode::default() }
    }

    #[test]
    fn variables_replace_and_groups_and_nodes_are_added() {
        let described = kiln_cdi::DeviceNode {
            kind: Some(NodeKind::Block),
            permissions: "r".to_owned().try_into().unwrap(),
            major: 7,
            minor: 9,
            uid: Some(0),
            file_mode: Some(0o600),
            ..node("/dev/d", None)
        };
        let edits = Edits {
            env: vec!["B=2=3".into(), "C=4".into()],
            additional_gids: vec![0, 44, 44],
            device_nodes: vec![node("/dev/nothing", Some("/dev/null")), described],
            ..Edits::default()
        };
        let mut spec = spec();
        give(edits, &mut spec).unwrap();
        assert_eq!(spec.program.env, ["A=1", "B=2=3", "C=4"]);
        assert_eq!(spec.program.additional_gids, [44]);
        let nodes: Vec<String> = spec.mounts.iter().map(|m| format!("{m:?}")).collect();
        assert!(
            nodes[0].contains("kind: Char, major: 1, minor: 3, mode: 438, uid: 1000, gid: 1000, access: DeviceAccess { read: true, write: true"),
            "{nodes:?}"
        );
        assert!(
            nodes[1].contains("kind: Block, major: 7, minor: 9, mode: 384, uid: 0, gid: 1000, access: DeviceAccess { read: true, write: false"),
            "{nodes:?}"
        );
    }

    #[test]
    fn hooks_and_mounts_come_as_they_are_described() {
        let hook = |hook_name| kiln_cdi::Hook {
            hook_name,
            path: "/h".into(),
            args: vec!["h".into(), format!("{hook_name:?}")],
            env: Vec::new(),
            timeout: None,
        };
        let options = ["ro", "nosuid", "rbind", "rprivate"].map(str::to_owned).into();
        let mount = kiln_cdi::Mount {
            host_path: "/etc".into(),
            container_path: "/e".into(),
            options,
            kind: String::new(),
        };
        let edits = Edits {
            hooks: vec![
                hook(HookName::Poststop),
                hook(HookName::CreateContainer),
                hook(HookName::CreateContainer),
            ],
            mounts: vec![mount],
            ..Edits::default()
        };
        let mut spec = spec();
        give(edits, &mut spec).unwrap();
        assert_eq!((spec.hooks.poststop.len(), spec.hooks.create_container.len()), (1, 2));
        assert_eq!(spec.hooks.create_container[0].args, ["h", "CreateContainer"]);
        let MountKind::Bind { options, .. } = &spec.mounts[0].kind else { panic!("{:?}", spec.mounts) };
        let wanted = BindOptions { read_only: true, nosuid: true, recursive: true, ..BindOptions::default() };
        assert_eq!(*options, wanted);
    }

    #[test]
    fn a_description_can_do_without_the_host() {
        let pipe =
            kiln_cdi::DeviceNode { kind: Some(NodeKind::Fifo), ..node("/dev/pipe", Some("/dev/not-there")) };
        let pipe = device(&pipe, (0, 0)).unwrap();
        assert_eq!((pipe.kind, pipe.mode), (kiln_sandbox::NodeKind::Fifo, 0o666));
        let full = kiln_cdi::DeviceNode {
            kind: Some(NodeKind::Char),
            major: 9,
            minor: 1,
            ..node("/dev/not-there", None)
        };
        assert_eq!(device(&full, (0, 0)).unwrap().major, 9);
    }

    #[test]
    fn what_is_no_device_is_none() {
        let error = device(&node("/dev/x", Some("/etc")), (0, 0)).unwrap_err();
        assert_eq!(error.message, "/etc: not a device node");
        let blocks = kiln_cdi::DeviceNode { kind: Some(NodeKind::Block), ..node("/dev/null", None) };
        let error = device(&blocks, (0, 0)).unwrap_err();
        assert_eq!(error.message, "/dev/null: not a device of the type that is described");
        assert!(device(&node("/dev/not-there", None), (0, 0)).is_err());
    }

    #[tokio::test]
    async fn what_is_optional_may_be_missing() {
        let wanted = |optional| [CdiDevice { name: "v.com/d=x".into(), optional }];
        let none = Registry::default();
        assert_eq!(edits(&none, &wanted(true)).await.unwrap(), Edits::default());
        let error = edits(&none, &wanted(false)).await.unwrap_err();
        assert_eq!(
            error.message,
            "CDI device injection failed: required device \"v.com/d=x\" is not registered"
        );
    }
}
