//! Containers: several processes in one sandbox, on mounts made of results (spec wire.md section 3).
//!
//! The first process is process 1 of the sandbox, later ones join it. What they write goes to scratch copies that
//! nobody keeps (cache mounts excepted).

mod io;
mod process;

pub use io::{ProcessIo, Wanted};
pub use process::ContainerProcess;

use crate::egress::{self, Egress};
use crate::env::environment;
use crate::exec::{self, Plan, Prepared};
use crate::{Ref, SessionIds, Worker};
use kiln_fs::users::{self, ExecUser};
use kiln_llb::errdefs::{BuildError, Code};
use kiln_llb::{ExecMeta, HostIp, Mount, NetMode, SecretEnv, SecurityMode, Ulimit};
use kiln_proxy::Policy;
use kiln_sandbox::{MountKind, Network, Process, ProcessSpec, ProgramSpec, SandboxMount, TerminalSize};
use kiln_snapshot::Mounted;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// `PATH` of processes for Windows that set none, as BuildKit has it.
const WINDOWS_PATH: &str = r"c:\Windows\System32;c:\Windows;C:\Windows\System32\WindowsPowerShell\v1.0";
/// The size of a terminal until the client says another.
const FIRST_SIZE: TerminalSize = TerminalSize { rows: 24, columns: 80 };

/// What a container is made of.
#[derive(Clone, Debug, Default)]
pub struct ContainerSpec {
    /// What it is called in logs and descriptions of snapshots.
    pub name: String,
    /// The mounts; one is the root. Their inputs number `refs`. Outputs are not looked at.
    pub mounts: Vec<Mount>,
    /// Results to be mounted. None may be lazy.
    pub refs: Vec<Ref>,
    /// More files, kept in memory, read-only.
    pub files: Vec<ContainerFile>,
    /// What it sees of the network. The caller has checked that it may.
    pub network: NetMode,
    /// It sees the proxied network instead, if it sees any, and this decides what may be fetched.
    pub proxied: Option<Arc<dyn Policy>>,
    /// Lines for its hosts file.
    pub extra_hosts: Vec<HostIp>,
    /// Its host name; empty is the default of steps.
    pub hostname: String,
    /// The operating system whose `PATH` is set where there is none; empty is Linux.
    pub os: String,
}

/// A file in a container, owned by root.
#[derive(Clone, Debug)]
pub struct ContainerFile {
    /// Absolute path.
    pub dest: PathBuf,
    /// The bytes.
    pub contents: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// A process to start.
#[derive(Clone, Debug, Default)]
pub struct StartSpec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Environment as `NAME=value`.
    pub env: Vec<String>,
    /// Secrets given as variables.
    pub secret_env: Vec<SecretEnv>,
    /// User as in images: a name or number, with a group after a colon; empty is root.
    pub user: String,
    /// Working directory; empty is `/`.
    pub cwd: String,
    /// How far it is confined; never less than the first process. The caller has checked that it may.
    pub security: SecurityMode,
    /// Limits.
    pub ulimits: Vec<Ulimit>,
    /// Which streams it has.
    pub io: Wanted,
}

/// A container. Clones are the same; when the last one goes, everything in it is killed.
#[derive(Clone)]
pub struct Container(Arc<Inner>);

struct Inner {
    worker: Worker,
    sessions: SessionIds,
    spec: ContainerSpec,
    views: Vec<Option<Mounted>>,
    first: tokio::sync::Mutex<First>,
    /// Dropped after the processes: they use it.
    prepared: Mutex<Option<Prepared>>,
    /// Its way out, from the first process on.
    egress: Mutex<Option<Egress>>,
    released: CancellationToken,
}

/// The process that the others join.
enum First {
    None,
    Some(Arc<Process>),
    /// It could not be started; the mounts are used up.
    Failed,
}

impl Worker {
    /// Mounts everything. `sessions` are asked for secrets and agents, also later.
    ///
    /// # Errors
    /// If a mount cannot be made, or none is the root.
    pub async fn new_container(
        &self,
        mut spec: ContainerSpec,
        sessions: SessionIds,
    ) -> Result<Container, BuildError> {
        let whose = format!("container {}", spec.name);
        for mount in &mut spec.mounts {
            // What is written is of no use to anybody else.
            mount.output = None;
        }
        if spec.mounts.iter().any(|m| m.dest == "/" && m.kind != kiln_llb::MountKind::Bind) {
            return Err(BuildError::new(
                Code::InvalidArgument,
                "the root of a container must be a bind mount",
            ));
        }
        let ask = sessions.clone();
        let plan = Plan {
            mounts: &spec.mounts,
            inputs: &spec.refs,
            cwd: "/",
            whose: &whose,
            sessions: &move || ask(),
        };
        let prepared = Prepared::new(self, plan).await?;
        Ok(Container(Arc::new(Inner {
            worker: self.clone(),
            sessions,
            views: prepared.views.clone(),
            spec,
            first: tokio::sync::Mutex::new(First::None),
            prepared: Mutex::new(Some(prepared)),
            egress: Mutex::default(),
            released: CancellationToken::new(),
        })))
    }
}

impl Container {
    /// Starts a process. Dropping the answer kills it; when it is the first one, all others with it.
    ///
    /// # Errors
    /// If it cannot be started or the container was released. A missing program is told by
    /// [`ContainerProcess::wait`].
    pub async fn start(&self, spec: StartSpec) -> Result<(ContainerProcess, ProcessIo), BuildError> {
        let started = self.0.released.run_until_cancelled(self.begin(spec)).await;
        started.unwrap_or_else(|| Err(BuildError::canceled()))
    }

    async fn begin(&self, spec: StartSpec) -> Result<(ContainerProcess, ProcessIo), BuildError> {
        let inner = &*self.0;
        let join = self.program_spec(&spec).await?;
        let (stdio, pipes) = io::pipes(spec.io).map_err(|e| exec::failed(e).context("make pipes"))?;
        let mut first = inner.first.lock().await;
        let mut process = match &*first {
            First::None => {
                let network = self.network().await?;
                let run = self.process_spec(join, network)?;
                *first = First::Failed;
                inner.worker.0.executor.run(run, stdio).await
            }
            First::Some(running) => running.join(join, stdio).await,
            First::Failed => {
                return Err(BuildError::msg(
                    "the container is not running: its first process failed to start",
                ));
            }
        }
        .map_err(exec::not_run)?;
        let terminal = process.take_terminal();
        let process = Arc::new(process);
        if let First::Failed = &*first {
            *first = First::Some(process.clone());
        }
        drop(first);
        let process = ContainerProcess::new(process, inner.released.clone());
        let io = pipes.with_terminal(terminal).map_err(|e| exec::failed(e).context("open the terminal"))?;
        Ok((process, io))
    }

    /// The policy, if it has the proxied network.
    fn proxied(&self) -> Option<&Arc<dyn Policy>> {
        self.0.spec.proxied.as_ref().filter(|_| self.0.spec.network != NetMode::None)
    }

    async fn network(&self) -> Result<Network, BuildError> {
        let inner = &*self.0;
        let Some(policy) = self.proxied() else { return Ok(exec::network(inner.spec.network)) };
        // What is written to the root is dropped with the container: the certificate need not be removed.
        let (egress, network) = Egress::open(&inner.worker.0, policy.clone(), self.root()?.root()).await?;
        *inner.egress.lock().unwrap_or_else(PoisonError::into_inner) = Some(egress);
        Ok(network)
    }

    fn root(&self) -> Result<Mounted, BuildError> {
        let prepared = self.0.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(prepared.as_ref().ok_or_else(BuildError::canceled)?.root().clone())
    }

    async fn program_spec(&self, spec: &StartSpec) -> Result<ProgramSpec, BuildError> {
        let inner = &*self.0;
        let user = self.user(&spec.user)?;
        let sessions = &inner.sessions;
        let secrets = crate::secrets::environment(&inner.worker.0, &|| sessions(), &spec.secret_env).await?;
        let mut env = spec.env.clone();
        let has = |env: &[String], name: &str| env.iter().any(|v| v.starts_with(name));
        if inner.spec.os == "windows" && !has(&env, "PATH=") {
            env.push(format!("PATH={WINDOWS_PATH}"));
        }
        if spec.io.terminal && !has(&env, "TERM=") {
            env.push("TERM=xterm".into());
        }
        let mut program = ProgramSpec::new(spec.args.clone());
        program.env = environment(&ExecMeta { env, ..ExecMeta::default() }, secrets);
        if self.proxied().is_some() {
            egress::set_variables(&mut program.env);
        }
        program.cwd = PathBuf::from("/").join(&spec.cwd);
        (program.uid, program.gid, program.additional_gids) = (user.uid, user.gid, user.groups());
        program.security = exec::security(spec.security);
        program.ulimits = spec.ulimits.iter().map(exec::ulimit).collect();
        program.tty = spec.io.terminal.then_some(FIRST_SIZE);
        Ok(program)
    }

    fn user(&self, name: &str) -> Result<ExecUser, BuildError> {
        users::exec_user(self.root()?.root(), name).map_err(|e| BuildError::msg(e.to_string()))
    }

    /// The sandbox around the first process. Takes the mounts.
    fn process_spec(&self, program: ProgramSpec, network: Network) -> Result<ProcessSpec, BuildError> {
        let (inner, spec) = (&*self.0, &self.0.spec);
        let mut prepared = inner.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared = prepared.as_mut().ok_or_else(BuildError::canceled)?;
        let hostname = if spec.hostname.is_empty() { exec::DEFAULT_HOSTNAME } else { &spec.hostname };
        // Never the client's name for it: that is any text.
        let id = format!("container-{:032x}", rand::random::<u128>());
        let mut run = ProcessSpec::new(id, prepared.root().tree_fd().map_err(exec::failed)?, program);
        run.read_only_root = prepared.read_only_root;
        run.mounts = exec::name_files(&inner.worker.0, hostname, &network, &spec.extra_hosts).into();
        run.mounts.append(&mut prepared.sandbox);
        run.mounts.extend(spec.files.iter().map(file));
        run.hostname = hostname.to_string();
        run.network = network;
        run.cgroup_parent = inner.worker.0.cgroup_parent.clone();
        Ok(run)
    }

    /// The files of a mount, as the container's processes see them; a selector is not applied.
    ///
    /// # Errors
    /// If there is no such mount, or it is one that has no files of its own (a tmpfs, a secret, an agent).
    pub fn files(&self, mount: usize) -> Result<Mounted, BuildError> {
        let views = &self.0.views;
        let found = views.get(mount).ok_or_else(|| {
            let message = format!("mount index {mount} is out of bounds ({} available)", views.len());
            BuildError::new(Code::InvalidArgument, message)
        })?;
        found.clone().ok_or_else(|| BuildError::new(Code::NotFound, format!("mountable {mount} not found")))
    }

    /// Kills every process, waits for their ends and unmounts everything. May be called again.
    ///
    /// # Errors
    /// "Canceled" when there was a process to kill.
    pub async fn release(&self) -> Result<(), BuildError> {
        let inner = &*self.0;
        inner.released.cancel();
        let first = std::mem::replace(&mut *inner.first.lock().await, First::Failed);
        let mut killed = false;
        if let First::Some(process) = first {
            killed = !process.has_ended();
            process.kill(9).map_err(exec::not_run)?;
            // How it ended is told to who waits for it.
            let _ = process.wait().await;
        }
        inner.egress.lock().unwrap_or_else(PoisonError::into_inner).take();
        let prepared = inner.prepared.lock().unwrap_or_else(PoisonError::into_inner).take();
        tokio::task::spawn_blocking(move || drop(prepared)).await.map_err(exec::failed)?;
        if killed { Err(BuildError::canceled()) } else { Ok(()) }
    }
}

fn file(file: &ContainerFile) -> SandboxMount {
    let kind = MountKind::File { contents: file.contents.clone(), mode: file.mode, uid: 0, gid: 0 };
    SandboxMount { dest: file.dest.clone(), kind }
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Container({})", self.0.spec.name)
    }
}
