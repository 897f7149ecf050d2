//! Hooks of the OCI runtime specification (config.md, "POSIX-platform Hooks"; runtime.md, "State" and "Lifecycle"):
//! programs that prepare a container, such as those of the vendors of devices.
//!
//! They are the machine's administrator's, never a build's: all but `startContainer` run with the rights of the daemon.

mod run;

pub(crate) use run::{Call, HookError, Stop, run_all};

use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

/// The version of the specification that states and configurations follow.
pub(crate) const OCI_VERSION: &str = "1.0.2";
/// Name of the root in a bundle.
pub(crate) const ROOTFS: &str = "rootfs";

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The program; absolute.
    pub path: PathBuf,
    /// Its arguments, the first of which is its name; empty is the path alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Its whole environment, as `NAME=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Seconds after which it is killed; `None` is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<NonZeroU32>,
}

/// The hooks of a container. One that fails fails the run, but for those of the end, whose failures are logged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// Before `create_runtime`; an old name for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prestart: Vec<Hook>,
    /// When everything is mounted, in the daemon's namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub create_runtime: Vec<Hook>,
    /// After those, in the container's namespaces; the machine's files are still there, and the root is a directory of
    /// the bundle.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub create_container: Vec<Hook>,
    /// Just before the process, as the process: the program is one of the root's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<Hook>,
    /// When the process runs, in the daemon's namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// When it has ended, in the daemon's namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

impl Hooks {
    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Hook> {
        let Hooks { prestart, create_runtime, create_container, start_container, poststart, poststop } = self;
        let lists = [prestart, create_runtime, create_container, start_container, poststart, poststop];
        lists.into_iter().flatten()
    }
}

/// When a hook is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Moment {
    /// What the state says of the container then.
    fn status(self) -> &'static str {
        match self {
            Moment::Prestart | Moment::CreateRuntime | Moment::CreateContainer => "creating",
            Moment::StartContainer => "created",
            Moment::Poststart => "running",
            Moment::Poststop => "stopped",
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Moment::Prestart => "prestart",
            Moment::CreateRuntime => "createRuntime",
            Moment::CreateContainer => "createContainer",
            Moment::StartContainer => "startContainer",
            Moment::Poststart => "poststart",
            Moment::Poststop => "poststop",
        })
    }
}

/// What hooks are told of the container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Container {
    pub(crate) id: String,
    /// The directory with `config.json` and the root.
    pub(crate) bundle: PathBuf,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    /// As the hook sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    bundle: &'a Path,
}

impl Container {
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.bundle.join(ROOTFS)
    }

    /// The state of the container as JSON.
    fn state(&self, moment: Moment, pid: Option<u32>) -> serde_json::Result<Vec<u8>> {
        let (id, bundle) = (self.id.as_str(), self.bundle.as_path());
        serde_json::to_vec(&State { oci_version: OCI_VERSION, id, status: moment.status(), pid, bundle })
    }
}
