//! Devices of the machine that a step uses: what it is given for them.

use kiln_cdi::{Edits, Registry, Request};
use kiln_llb::CdiDevice;
use kiln_llb::errdefs::{BuildError, Code};
use kiln_sandbox::{DeviceNode, MountKind, ProcessSpec, SandboxMount};
use rustix::fs::{FileType, Mode, OFlags};
use std::path::Path;

/// Permission bits of a node whose description has none.
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
pub(super) fn give(edits: &Edits, spec: &mut ProcessSpec) -> Result<(), BuildError> {
    for variable in &edits.env {
        let name = variable.split('=').next().unwrap_or_default();
        let same = |v: &&mut String| v.split('=').next() == Some(name);
        match spec.program.env.iter_mut().find(same) {
            Some(set) => set.clone_from(variable),
            None => spec.program.env.push(variable.clone()),
        }
    }
    for gid in edits.additional_gids.iter().filter(|gid| **gid != 0) {
        if !spec.program.additional_gids.contains(gid) {
            spec.program.additional_gids.push(*gid);
        }
    }
    for mount in &edits.mounts {
        let fd = rustix::fs::open(&mount.host_path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let fd = fd.map_err(|e| injection(super::failed(format!("{}: {e}", mount.host_path.display()))))?;
        let kind = MountKind::Bind { fd, read_only: mount.read_only() };
        spec.mounts.push(SandboxMount { dest: mount.container_path.clone(), kind });
    }
    for node in &edits.device_nodes {
        let kind = MountKind::Device(device(node, (spec.program.uid, spec.program.gid)).map_err(injection)?);
        spec.mounts.push(SandboxMount { dest: node.path.clone(), kind });
    }
    Ok(())
}

/// The node as described; what is not described is that of the host's node, and the owner is the process.
fn device(node: &kiln_cdi::DeviceNode, process: (u32, u32)) -> Result<DeviceNode, BuildError> {
    let described = if node.kind.is_empty() || node.major == 0 { None } else { Some(node.kind == "b") };
    let (block, major, minor) = match described {
        Some(block) => (block, node.major, node.minor),
        None => {
            let (block, major, minor) = host_node(node.host())?;
            let differs = !node.kind.is_empty() && (node.kind == "b") != block;
            if differs {
                let host = node.host().display();
                return Err(BuildError::msg(format!("{host}: not a device of type {:?}", node.kind)));
            }
            if node.major == 0 { (block, major, minor) } else { (block, node.major, node.minor) }
        }
    };
    Ok(DeviceNode {
        block,
        major,
        minor,
        mode: node.file_mode.unwrap_or(MODE),
        uid: node.uid.unwrap_or(process.0),
        gid: node.gid.unwrap_or(process.1),
    })
}

fn host_node(path: &Path) -> Result<(bool, u32, u32), BuildError> {
    let stat = rustix::fs::stat(path).map_err(|e| super::failed(format!("{}: {e}", path.display())))?;
    let block = match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => true,
        FileType::CharacterDevice => false,
        _ => return Err(BuildError::msg(format!("{}: not a device node", path.display()))),
    };
    Ok((block, rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)))
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
            kind: "b".into(),
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
        give(&edits, &mut spec).unwrap();
        assert_eq!(spec.program.env, ["A=1", "B=2=3", "C=4"]);
        assert_eq!(spec.program.additional_gids, [44]);
        let nodes: Vec<String> = spec.mounts.iter().map(|m| format!("{m:?}")).collect();
        assert!(
            nodes[0].contains("block: false, major: 1, minor: 3, mode: 438, uid: 1000, gid: 1000"),
            "{nodes:?}"
        );
        assert!(
            nodes[1].contains("block: true, major: 7, minor: 9, mode: 384, uid: 0, gid: 1000"),
            "{nodes:?}"
        );
    }

    #[test]
    fn what_is_no_device_is_none() {
        let error = device(&node("/dev/x", Some("/etc")), (0, 0)).unwrap_err();
        assert_eq!(error.message, "/etc: not a device node");
        let blocks = kiln_cdi::DeviceNode { kind: "b".into(), ..node("/dev/null", None) };
        let error = device(&blocks, (0, 0)).unwrap_err();
        assert_eq!(error.message, "/dev/null: not a device of type \"b\"");
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
