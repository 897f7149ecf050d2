//! The form of a specification file.

use serde::Deserialize;
use std::collections::BTreeMap;
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
    /// Programs of the host that a container runtime would run; named only, because kiln does not run them.
    pub hooks: Vec<Hook>,
    /// Interfaces of the host's network; likewise.
    pub net_devices: Vec<NetDevice>,
    /// Resource control of Intel processors; likewise.
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
        if let Some(hook) = self.hooks.first() {
            return Some(format!("hook {} ({})", hook.hook_name, hook.path.display()));
        }
        if let Some(interface) = self.net_devices.first() {
            return Some(format!("network interface {}", interface.name));
        }
        if self.intel_rdt.is_some() {
            return Some("intelRdt".into());
        }
        let device =
            |d: &DeviceNode| Some(format!("{} for the device node {}", d.unsupported()?, d.path.display()));
        let mount = |m: &Mount| {
            let plain = matches!(m.kind.as_str(), "" | "none" | "bind");
            (!plain).then(|| format!("mount {} of type {:?}", m.container_path.display(), m.kind))
        };
        self.device_nodes.iter().find_map(device).or_else(|| self.mounts.iter().find_map(mount))
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
    /// `b`, `c` or `u`; empty is that of the host's node.
    #[serde(rename = "type")]
    pub kind: String,
    /// With [`minor`](Self::minor) its number; 0 is that of the host's node.
    pub major: u32,
    /// Of its number.
    pub minor: u32,
    /// Permission bits; none is 0666.
    pub file_mode: Option<u32>,
    /// What may be done with it, of `rwm`; empty is everything.
    pub permissions: String,
    /// Owner; none is whoever the process is.
    pub uid: Option<u32>,
    /// Group; none is that of the process.
    pub gid: Option<u32>,
}

impl DeviceNode {
    fn unsupported(&self) -> Option<String> {
        if !matches!(self.kind.as_str(), "" | "b" | "c" | "u") {
            return Some(format!("type {:?}", self.kind));
        }
        let all = self.permissions.contains('r') && self.permissions.contains('w');
        (!all && !self.permissions.is_empty()).then(|| format!("permissions {:?}", self.permissions))
    }

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
    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        self.options.iter().any(|o| o == "ro")
    }
}

/// A program of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hook {
    /// When it would run.
    pub hook_name: String,
    /// The program.
    pub path: PathBuf,
}

/// An interface of the host's network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NetDevice {
    /// Its name there.
    pub name: String,
}

/// Resource control; what it would be is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct IntelRdt {}

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
