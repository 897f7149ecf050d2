//! A process of a container.

use crate::exec::not_run;
use kiln_llb::errdefs::BuildError;
use kiln_sandbox::{ExitStatus, Process, TerminalSize};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A process of a container. Dropping it kills the process.
pub struct ContainerProcess {
    process: Arc<Process>,
    released: CancellationToken,
}

impl ContainerProcess {
    pub(super) fn new(process: Arc<Process>, released: CancellationToken) -> Self {
        Self { process, released }
    }

    /// Waits for the end; the code is 128 plus the number for one by a signal.
    ///
    /// # Errors
    /// If the program could not be executed (with the exit code of a shell in the details), or "canceled" when the
    /// container was released before the end.
    pub async fn wait(&self) -> Result<u32, BuildError> {
        let ended = self.process.wait().await;
        let killed = !matches!(ended, Ok(status) if status != ExitStatus::Signal(9));
        if self.released.is_cancelled() && killed {
            return Err(BuildError::canceled());
        }
        Ok(ended.map_err(not_run)?.code().unsigned_abs())
    }

    /// Sends a signal by number. A process that has ended is no error.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn signal(&self, signal: i32) -> Result<(), BuildError> {
        self.process.kill(signal).map_err(not_run)
    }

    /// Tells the terminal its new size. Without a terminal nothing happens.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), BuildError> {
        self.process.resize(TerminalSize { rows, columns }).map_err(not_run)
    }
}

impl Drop for ContainerProcess {
    fn drop(&mut self) {
        if let Err(error) = self.process.kill(9) {
            tracing::warn!(%error, "kill a process of a container");
        }
    }
}

impl std::fmt::Debug for ContainerProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ContainerProcess({:?})", self.process.pid())
    }
}
