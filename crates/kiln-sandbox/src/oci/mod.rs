//! Running through an OCI runtime binary (`runc`, `crun`): the choice of those who need their own, and what
//! the launcher is compared with in tests.

mod bundle;
mod config;

use crate::child::rooted::Owner;
use crate::error::{ExecFailure, ExecFailureKind, SandboxError};
use crate::executor::{Executor, ExitStatus, Finished, Outcome, Process, Signaller, Usage};
use crate::launcher;
use crate::spec::{ProcessSpec, Stdio};
use bundle::Bundle;
use serde::Deserialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};

/// Runs processes through a runtime binary.
///
/// Not offered: terminals. A step may outlive a daemon that was killed; the next one with the same directory
/// removes it.
pub struct OciRuntime {
    binary: PathBuf,
    dir: PathBuf,
}

impl OciRuntime {
    /// `binary` is a path or a name in `PATH`; bundles and the runtime's state live below `dir`. What an
    /// earlier daemon left there is killed and removed.
    pub fn new(binary: impl Into<PathBuf>, dir: &Path) -> Result<OciRuntime, SandboxError> {
        let runtime = OciRuntime { binary: binary.into(), dir: dir.to_owned() };
        runtime.clear().map_err(|e| SandboxError::prepare("prepare the runtime's directory", e))?;
        Ok(runtime)
    }

    fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    fn clear(&self) -> io::Result<()> {
        fs::create_dir_all(self.state())?;
        for entry in fs::read_dir(self.state())? {
            let id = entry?.file_name();
            let args = ["delete".as_ref(), "--force".as_ref(), id.as_os_str()];
            let _ = std::process::Command::new(&self.binary)
                .arg("--root")
                .arg(self.state())
                .args(args)
                .output()?;
        }
        let bundles = self.dir.join("bundles");
        // The mounts in them went with the daemon's mount namespace; if not, this fails and says so.
        match fs::remove_dir_all(&bundles) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        fs::create_dir_all(bundles)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(self.state()).kill_on_drop(false);
        command
    }

    fn start(&self, mut spec: ProcessSpec, stdio: Stdio) -> io::Result<Running> {
        let mut bundle = Bundle::make(self.dir.join("bundles").join(&spec.id))?;
        let log = bundle.dir.join("log.json");
        let owner = Owner { uid: spec.uid, gid: spec.gid };
        // The config is made from what is left of the spec.
        let placeholder = fs::File::open("/dev/null")?.into();
        let root = bundle.attach_root(std::mem::replace(&mut spec.root, placeholder), &spec.cwd, owner)?;
        let placed = bundle.place(std::mem::take(&mut spec.mounts))?;
        let config = config::config(&spec, &root, &placed);
        fs::write(bundle.dir.join("config.json"), serde_json::to_vec(&config)?)?;
        let child = self
            .command()
            .args(["--log-format", "json", "--log"])
            .arg(&log)
            .args(["run", "--bundle"])
            .arg(&bundle.dir)
            .arg(&spec.id)
            .stdin(stdio.stdin)
            .stdout(stdio.stdout)
            .stderr(stdio.stderr)
            .spawn()?;
        Ok(Running {
            child,
            _bundle: bundle,
            log,
            id: spec.id,
            program: spec.args.into_iter().next().unwrap_or_default(),
        })
    }
}

#[async_trait::async_trait]
impl Executor for OciRuntime {
    async fn run(&self, spec: ProcessSpec, stdio: Stdio) -> Result<Process, SandboxError> {
        launcher::validate(&spec)?;
        if spec.tty.is_some() {
            return Err(SandboxError::invalid(
                "tty",
                "terminals are not supported with an OCI runtime binary",
            ));
        }
        let running = self.start(spec, stdio).map_err(|e| SandboxError::Prepare {
            action: "start the OCI runtime",
            message: format!("{}: {e}", self.binary.display()),
        })?;
        let (sender, outcome) = watch::channel(None);
        let (signals, receiver) = mpsc::unbounded_channel();
        let pid = running.child.id();
        let control = Control { binary: self.binary.clone(), state: self.state(), id: running.id.clone() };
        tokio::spawn(follow(running, control, receiver, sender));
        Ok(Process::new(None, outcome, Arc::new(ByRuntime { signals, pid })))
    }
}

const SIGKILL: i32 = 9;

struct Running {
    child: Child,
    // Kept for its Drop.
    _bundle: Bundle,
    log: PathBuf,
    id: String,
    program: String,
}

/// What is needed to reach the container by its runtime.
struct Control {
    binary: PathBuf,
    state: PathBuf,
    id: String,
}

impl Control {
    /// True when the runtime took it; it refuses as long as the container is not there yet.
    async fn call(&self, args: &[&str]) -> bool {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.state).args(args);
        command.output().await.is_ok_and(|o| o.status.success())
    }
}

async fn follow(
    mut running: Running,
    control: Control,
    mut signals: mpsc::UnboundedReceiver<i32>,
    outcome: watch::Sender<Outcome>,
) {
    let (mut listening, mut killed) = (true, false);
    let status = loop {
        tokio::select! {
            status = running.child.wait() => break status,
            signal = signals.recv(), if listening => match signal {
                Some(signal) => {
                    killed |= signal == SIGKILL;
                    let number = signal.to_string();
                    while !control.call(&["kill", &control.id, &number]).await {
                        // Not there yet, or not there any more.
                        match tokio::time::timeout(Duration::from_millis(20), running.child.wait()).await {
                            Err(_) => {}
                            Ok(_) => break,
                        }
                    }
                }
                None => listening = false,
            },
        }
    };
    let result = match status {
        // Killed while it was being set up, which the runtime reports as a failure of its own.
        Ok(status) if killed && !status.success() => {
            Ok(Finished { status: ExitStatus::Signal(SIGKILL), usage: Usage::default() })
        }
        Ok(status) => ended(&running, &control.binary, status),
        Err(e) => Err(SandboxError::prepare("wait for the OCI runtime", e)),
    };
    // Does nothing after a normal end.
    control.call(&["delete", "--force", &control.id]).await;
    drop(running);
    outcome.send_replace(Some(result));
}

fn ended(
    running: &Running,
    binary: &Path,
    status: std::process::ExitStatus,
) -> Result<Finished, SandboxError> {
    use std::os::unix::process::ExitStatusExt;
    // The runtime has one exit code for its own failures and its process's; its log tells them apart.
    if !status.success()
        && let Some(message) = last_error(&running.log)
    {
        return Err(match exec_failure(&message, &running.program) {
            Some(failure) => SandboxError::Exec(failure),
            None => SandboxError::Runtime { binary: binary.display().to_string(), message },
        });
    }
    let status = match (status.code(), status.signal()) {
        // runc reports a signal as a shell does.
        (Some(code), _) if code > 128 && code <= 128 + 64 => ExitStatus::Signal(code - 128),
        (Some(code), _) => ExitStatus::Code(code),
        (None, signal) => ExitStatus::Signal(signal.unwrap_or(9)),
    };
    Ok(Finished { status, usage: Usage::default() })
}

#[derive(Deserialize)]
struct LogLine {
    level: String,
    msg: String,
}

/// The last error in the runtime's log, of whose end at most 1 MiB is read.
fn last_error(log: &Path) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    const LIMIT: u64 = 1 << 20;
    let mut file = fs::File::open(log).ok()?;
    let len = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(LIMIT))).ok()?;
    let mut text = Vec::new();
    file.take(LIMIT).read_to_end(&mut text).ok()?;
    String::from_utf8_lossy(&text)
        .lines()
        .filter_map(|line| serde_json::from_str::<LogLine>(line).ok())
        .rfind(|line| line.level == "error" && !line.msg.is_empty())
        .map(|line| line.msg)
}

/// Recognises runc's words for a program that cannot be executed.
fn exec_failure(message: &str, program: &str) -> Option<ExecFailure> {
    [ExecFailureKind::NotInPath, ExecFailureKind::NoSuchFile, ExecFailureKind::PermissionDenied]
        .into_iter()
        .map(|kind| ExecFailure { program: program.to_owned(), kind })
        .find(|failure| message.contains(&failure.to_string()))
}

struct ByRuntime {
    signals: mpsc::UnboundedSender<i32>,
    pid: Option<u32>,
}

impl Signaller for ByRuntime {
    fn signal(&self, signal: i32) -> Result<(), SandboxError> {
        // Nobody listens when it has just ended.
        let _ = self.signals.send(signal);
        Ok(())
    }

    fn pid(&self) -> Option<u32> {
        self.pid
    }
}
