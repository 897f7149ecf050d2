//! Exec operations from the wire.

use super::{OpError, optional};
use crate::op::*;
use kiln_proto::pb;

/// More mounts than any step has.
const MAX_MOUNTS: usize = 10_000;

pub(super) fn exec(e: pb::ExecOp, inputs: usize) -> Result<ExecOp, OpError> {
    let missing = |what| OpError::Missing { op: "exec", what };
    let meta = e.meta.ok_or(missing("meta"))?;
    if meta.args.is_empty() {
        return Err(missing("args"));
    }
    if e.mounts.is_empty() {
        return Err(missing("mounts"));
    }
    if e.mounts.len() > MAX_MOUNTS {
        return Err(OpError::TooMany { what: "mounts", count: e.mounts.len() });
    }
    let mounts = e.mounts.into_iter().map(|m| mount(m, inputs)).collect::<Result<Vec<_>, _>>()?;
    let root = mounts.iter().find(|m| m.dest == "/").ok_or(missing("rootfs"))?;
    if root.kind != MountKind::Bind {
        return Err(OpError::Unsupported("the root of an exec op must be a bind mount"));
    }
    check_outputs(&mounts)?;
    let secret = |s: pb::SecretEnv| SecretEnv { id: s.id, name: s.name, optional: s.optional };
    let device = |d: pb::CdiDevice| CdiDevice { name: d.name, optional: d.optional };
    Ok(ExecOp {
        meta: exec_meta(meta),
        mounts,
        network: net_mode(e.network)?,
        security: security_mode(e.security)?,
        secret_env: e.secretenv.into_iter().map(secret).collect(),
        cdi_devices: e.cdi_devices.into_iter().map(device).collect(),
    })
}

impl Mount {
    /// A mount of an interactive container. It may name a result in `result_id`; inputs and outputs mean nothing there.
    ///
    /// # Errors
    /// If a member is missing or out of range.
    pub fn from_container(m: pb::Mount) -> Result<Mount, OpError> {
        mount(pb::Mount { input: -1, output: -1, ..m }, 0)
    }
}

impl NetMode {
    /// From the number of the wire.
    ///
    /// # Errors
    /// If it has no meaning.
    pub fn from_wire(mode: i32) -> Result<NetMode, OpError> {
        net_mode(mode)
    }
}

impl SecurityMode {
    /// From the number of the wire.
    ///
    /// # Errors
    /// If it has no meaning: what is unknown is never taken for something less confined.
    pub fn from_wire(mode: i32) -> Result<SecurityMode, OpError> {
        security_mode(mode)
    }
}

fn check_outputs(mounts: &[Mount]) -> Result<(), OpError> {
    let outputs = mounts.iter().filter(|m| m.kind == MountKind::Bind).filter_map(|m| m.output);
    let mut seen = vec![false; mounts.len()];
    for o in outputs {
        match seen.get_mut(o) {
            Some(s) if !*s => *s = true,
            _ => {
                return Err(OpError::Outputs(format!(
                    "output {o} of an exec op is used twice or leaves a gap"
                )));
            }
        }
    }
    Ok(())
}

fn net_mode(v: i32) -> Result<NetMode, OpError> {
    Ok(match v {
        0 => NetMode::Default,
        1 => NetMode::Host,
        2 => NetMode::None,
        _ => return Err(OpError::Enum { what: "network mode", value: v.into() }),
    })
}

fn security_mode(v: i32) -> Result<SecurityMode, OpError> {
    Ok(match v {
        0 => SecurityMode::Sandbox,
        1 => SecurityMode::Insecure,
        _ => return Err(OpError::Enum { what: "security mode", value: v.into() }),
    })
}

fn exec_meta(m: pb::Meta) -> ExecMeta {
    let proxy = |p: pb::ProxyEnv| ProxyEnv {
        http_proxy: p.http_proxy,
        https_proxy: p.https_proxy,
        ftp_proxy: p.ftp_proxy,
        no_proxy: p.no_proxy,
        all_proxy: p.all_proxy,
    };
    ExecMeta {
        args: m.args,
        env: m.env,
        cwd: m.cwd,
        user: m.user,
        proxy_env: m.proxy_env.map(proxy),
        extra_hosts: m.extra_hosts.into_iter().map(|h| HostIp { host: h.host, ip: h.ip }).collect(),
        hostname: m.hostname,
        ulimits: m.ulimit.into_iter().map(|u| Ulimit { name: u.name, soft: u.soft, hard: u.hard }).collect(),
        cgroup_parent: m.cgroup_parent,
        remove_mount_stubs_recursive: m.remove_mount_stubs_recursive,
        valid_exit_codes: m.valid_exit_codes,
    }
}

fn mount(m: pb::Mount, inputs: usize) -> Result<Mount, OpError> {
    if m.dest.is_empty() {
        return Err(OpError::Missing { op: "exec", what: "mount destination" });
    }
    let content_cache = match m.content_cache {
        0 => ContentCache::Default,
        1 => ContentCache::On,
        2 => ContentCache::Off,
        v => return Err(OpError::Enum { what: "mount content cache", value: v.into() }),
    };
    let kind = kind(&m)?;
    let mut output = optional("mount output index", m.output, MAX_MOUNTS)?;
    if kind != MountKind::Bind {
        output = None;
    }
    Ok(Mount {
        input: optional("mount input index", m.input, inputs)?,
        selector: m.selector,
        dest: m.dest,
        output,
        readonly: m.readonly,
        kind,
        result_id: m.result_id,
        content_cache,
    })
}

fn kind(m: &pb::Mount) -> Result<MountKind, OpError> {
    let missing = |what| OpError::Missing { op: "exec", what };
    Ok(match m.mount_type {
        0 => MountKind::Bind,
        1 => {
            let s = m.secret_opt.clone().ok_or(missing("secret mount options"))?;
            MountKind::Secret(SecretOpt {
                id: s.id,
                uid: s.uid,
                gid: s.gid,
                mode: s.mode,
                optional: s.optional,
            })
        }
        2 => {
            let s = m.ssh_opt.clone().ok_or(missing("ssh mount options"))?;
            MountKind::Ssh(SshOpt { id: s.id, uid: s.uid, gid: s.gid, mode: s.mode, optional: s.optional })
        }
        3 => {
            let c = m.cache_opt.clone().ok_or(missing("cache mount options"))?;
            let sharing = match c.sharing {
                0 => CacheSharing::Shared,
                1 => CacheSharing::Private,
                2 => CacheSharing::Locked,
                v => return Err(OpError::Enum { what: "cache sharing mode", value: v.into() }),
            };
            MountKind::Cache { id: c.id, sharing }
        }
        4 => {
            let size = |t: &pb::TmpfsOpt| {
                u64::try_from(t.size).map_err(|_| OpError::Enum { what: "tmpfs size", value: t.size })
            };
            MountKind::Tmpfs { size: m.tmpfs_opt.as_ref().map(size).transpose()? }
        }
        v => return Err(OpError::Enum { what: "mount type", value: v.into() }),
    })
}
