//! The form of a specification file.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;

/// One file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spec {
    pub(crate) cdi_version: String,
    pub(crate) kind: String,
    pub(crate) annotations: BTreeMap<String, Scalar>,
    pub(crate) devices: Vec<SpecDevice>,
    pub(crate) container_edits: Edits,
}

/// One device of a file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SpecDevice {
    pub(crate) name: String,
    pub(crate) annotations: BTreeMap<String, Scalar>,
    pub(crate) container_edits: Edits,
}

/// What a process that uses a device is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Edits {
    /// Environment as `NAME=value`.
    pub env: Vec<String>,
    /// Nodes in `/dev`.
    pub device_nodes: Vec<DeviceNode>,
    /// Files and directories of the host.
    pub mounts: Vec<Mount>,
    /// Supplementary groups.
    #[serde(rename = "additionalGIDs", alias = "additionalGids")]
    pub additional_gids: Vec<u32>,
    /// Programs that are run as the container comes and goes.
    pub hooks: Vec<Hook>,
    /// Interfaces of the host's network; named only, because kiln does not move them.
    pub net_devices: Vec<NetDevice>,
    /// Resource control of Intel processors.
    pub intel_rdt: Option<IntelRdt>,
}

impl Edits {
    /// Adds what `other` gives.
    pub(crate) fn append(&mut self, other: &Self) {
        self.env.extend_from_slice(&other.env);
        self.device_nodes.extend_from_slice(&other.device_nodes);
        self.mounts.extend_from_slice(&other.mounts);
        self.additional_gids.extend_from_slice(&other.additional_gids);
        self.hooks.extend_from_slice(&other.hooks);
        self.net_devices.extend_from_slice(&other.net_devices);
        self.intel_rdt = self.intel_rdt.take().or(other.intel_rdt.clone());
    }

    /// What of these edits kiln cannot do, in words for people.
    pub fn unsupported(&self) -> Option<String> {
        if let Some(interface) = self.net_devices.first() {
            return Some(format!("network interface {}", interface.name));
        }
        self.mounts.iter().find_map(|mount| {
            let place = mount.container_path.display();
            if !matches!(mount.kind.as_str(), "" | "none" | "bind") {
                return Some(format!("mount {place} of type {:?}", mount.kind));
            }
            mount.unknown_option().map(|option| format!("option {option:?} of the mount {place}"))
        })
    }

    /// What no container could be given.
    pub(crate) fn check(&self) -> Result<(), String> {
        let no_variable = |v: &&String| v.find('=').is_none_or(|at| at == 0);
        let hook_env = self.hooks.iter().flat_map(|h| &h.env);
        if let Some(wrong) = self.env.iter().chain(hook_env).find(no_variable) {
            return Err(format!("invalid environment variable {wrong:?}"));
        }
        if let Some(hook) = self.hooks.iter().find(|h| !h.path.is_absolute()) {
            return Err(format!("hook {:?}: expected an absolute path", hook.path));
        }
        if self.device_nodes.iter().any(|d| d.path.as_os_str().is_empty()) {
            return Err("a device node without a path".into());
        }
        let no_paths =
            |m: &Mount| m.host_path.as_os_str().is_empty() || m.container_path.as_os_str().is_empty();
        if self.mounts.iter().any(no_paths) {
            return Err("a mount without a path".into());
        }
        match &self.intel_rdt {
            Some(rdt) => rdt.check(),
            None => Ok(()),
        }
    }
}

/// A node in `/dev`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceNode {
    /// Where the process sees it.
    pub path: PathBuf,
    /// Where it is on the host, if elsewhere.
    pub host_path: Option<PathBuf>,
    /// None is that of the host's node.
    #[serde(rename = "type", deserialize_with = "node_kind")]
    pub kind: Option<NodeKind>,
    /// With [`minor`](Self::minor) its number; 0 is that of the host's node.
    pub major: u32,
    /// Of its number.
    pub minor: u32,
    /// Permission bits; none is those of the host's node.
    pub file_mode: Option<u32>,
    /// What may be done with it.
    pub permissions: Permissions,
    /// Owner; none is whoever the process is.
    pub uid: Option<u32>,
    /// Group; none is that of the process.
    pub gid: Option<u32>,
}

/// What a device node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Blocks: `b`.
    Block,
    /// Characters: `c`, or `u`.
    Char,
    /// A named pipe, which needs no node on the host: `p`.
    Fifo,
}

/// An empty type is one that is not said.
fn node_kind<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<NodeKind>, D::Error> {
    let kind = match Option::<String>::deserialize(from)?.as_deref() {
        None | Some("") => return Ok(None),
        Some("b") => NodeKind::Block,
        Some("c" | "u") => NodeKind::Char,
        Some("p") => NodeKind::Fifo,
        Some(other) => {
            return Err(serde::de::Error::custom(format!("invalid type {other:?} of a device node")));
        }
    };
    Ok(Some(kind))
}

/// What may be done with a device, as in a device cgroup; written with the letters `rwm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Permissions {
    /// Open for reading.
    pub read: bool,
    /// Open for writing.
    pub write: bool,
    /// Make nodes of it.
    pub mknod: bool,
}

impl Default for Permissions {
    /// Everything.
    fn default() -> Self {
        Self { read: true, write: true, mknod: true }
    }
}

impl TryFrom<String> for Permissions {
    type Error = String;

    fn try_from(letters: String) -> Result<Self, String> {
        if letters.is_empty() {
            return Ok(Self::default());
        }
        if let Some(other) = letters.chars().find(|c| !"rwm".contains(*c)) {
            return Err(format!("invalid permissions {letters:?}: {other:?}"));
        }
        let has = |letter| letters.contains(letter);
        Ok(Self { read: has('r'), write: has('w'), mknod: has('m') })
    }
}

impl DeviceNode {
    /// Where it is on the host.
    pub fn host(&self) -> &std::path::Path {
        self.host_path.as_deref().unwrap_or(&self.path)
    }
}

/// A file or directory of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// Where it is on the host.
    pub host_path: PathBuf,
    /// Where the process sees it.
    pub container_path: PathBuf,
    /// As of mount(8).
    pub options: Vec<String>,
    /// Of filesystem; empty, `none` and `bind` are what is on the host.
    #[serde(rename = "type")]
    pub kind: String,
}

impl Mount {
    /// Whether it has this option.
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }

    /// The first option that means something here and is not one of those that are done, or change nothing for a
    /// process that cannot mount.
    fn unknown_option(&self) -> Option<&str> {
        const DONE: &[&str] = &["ro", "bind", "rbind", "nosuid", "nodev", "noexec"];
        const NOTHING: &[&str] = &[
            "",
            "defaults",
            "rw",
            "suid",
            "dev",
            "exec",
            "private",
            "rprivate",
            "slave",
            "rslave",
            "async",
            "relatime",
            "norelatime",
            "atime",
            "noatime",
            "strictatime",
            "nostrictatime",
            "diratime",
            "nodiratime",
        ];
        self.options.iter().map(String::as_str).find(|o| !DONE.contains(o) && !NOTHING.contains(o))
    }
}

/// A program that is run as the container comes and goes (the OCI runtime specification, config.md, "POSIX-platform
/// Hooks").
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// When it is run.
    pub hook_name: HookName,
    /// The program; absolute.
    pub path: PathBuf,
    /// Its arguments, the first of which is its name; empty is the path alone.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its whole environment, as `NAME=value`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Seconds after which it is killed; none is never.
    #[serde(default)]
    pub timeout: Option<NonZeroU32>,
}

/// When a hook is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HookName {
    /// With `createRuntime`, before it; an old name.
    Prestart,
    /// When the container has been made, where the runtime is.
    CreateRuntime,
    /// After that, in the container's namespaces, before its root is the root.
    CreateContainer,
    /// In the container, just before its process; the program is one of the container's.
    StartContainer,
    /// When its process runs, where the runtime is.
    Poststart,
    /// When it has ended, where the runtime is.
    Poststop,
}

/// An interface of the host's network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NetDevice {
    /// Its name there.
    pub name: String,
}

/// Resource control of Intel processors, as in the OCI runtime specification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IntelRdt {
    /// Name of the class of service.
    #[serde(rename = "closID")]
    pub clos_id: String,
    /// Lines of its `schemata` about caches.
    pub l3_cache_schema: String,
    /// Its line about memory bandwidth.
    pub mem_bw_schema: String,
    /// All its lines.
    pub schemata: Vec<String>,
    /// Watch cache and bandwidth.
    pub enable_monitoring: bool,
}

impl IntelRdt {
    /// A class is a directory; `/` is the one of everybody.
    fn check(&self) -> Result<(), String> {
        let id = self.clos_id.as_str();
        let is_name = id.len() < 4096 && id != "." && id != ".." && !id.contains(['/', '\n']);
        if is_name || id == "/" { Ok(()) } else { Err(format!("invalid closID {id:?}")) }
    }
}

/// A text that people write without quotes: `true`, `1`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Scalar {
    Bool(bool),
    Number(i64),
    Text(String),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(b) => b.fmt(f),
            Self::Number(n) => n.fmt(f),
            Self::Text(t) => t.fmt(f),
        }
    }
}
