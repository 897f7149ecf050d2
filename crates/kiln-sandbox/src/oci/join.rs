//! More processes in a container of the runtime, by its `exec`.

use super::running::{self, PAUSE, Reach, Running};
use super::{Runtime, config, terminal};
use crate::error::SandboxError;
use crate::executor::Process;
use crate::spec::{Network, ProgramSpec, Security, Stdio};
use serde::Deserialize;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A container that others can join.
pub(super) struct Container {
    runtime: Runtime,
    /// The bundle's directory, where each process has its files.
    dir: PathBuf,
    id: String,
    security: Security,
    count: AtomicUsize,
}

#[derive(Deserialize)]
struct State {
    status: String,
}

impl Container {
    pub(super) fn new(runtime: Runtime, dir: PathBuf, id: String, security: Security) -> Container {
        Container { runtime, dir, id, security, count: AtomicUsize::new(0) }
    }

    /// Starts the process; `ended` tells when the first one has.
    pub(super) async fn join(
        &self,
        spec: ProgramSpec,
        stdio: Stdio,
        ended: impl Fn() -> bool,
    ) -> Result<Process, SandboxError> {
        let spec = spec.beside(self.security);
        while !self.runs().await {
            if ended() {
                return Err(SandboxError::Ended);
            }
            tokio::time::sleep(PAUSE).await;
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let file = |kind: &str| self.dir.join(format!("join{number}.{kind}"));
        let (process, pid, log) = (file("json"), file("pid"), file("log"));
        let written = serde_json::to_vec(&config::process(&spec)).map_err(std::io::Error::from);
        let written = written.and_then(|json| fs::write(&process, json));
        let streams = written.and_then(|()| terminal::streams(stdio, spec.tty));
        // The directory goes with the container.
        let (stdio, screen) =
            streams.map_err(|e| if ended() { SandboxError::Ended } else { self.runtime.failed(e) })?;
        let mut command = self.runtime.logged(&log);
        command.arg("exec").arg("--process").arg(process).arg("--pid-file").arg(&pid).arg(&self.id);
        let child = running::spawn(command, stdio).map_err(|e| self.runtime.failed(e))?;
        let program = spec.args.into_iter().next().unwrap_or_default();
        let reach = Reach::PidFile(pid);
        let running = Running { child, bundle: None, log, program, reach, _network: Network::Host };
        running.follow(self.runtime.clone(), screen, None)
    }

    async fn runs(&self) -> bool {
        let state = self.runtime.call(&["state", &self.id]).await;
        let state = state.and_then(|json| serde_json::from_slice::<State>(&json).ok());
        state.is_some_and(|s| s.status == "running")
    }
}
