//! Running through an OCI runtime binary (`runc`, `crun`): the choice of those who need their own, and what
//! the launcher is compared with in tests.

pub(crate) mod config;
mod join;
mod running;
mod terminal;

use crate::bundle::{self, Bundle};
use crate::child::rooted::{Missing, Owner, open_or_make, plain_directory};
use crate::error::SandboxError;
use crate::executor::{Executor, Process};
use crate::launcher;
use crate::spec::{ProcessSpec, Stdio};
use join::Container;
use running::{Reach, Running};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// Runs processes through a runtime binary.
///
/// A step may outlive a daemon that was killed; the next one with the same directory removes it.
pub struct OciRuntime {
    runtime: Runtime,
    dir: PathBuf,
}

/// The binary and where it keeps its state.
#[derive(Debug, Clone)]
struct Runtime {
    binary: PathBuf,
    state: PathBuf,
}

impl Runtime {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.state).kill_on_drop(false);
        command
    }

    /// A command that writes its errors to `log`, as lines of JSON.
    fn logged(&self, log: &Path) -> Command {
        let mut command = self.command();
        command.args(["--log-format", "json", "--log"]).arg(log);
        command
    }

    /// What it prints; `None` when it refuses.
    async fn call(&self, args: &[&str]) -> Option<Vec<u8>> {
        let output = self.command().args(args).output().await.ok()?;
        output.status.success().then_some(output.stdout)
    }

    fn failed(&self, e: io::Error) -> SandboxError {
        SandboxError::Prepare {
            action: "start the OCI runtime",
            message: format!("{}: {e}", self.binary.display()),
        }
    }
}

impl OciRuntime {
    /// `binary` is a path or a name in `PATH`; bundles and the runtime's state live below `dir`. What an
    /// earlier daemon left there is killed and removed.
    pub fn new(binary: impl Into<PathBuf>, dir: &Path) -> Result<OciRuntime, SandboxError> {
        let runtime = Runtime { binary: binary.into(), state: dir.join("state") };
        let runtime = OciRuntime { runtime, dir: dir.to_owned() };
        runtime.clear().map_err(|e| SandboxError::prepare("prepare the runtime's directory", e))?;
        Ok(runtime)
    }

    fn clear(&self) -> io::Result<()> {
        let Runtime { binary, state } = &self.runtime;
        fs::create_dir_all(state)?;
        for entry in fs::read_dir(state)? {
            let id = entry?.file_name();
            let args = ["delete".as_ref(), "--force".as_ref(), id.as_os_str()];
            let _ = std::process::Command::new(binary).arg("--root").arg(state).args(args).output()?;
        }
        let bundles = self.dir.join("bundles");
        bundle::clear(&bundles);
        fs::create_dir_all(bundles)
    }

    fn start(&self, mut spec: ProcessSpec, stdio: Stdio) -> io::Result<Process> {
        let mut bundle = Bundle::make(self.dir.join("bundles").join(&spec.id))?;
        let log = bundle.dir.join("log.json");
        let owner = Owner { uid: spec.program.uid, gid: spec.program.gid };
        // The runtime would give it to root.
        open_or_make(spec.root.as_fd(), &spec.program.cwd, Missing::Directory, Some(owner))?;
        refuse_links(&spec)?;
        bundle.attach_root(&mut spec)?;
        // The config is made from what is left of the spec.
        let (placed, devices) = bundle.place(std::mem::take(&mut spec.mounts))?;
        bundle.write_config(&config::config(&spec, &bundle.rootfs(), &placed, &devices))?;
        let (stdio, screen) = terminal::streams(stdio, spec.program.tty)?;
        let mut command = self.runtime.logged(&log);
        command.args(["run", "--bundle"]).arg(&bundle.dir).arg(&spec.id);
        let child = running::spawn(command, stdio)?;
        let container =
            Container::new(self.runtime.clone(), bundle.dir.clone(), spec.id.clone(), spec.program.security);
        let running = Running {
            child,
            bundle: Some(bundle),
            log,
            program: spec.program.args.into_iter().next().unwrap_or_default(),
            reach: Reach::Container(spec.id),
            _network: spec.network,
        };
        running.follow(self.runtime.clone(), screen, Some(container)).map_err(io::Error::other)
    }
}

/// Runtimes are known that make files where a link in place of one of these leads, outside of the root. The launcher
/// refuses them too.
fn refuse_links(spec: &ProcessSpec) -> io::Result<()> {
    for name in ["proc", "dev", "sys"] {
        plain_directory(spec.root.as_fd(), name).map_err(|e| {
            io::Error::other(match e {
                Errno::LOOP => format!("/{name} of the root is a symbolic link"),
                e => format!("/{name} of the root: {e}"),
            })
        })?;
    }
    Ok(())
}

#[async_trait::async_trait]
impl Executor for OciRuntime {
    async fn run(&self, spec: ProcessSpec, stdio: Stdio) -> Result<Process, SandboxError> {
        launcher::validate(&spec)?;
        self.start(spec, stdio).map_err(|e| self.runtime.failed(e))
    }
}
