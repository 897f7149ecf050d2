//! The daemon's part of the hooks of one run: those in its own namespaces, and the bundle in which all of them find the
//! root. The child runs those of the container (`child::hooks`).

use super::run::Replies;
use crate::bundle::{self, Bundle};
use crate::error::{SandboxError, Step};
use crate::executor::{ExitStatus, Finished};
use crate::hooks::{Call, Container, Hook, HookError, Hooks, Moment, Stop, run_all};
use crate::oci::config;
use crate::spec::ProcessSpec;
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long the hooks of the end may go on when the run was killed.
const LAST_GRACE: Duration = Duration::from_secs(1);

/// A run that has hooks.
pub(super) struct Hooked {
    /// Kept for its Drop.
    _bundle: Bundle,
    container: Container,
    hooks: Hooks,
    stopper: Arc<Stopper>,
    /// Ends when the program is executed.
    executed: Option<Receiver>,
    executing: Option<OwnedFd>,
}

/// Says stop to the hooks that run.
pub(super) struct Stopper {
    reader: OwnedFd,
    writer: Mutex<Option<OwnedFd>>,
}

impl Stopper {
    fn new() -> io::Result<Stopper> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok(Stopper { reader, writer: Mutex::new(Some(writer)) })
    }

    /// Those that run are killed, and no more are started but those of the end.
    pub(super) fn stop(&self) {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Hooked {
    /// Takes the root of the spec into a bundle below `bundles`; `None` without hooks.
    pub(super) fn new(spec: &mut ProcessSpec, bundles: &Path) -> Result<Option<Hooked>, SandboxError> {
        if spec.hooks.is_empty() {
            return Ok(None);
        }
        Self::make(spec, bundles).map(Some).map_err(|e| SandboxError::prepare("make a bundle for hooks", e))
    }

    fn make(spec: &mut ProcessSpec, bundles: &Path) -> io::Result<Hooked> {
        std::fs::create_dir_all(bundles)?;
        let mut bundle = Bundle::make(bundles.join(&spec.id))?;
        let (placed, devices) = bundle::described(&spec.mounts);
        bundle.write_config(&config::config(spec, &bundle.rootfs(), &placed, &devices))?;
        bundle.attach_root(spec)?;
        let (executed, executing) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&executed, true)?;
        Ok(Hooked {
            container: Container { id: spec.id.clone(), bundle: bundle.dir.clone() },
            _bundle: bundle,
            hooks: std::mem::take(&mut spec.hooks),
            stopper: Arc::new(Stopper::new()?),
            executed: Some(Receiver::from_owned_fd(executed)?),
            executing: Some(executing),
        })
    }

    pub(super) fn container(&self) -> &Container {
        &self.container
    }

    pub(super) fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// The end of a pipe that the child holds until it executes the program.
    pub(super) fn take_executed(&mut self) -> io::Result<OwnedFd> {
        self.executing.take().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn stopper(&self) -> Arc<Stopper> {
        self.stopper.clone()
    }

    /// Runs the hooks of the process `pid` as it goes on, in a task. One that fails kills it.
    pub(super) fn follow(mut self, replies: Arc<Replies>, pid: Option<u32>, process: OwnedFd) -> Following {
        let (created, is_created) = oneshot::channel();
        let executed = self.executed.take();
        let hooked = Arc::new(self);
        let task = hooked.clone();
        let task = tokio::spawn(async move {
            let lived = task.live(&replies, pid, is_created, executed).await;
            if lived.is_err() {
                // One that is gone is no error; else the run's end would be waited for in vain.
                if let Err(error) = kiln_sys::process::signal(process.as_fd(), 9) {
                    tracing::warn!(%error, "cannot kill a process after its hook failed");
                }
            }
            lived
        });
        Following { hooked, created: Some(created), task }
    }

    async fn live(
        self: &Arc<Self>,
        replies: &Replies,
        pid: Option<u32>,
        created: oneshot::Receiver<()>,
        executed: Option<Receiver>,
    ) -> Result<(), HookError> {
        if created.await.is_err() {
            return Ok(());
        }
        self.run(Moment::Prestart, pid).await?;
        self.run(Moment::CreateRuntime, pid).await?;
        replies.go_on();
        if is_executed(executed).await { self.run(Moment::Poststart, pid).await } else { Ok(()) }
    }

    async fn run(self: &Arc<Self>, moment: Moment, pid: Option<u32>) -> Result<(), HookError> {
        if self.of(moment).is_empty() {
            return Ok(());
        }
        let hooked = self.clone();
        let work = move || {
            let grace = if moment == Moment::Poststop { LAST_GRACE } else { Duration::ZERO };
            let stop = Stop { pipe: hooked.stopper.reader.as_fd(), grace };
            let directory = Some(hooked.container.bundle.as_path());
            let call = Call { moment, container: &hooked.container, pid, directory };
            run_all(&call, hooked.of(moment), Some(stop))
        };
        let ran = tokio::task::spawn_blocking(work).await;
        ran.unwrap_or_else(|e| Err(HookError::Failed(format!("{moment} hooks: {e}"))))
    }

    fn of(&self, moment: Moment) -> &[Hook] {
        match moment {
            Moment::Prestart => &self.hooks.prestart,
            Moment::CreateRuntime => &self.hooks.create_runtime,
            Moment::CreateContainer => &self.hooks.create_container,
            Moment::StartContainer => &self.hooks.start_container,
            Moment::Poststart => &self.hooks.poststart,
            Moment::Poststop => &self.hooks.poststop,
        }
    }
}

/// Waits for the program to be executed; false when it does not come to that.
async fn is_executed(pipe: Option<Receiver>) -> bool {
    let Some(mut pipe) = pipe else { return false };
    let mut said = [0];
    matches!(tokio::io::AsyncReadExt::read(&mut pipe, &mut said).await, Ok(0))
}

/// Hooks at work beside a run.
pub(super) struct Following {
    hooked: Arc<Hooked>,
    created: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), HookError>>,
}

impl Following {
    /// Everything is mounted.
    pub(super) fn created(&mut self) {
        if let Some(created) = self.created.take() {
            // The task waits for it.
            let _ = created.send(());
        }
    }

    /// After the end of the run: runs the hooks of the end, lets the bundle go, and says how the run ended.
    pub(super) async fn end(self, result: Result<Finished, SandboxError>) -> Result<Finished, SandboxError> {
        let Following { hooked, created, task } = self;
        drop(created);
        if !matches!(result, Ok(Finished { status: ExitStatus::Code(_), .. })) {
            // Nothing is going to be executed any more.
            hooked.stopper.stop();
        }
        let result = match task.await {
            Ok(Err(HookError::Failed(message))) => Err(SandboxError::Setup { step: Step::Hooks, message }),
            _ => result,
        };
        // The run is over either way, so nothing depends on them.
        if let Err(HookError::Failed(error)) = hooked.run(Moment::Poststop, None).await {
            tracing::warn!(error, "a hook of a step's end failed");
        }
        drop(hooked);
        result
    }
}
