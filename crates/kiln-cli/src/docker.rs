//! `docker load`: the image goes into the Docker Engine through Docker's own command.

use crate::error::CliError;
use std::process::Stdio;
use std::sync::Mutex;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStdin, Command};

/// What is kept of the command's messages.
const MAX_MESSAGE: u64 = 16 << 10;

/// A running `docker load`, killed when dropped unfinished.
pub struct DockerLoad {
    child: Child,
    input: Mutex<Option<ChildStdin>>,
}

fn failed(why: impl Into<String>) -> CliError {
    CliError::Program { program: "docker", why: why.into() }
}

impl DockerLoad {
    /// Starts it.
    pub fn start() -> Result<Self, CliError> {
        let mut child = Command::new("docker")
            .arg("load")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| match e.kind() {
                std::io::ErrorKind::NotFound => {
                    failed("not installed; loading an image needs Docker's command line")
                }
                _ => failed(format!("cannot be started: {e}")),
            })?;
        let input = Mutex::new(child.stdin.take());
        Ok(Self { child, input })
    }

    /// Where the archive is to be written; once.
    pub fn input(&self) -> Option<ChildStdin> {
        self.input.lock().ok()?.take()
    }

    /// Its error, if it has ended with one by itself; else it is stopped.
    pub async fn failure(mut self) -> Result<Option<String>, CliError> {
        match self.child.try_wait() {
            Ok(Some(status)) if !status.success() => self.finish().await.map(Some),
            _ => Ok(None),
        }
    }

    /// Waits for its end; gives what it said.
    pub async fn finish(mut self) -> Result<String, CliError> {
        drop(self.input());
        let out = read(self.child.stdout.take());
        let err = read(self.child.stderr.take());
        let (out, err, status) = tokio::join!(out, err, self.child.wait());
        let status = status.map_err(|e| failed(e.to_string()))?;
        if status.success() {
            return Ok(out);
        }
        let why = err.trim();
        Err(failed(if why.is_empty() { format!("load ended with {status}") } else { format!("load: {why}") }))
    }
}

async fn read(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let mut text = Vec::new();
    if let Some(mut stream) = stream {
        let _ = (&mut stream).take(MAX_MESSAGE).read_to_end(&mut text).await;
        // The rest is not kept, but has to be taken for the command to end.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    clean(&text)
}

/// Lines without control characters.
fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().map(|l| format!("{}\n", kiln_progress::printable(l))).collect()
}
