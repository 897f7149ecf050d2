//! The daemon's side of our own launcher.

mod connection;
mod hooks;
mod order;
mod run;

pub(crate) use order::{SHM_SIZE, validate, validate_program};

use crate::bundle;
use crate::cgroup::{Cgroups, StepCgroup};
use crate::error::SandboxError;
use crate::executor::{Executor, Process};
use crate::seccomp;
use crate::spec::{ProcessSpec, ProgramSpec, Security, Stdio};
use connection::{Connection, Packet};
use hooks::Hooked;
use rustix::fs::{MemfdFlags, SealFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use tokio::sync::{Mutex, OnceCell, watch};

/// How a [`Launcher`] is set up.
#[derive(Debug, Clone)]
pub struct LauncherConfig {
    /// The binary to start as the helper; it must call [`crate::helper_main`] first of all. `None` is the
    /// running binary itself.
    pub helper: Option<PathBuf>,
    /// Give every step a v2 cgroup where possible. Without, steps stay in the daemon's cgroup (limits still
    /// work), and devices are kept closed by mounting everything nodev.
    pub cgroups: bool,
}

impl Default for LauncherConfig {
    fn default() -> Self {
        LauncherConfig { helper: None, cgroups: true }
    }
}

/// Runs processes through the pre-started helper. Cheap to clone.
///
/// The helper ends when the last clone and the last [`Process`] are dropped.
#[derive(Clone)]
pub struct Launcher {
    inner: Arc<Inner>,
}

struct Inner {
    config: LauncherConfig,
    cgroups: Cgroups,
    connection: Mutex<Option<Arc<Connection>>>,
    /// The compiled seccomp profile in a sealed memory file.
    profile: OnceCell<OwnedFd>,
    /// Where hooks find the roots of their runs.
    bundles: PathBuf,
}

impl Launcher {
    /// Starts the helper and prepares what all runs share; needs a tokio runtime. `state_dir` names the
    /// daemon: what an earlier one with the same directory left in the cgroup tree is removed.
    pub async fn start(state_dir: &Path, config: LauncherConfig) -> Result<Launcher, SandboxError> {
        if kiln_sys::caps::in_user_namespace() {
            return Err(SandboxError::Prepare {
                action: "start the sandbox helper",
                message: "running inside a user namespace (rootless) is not supported".into(),
            });
        }
        let bundles = state_dir.join("bundles");
        bundle::clear(&bundles);
        let cgroups = Cgroups::prepare(state_dir, config.cgroups);
        let first = Connection::start(&config)?;
        let inner = Inner {
            config,
            cgroups,
            connection: Mutex::new(Some(Arc::new(first))),
            profile: OnceCell::new(),
            bundles,
        };
        let launcher = Launcher { inner: Arc::new(inner) };
        // Compiled while nobody waits. The daemon may drop the launcher meanwhile.
        let warm = Arc::downgrade(&launcher.inner);
        tokio::spawn(async move {
            if let Some(inner) = warm.upgrade()
                && let Err(error) = inner.profile().await
            {
                tracing::warn!(%error, "the seccomp profile cannot be compiled");
            }
        });
        Ok(launcher)
    }

    /// The helper's connection; a helper that died is replaced.
    async fn connection(&self) -> Result<Arc<Connection>, SandboxError> {
        let mut slot = self.inner.connection.lock().await;
        if let Some(connection) = slot.as_ref().filter(|c| !c.is_broken()) {
            return Ok(connection.clone());
        }
        tracing::warn!("the sandbox helper has ended; starting another");
        let fresh = Arc::new(Connection::start(&self.inner.config)?);
        *slot = Some(fresh.clone());
        Ok(fresh)
    }
}

impl Inner {
    async fn profile(&self) -> Result<&OwnedFd, SandboxError> {
        self.profile
            .get_or_try_init(|| async {
                let program = tokio::task::spawn_blocking(seccomp::compile)
                    .await
                    .map_err(|e| SandboxError::prepare("compile the seccomp profile", e))?
                    .map_err(|e| SandboxError::prepare("compile the seccomp profile", e))?;
                sealed(&program).map_err(|e| SandboxError::prepare("keep the seccomp profile", e))
            })
            .await
    }
}

/// A memory file nobody can change any more: every child gets a handle of the same one.
fn sealed(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("seccomp", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(fd);
    std::io::Write::write_all(&mut file, bytes)?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(file.into())
}

#[async_trait::async_trait]
impl Executor for Launcher {
    async fn run(&self, mut spec: ProcessSpec, stdio: Stdio) -> Result<Process, SandboxError> {
        validate(&spec)?;
        if spec.intel_rdt.is_some() {
            return Err(SandboxError::invalid("intelRdt", "only an OCI runtime can be asked for it"));
        }
        let (wants_terminal, security) = (spec.program.tty.is_some(), spec.program.security);
        let profile = self.profile(security).await?;
        let cgroup = self.inner.cgroups.step(
            &spec.id,
            security,
            &spec.resources,
            spec.cgroup_parent.as_deref(),
            &order::device_rules(&spec.mounts),
        )?;
        let mut hooked = Hooked::new(&mut spec, &self.inner.bundles)?;
        let (packet, reply) = order::build(spec, stdio, &cgroup, profile, hooked.as_mut())?;
        let mut connection = self.connection().await?;
        if !connection.send(&packet).await? {
            // It died since the last look; the packet is still whole.
            connection = self.connection().await?;
            if !connection.send(&packet).await? {
                return Err(SandboxError::HelperGone);
            }
        }
        drop(packet);
        let cgroup = Arc::new(cgroup);
        let started = run::started(&connection, reply, wants_terminal).await?;
        let (ready, made) = watch::channel(false);
        let sandbox =
            Sandbox { launcher: self.clone(), connection, security, made, cgroup: Arc::downgrade(&cgroup) };
        started.follow(sandbox.connection.clone(), cgroup, ready, Some(sandbox), hooked)
    }
}

impl Launcher {
    async fn profile(&self, security: Security) -> Result<Option<BorrowedFd<'_>>, SandboxError> {
        Ok(match security {
            Security::Sandbox => Some(self.inner.profile().await?.as_fd()),
            Security::Insecure => None,
        })
    }
}

/// What is needed to start more processes in a sandbox that runs.
struct Sandbox {
    launcher: Launcher,
    /// The helper that made it: no other one stands above its pid namespace.
    connection: Arc<Connection>,
    security: Security,
    /// Turns true when it has been made: before, there is nothing to join but the helper's own tree.
    made: watch::Receiver<bool>,
    /// Gone when the sandbox is.
    cgroup: Weak<StepCgroup>,
}

impl Sandbox {
    async fn join(
        &self,
        first: BorrowedFd<'_>,
        spec: ProgramSpec,
        stdio: Stdio,
    ) -> Result<Process, SandboxError> {
        let made = self.made.clone().wait_for(|made| *made).await.is_ok();
        let cgroup = self.cgroup.upgrade().filter(|_| made).ok_or(SandboxError::Ended)?;
        let spec = spec.beside(self.security);
        let profile = self.launcher.profile(spec.security).await?;
        let wants_terminal = spec.tty.is_some();
        let (packet, reply): (Packet, OwnedFd) = order::build_join(spec, stdio, first, &cgroup, profile)?;
        if !self.connection.send(&packet).await? {
            return Err(SandboxError::HelperGone);
        }
        drop(packet);
        let started = run::started(&self.connection, reply, wants_terminal).await?;
        started.follow(self.connection.clone(), cgroup, watch::Sender::new(true), None, None)
    }
}
