//! Execs: mounts are sorted, their inputs and outputs numbered.

use super::{Constraints, Output};
use crate::op::*;

/// A process to run.
#[derive(Clone, Debug, Default)]
pub struct ExecSpec {
    /// Everything about the process itself.
    pub meta: ExecMeta,
    /// Its root.
    pub root: Option<Output>,
    /// The root cannot be written; the result is the root as it was.
    pub readonly_root: bool,
    /// Mounts besides the root.
    pub mounts: Vec<MountSpec>,
    /// Secrets, in order.
    pub secrets: Vec<SecretSpec>,
    /// Agents, in order.
    pub ssh: Vec<SshSpec>,
    /// Network.
    pub network: NetMode,
    /// Confinement.
    pub security: SecurityMode,
    /// Devices.
    pub cdi_devices: Vec<CdiDevice>,
}

/// A mount of a process.
#[derive(Clone, Debug, Default)]
pub struct MountSpec {
    /// Where.
    pub target: String,
    /// What; `None` is scratch.
    pub source: Option<Output>,
    /// Path below the source; empty for all.
    pub selector: String,
    /// No writes.
    pub readonly: bool,
    /// Writes are thrown away.
    pub no_output: bool,
    /// Which kind.
    pub what: MountWhat,
}

/// Kinds of [`MountSpec`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MountWhat {
    /// The source.
    #[default]
    Bind,
    /// A directory kept between builds.
    Cache {
        /// Name.
        id: String,
        /// What happens when two steps use it.
        sharing: CacheSharing,
    },
    /// A memory filesystem.
    Tmpfs {
        /// Bytes, 0 for the default.
        size: u64,
    },
}

/// A secret for a process.
#[derive(Clone, Debug, Default)]
pub struct SecretSpec {
    /// What the client is asked for.
    pub id: String,
    /// As a file at this path.
    pub target: Option<String>,
    /// As this variable.
    pub env: Option<String>,
    /// Attributes of the file.
    pub uid: u32,
    /// Attributes of the file.
    pub gid: u32,
    /// Attributes of the file.
    pub mode: u32,
    /// A missing one is skipped.
    pub optional: bool,
}

/// A forwarded ssh agent.
#[derive(Clone, Debug, Default)]
pub struct SshSpec {
    /// Which agent; empty for the default one.
    pub id: String,
    /// Path of the socket; empty for `/run/buildkit/ssh_agent.<n>`.
    pub target: String,
    /// Attributes of the socket.
    pub uid: u32,
    /// Attributes of the socket.
    pub gid: u32,
    /// Attributes of the socket.
    pub mode: u32,
    /// A missing one is skipped.
    pub optional: bool,
}

impl MountSpec {
    fn has_output(&self) -> bool {
        !self.no_output && !self.readonly && self.what == MountWhat::Bind
    }
}

pub(super) fn add_caps(spec: &ExecSpec, c: &mut Constraints) {
    c.need("exec.meta.base");
    c.need("exec.meta.setsdefaultpath");
    let wanted = [
        (!spec.meta.valid_exit_codes.is_empty(), "exec.validexitcode"),
        (!spec.meta.ulimits.is_empty(), "exec.meta.ulimit"),
        (c.metadata.linux_resources.is_some(), "exec.meta.linux.resources"),
        (spec.network != NetMode::Default, "exec.meta.network"),
        (spec.security == SecurityMode::Insecure, "exec.meta.security"),
        (spec.meta.proxy_env.is_some(), "exec.meta.proxyenv"),
        (!spec.secrets.is_empty(), "exec.mount.secret"),
        (spec.secrets.iter().any(|s| s.env.is_some()), "exec.secretenv"),
        (!spec.ssh.is_empty(), "exec.mount.ssh"),
        (!spec.cdi_devices.is_empty(), "exec.meta.cdi"),
        (spec.root.is_some(), "exec.mount.bind"),
    ];
    for (_, cap) in wanted.into_iter().filter(|(on, _)| *on) {
        c.need(cap);
    }
    for m in &spec.mounts {
        if !m.selector.is_empty() {
            c.need("exec.mount.selector");
        }
        match &m.what {
            MountWhat::Cache { .. } => {
                c.need("exec.mount.cache");
                c.need("exec.mount.cache.sharing");
            }
            MountWhat::Tmpfs { size } => {
                c.need("exec.mount.tmpfs");
                if *size > 0 {
                    c.need("exec.mount.tmpfs.size");
                }
            }
            MountWhat::Bind if m.source.is_some() => c.need("exec.mount.bind"),
            MountWhat::Bind => {}
        }
    }
}

/// All mounts with the root, in the order of the wire.
pub(super) fn sorted_mounts(spec: &ExecSpec) -> Vec<MountSpec> {
    let root = MountSpec {
        target: "/".to_string(),
        source: spec.root,
        readonly: spec.readonly_root,
        ..Default::default()
    };
    let mut mounts = vec![root];
    mounts.extend(spec.mounts.iter().cloned());
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    mounts
}

/// The number of the root among the results.
pub(super) fn root_output(spec: &ExecSpec) -> usize {
    spec.mounts.iter().filter(|m| m.has_output() && m.target.as_str() < "/").count()
}

/// The operation. `input` gives the index of an input for an output, adding it when it is new.
pub(super) fn op(spec: &ExecSpec, mut input: impl FnMut(Option<Output>) -> Option<usize>) -> ExecOp {
    let mut meta = spec.meta.clone();
    meta.remove_mount_stubs_recursive = true;
    let ssh = ssh_with_targets(&spec.ssh);
    if let Some(first) = ssh.first()
        && !meta.env.iter().any(|e| e.starts_with("SSH_AUTH_SOCK="))
    {
        meta.env.push(format!("SSH_AUTH_SOCK={}", first.target));
    }
    let mut outputs = 0;
    let mut mounts: Vec<Mount> = Vec::new();
    for m in sorted_mounts(spec) {
        let output = m.has_output().then(|| {
            outputs += 1;
            outputs - 1
        });
        let kind = match m.what {
            MountWhat::Bind => MountKind::Bind,
            MountWhat::Cache { id, sharing } => MountKind::Cache { id, sharing },
            MountWhat::Tmpfs { size } => MountKind::Tmpfs { size: Some(size) },
        };
        mounts.push(Mount {
            input: input(m.source),
            selector: m.selector,
            dest: m.target,
            output,
            readonly: m.readonly,
            kind,
            ..Default::default()
        });
    }
    let secret_env = spec
        .secrets
        .iter()
        .filter_map(|s| Some(SecretEnv { id: s.id.clone(), name: s.env.clone()?, optional: s.optional }));
    mounts.extend(spec.secrets.iter().filter_map(secret_mount));
    mounts.extend(ssh.into_iter().map(ssh_mount));
    ExecOp {
        meta,
        mounts,
        network: spec.network,
        security: spec.security,
        secret_env: secret_env.collect(),
        cdi_devices: spec.cdi_devices.clone(),
    }
}

fn ssh_with_targets(ssh: &[SshSpec]) -> Vec<SshSpec> {
    let named = |(i, s): (usize, &SshSpec)| {
        let target =
            if s.target.is_empty() { format!("/run/buildkit/ssh_agent.{i}") } else { s.target.clone() };
        SshSpec { target, ..s.clone() }
    };
    ssh.iter().enumerate().map(named).collect()
}

fn secret_mount(s: &SecretSpec) -> Option<Mount> {
    let opt = SecretOpt { id: s.id.clone(), uid: s.uid, gid: s.gid, mode: s.mode, optional: s.optional };
    Some(Mount { dest: s.target.clone()?, kind: MountKind::Secret(opt), ..Default::default() })
}

fn ssh_mount(s: SshSpec) -> Mount {
    let opt = SshOpt { id: s.id, uid: s.uid, gid: s.gid, mode: s.mode, optional: s.optional };
    Mount { dest: s.target, kind: MountKind::Ssh(opt), ..Default::default() }
}
