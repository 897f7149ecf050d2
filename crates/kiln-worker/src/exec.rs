//! Exec: one process in a sandbox, on mounts made of snapshots.

mod devices;
mod mounts;
mod output;

use crate::egress::{self, Egress, OfJobs};
use crate::env::environment;
use crate::hosts::{hosts_file, resolv_conf};
use crate::result::Ref;
use crate::stubs::Stubs;
use crate::{Cx, Failure, Inner, Worker};
use kiln_cdi::Edits;
use kiln_fs::{Root, users};
use kiln_llb::errdefs::{BuildError, Detail};
use kiln_llb::{ExecOp, HostIp, LinuxResources, NetMode, SecurityMode, Vertex, mask_credentials};
use kiln_sandbox::{
    ExitStatus, MountKind, Network, ProcessSpec, ProgramSpec, Resources, SandboxError, SandboxMount,
    Security, Ulimit,
};
use kiln_solver::Stream;
pub(crate) use mounts::{Plan, Prepared, Sessions};
use std::path::PathBuf;
use std::sync::Arc;

/// The hostname of steps that name none.
pub(crate) const DEFAULT_HOSTNAME: &str = "buildkitsandbox";
const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// Runs the step and commits its outputs.
pub(crate) async fn exec(
    worker: &Worker,
    cx: &Cx,
    vertex: &Vertex,
    op: &ExecOp,
    inputs: Vec<Ref>,
) -> Result<Vec<Ref>, Failure> {
    let inner = &worker.0;
    let devices = devices::edits(&inner.devices, &op.cdi_devices).await?;
    let command = op.meta.args.join(" ");
    let plan = Plan {
        mounts: &op.mounts,
        inputs: &inputs,
        cwd: &op.meta.cwd,
        whose: &format!("exec {}", mask_credentials(&command)),
        sessions: &|| inner.session_ids(cx),
    };
    let mut prepared = crate::ops::wanted(cx, Prepared::new(worker, plan)).await?;
    let names = prepared.sandbox_paths().chain([RESOLV_CONF, HOSTS]).chain(devices::paths(&devices));
    let stubs = Stubs::note(prepared.root().root(), names, op.meta.remove_mount_stubs_recursive);
    let (egress, network) = network_of(worker, cx, vertex, op, prepared.root().root()).await?;
    let spec = spec(inner, cx, vertex, op, devices, &mut prepared, network).await?;
    let mut ended = run(inner, cx, spec).await;
    if let Some(egress) = egress {
        let closed = close(inner, cx, vertex, egress, prepared.root().root()).await;
        ended = ended.and_then(|status| closed.map(|()| status));
    }
    stubs.remove(prepared.root().root());
    match check(op, ended) {
        Ok(()) => Ok(prepared.commit().await?),
        Err(error) if error.is_canceled() => Err(error.into()),
        Err(error) => Err(Failure { error, left: prepared.left(worker, op, &inputs).await.map(Arc::new) }),
    }
}

async fn spec(
    inner: &Inner,
    cx: &Cx,
    vertex: &Vertex,
    op: &ExecOp,
    devices: Edits,
    prepared: &mut Prepared,
    network: Network,
) -> Result<ProcessSpec, BuildError> {
    let meta = &op.meta;
    let root = prepared.root().root();
    let user = users::exec_user(root, &meta.user).map_err(|e| BuildError::msg(e.to_string()))?;
    let hostname = if meta.hostname.is_empty() { DEFAULT_HOSTNAME } else { &meta.hostname };
    let secrets = crate::secrets::environment(inner, &|| inner.session_ids(cx), &op.secret_env).await?;
    let id = format!("{}-{:08x}", vertex.digest.short(), rand::random::<u32>());
    let mut program = ProgramSpec::new(meta.args.iter().map(Into::into).collect());
    program.env = environment(meta, secrets);
    program.cwd = PathBuf::from(&meta.cwd);
    (program.uid, program.gid, program.additional_gids) = (user.uid, user.gid, user.groups());
    program.security = security(op.security);
    program.ulimits = meta.ulimits.iter().map(ulimit).collect();
    let mut spec = ProcessSpec::new(id, prepared.root().tree_fd().map_err(failed)?, program);
    spec.read_only_root = prepared.read_only_root;
    spec.mounts = name_files(inner, hostname, &network, &meta.extra_hosts).into();
    devices::give(devices, &mut spec)?;
    // Over those of the devices.
    spec.mounts.append(&mut prepared.sandbox);
    spec.hostname = hostname.to_string();
    spec.network = network;
    if vertex.proxied {
        egress::set_variables(&mut spec.program.env);
    }
    spec.resources = vertex.metadata.linux_resources.as_ref().map(resources).unwrap_or_default();
    let parent = Some(meta.cgroup_parent.clone()).filter(|p| !p.is_empty());
    spec.cgroup_parent = parent.or_else(|| inner.cgroup_parent.clone());
    Ok(spec)
}

/// The network of a step, with the proxy in it if it is a proxied one.
async fn network_of(
    worker: &Worker,
    cx: &Cx,
    vertex: &Vertex,
    op: &ExecOp,
    root: &Root,
) -> Result<(Option<Egress>, Network), BuildError> {
    if !vertex.proxied {
        return Ok((None, network(op.network)));
    }
    let policy = Arc::new(OfJobs { worker: worker.clone(), jobs: cx.jobs.clone() });
    let (egress, network) = Egress::open(&worker.0, policy, root).await?;
    Ok((Some(egress), network))
}

/// Ends the proxy of a step, and tells what went through it.
async fn close(
    inner: &Inner,
    cx: &Cx,
    vertex: &Vertex,
    egress: Egress,
    root: &Root,
) -> Result<(), BuildError> {
    let (record, closed) = egress.close(root).await;
    let log = record.log();
    if !log.is_empty() {
        cx.progress.log(Stream::Stderr, log.as_bytes());
    }
    let record = Arc::new(record);
    for job in cx.jobs.ids() {
        inner.job_sessions.fetched(&job, &vertex.digest, &record);
    }
    closed
}

pub(crate) fn network(mode: NetMode) -> Network {
    match mode {
        NetMode::None => Network::None,
        NetMode::Default | NetMode::Host => Network::Host,
    }
}

pub(crate) fn security(mode: SecurityMode) -> Security {
    match mode {
        SecurityMode::Sandbox => Security::Sandbox,
        SecurityMode::Insecure => Security::Insecure,
    }
}

pub(crate) fn ulimit(limit: &kiln_llb::Ulimit) -> Ulimit {
    Ulimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard }
}

/// `/etc/resolv.conf` and `/etc/hosts`.
pub(crate) fn name_files(
    inner: &Inner,
    hostname: &str,
    network: &Network,
    extra: &[HostIp],
) -> [SandboxMount; 2] {
    let extra = extra.iter().map(|h| (h.host.as_str(), h.ip.as_str()));
    let host = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    [
        plain_file(RESOLV_CONF, resolv_conf(&host, &inner.dns, matches!(network, Network::Host))),
        plain_file(HOSTS, hosts_file(hostname, extra)),
    ]
}

fn plain_file(dest: &str, text: String) -> SandboxMount {
    let kind = MountKind::File { contents: text.into_bytes(), mode: 0o644, uid: 0, gid: 0 };
    SandboxMount { dest: dest.into(), kind }
}

fn resources(r: &LinuxResources) -> Resources {
    let some = |n: i64| Some(n).filter(|n| *n != 0);
    let text = |t: &str| Some(t.to_string()).filter(|t| !t.is_empty());
    Resources {
        memory: some(r.memory),
        memory_swap: some(r.memory_swap),
        cpu_shares: Some(r.cpu_shares).filter(|n| *n != 0),
        cpu_quota: some(r.cpu_quota),
        cpu_period: Some(r.cpu_period).filter(|n| *n != 0),
        cpuset_cpus: text(&r.cpuset_cpus),
        cpuset_mems: text(&r.cpuset_mems),
        pids: None,
    }
}

/// Runs to the end, passing output on as it comes. Cancellation kills every process of the step.
async fn run(inner: &Inner, cx: &Cx, spec: ProcessSpec) -> Result<ExitStatus, BuildError> {
    let (stdio, mut output) =
        output::pipes(cx).map_err(|e| failed(e).context("make pipes for the step's output"))?;
    let process = inner.executor.run(spec, stdio).await.map_err(not_run)?;
    let ended = tokio::select! {
        ended = process.wait() => ended,
        () = cx.cancel.cancelled() => {
            process.kill(9).map_err(not_run)?;
            process.wait().await
        }
    };
    output.finish().await;
    if cx.cancel.is_cancelled() {
        return Err(BuildError::canceled());
    }
    ended.map_err(not_run)
}

/// The process never got to its own code.
pub(crate) fn not_run(error: SandboxError) -> BuildError {
    let failed = BuildError::msg(error.to_string());
    match error {
        SandboxError::Exec(e) => failed.wrap(Detail::ExitCode(e.exit_code().unsigned_abs())),
        _ => failed,
    }
}

/// Exit code 0, or one that the step allows.
fn check(op: &ExecOp, ended: Result<ExitStatus, BuildError>) -> Result<(), BuildError> {
    let result = match ended {
        Ok(status) if op.meta.valid_exit_codes.is_empty() && status.success() => Ok(()),
        Ok(status) if op.meta.valid_exit_codes.contains(&status.code()) => Ok(()),
        Ok(status) => {
            let code = status.code();
            Err(BuildError::msg(format!("exit code: {code}")).wrap(Detail::ExitCode(code.unsigned_abs())))
        }
        Err(error) => Err(error),
    };
    result.map_err(|error| {
        if error.is_canceled() {
            return error;
        }
        let args = op.meta.args.join(" ");
        let process = mask_credentials(&args);
        error.context(format!("process {process:?} did not complete successfully"))
    })
}

/// Any failure of snapshots as the step's own.
pub(crate) fn failed(error: impl std::fmt::Display) -> BuildError {
    BuildError::msg(error.to_string())
}
