//! One process of an exec stream: its messages from `Started` to `Done`.

use crate::wire::rpc_status;
use kiln_engine::{ContainerProcess, ProcessIo};
use kiln_llb::errdefs::{BuildError, Detail};
use kiln_proto::gateway::{self, exec_message::Input};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tonic::Status;

/// Bytes that are passed on at once.
const CHUNK: usize = 32 << 10;
/// How long output may come after the end of the process, from others that hold its streams.
const GRACE: Duration = Duration::from_secs(1);
/// The exit code of a process of which none is known (spec wire.md section 3).
const UNKNOWN: u32 = u32::MAX;

/// Where messages go. An error of it means that nobody listens any more.
#[derive(Clone)]
pub(super) struct Outbox {
    pub(super) process: String,
    pub(super) sender: mpsc::Sender<Result<gateway::ExecMessage, Status>>,
}

pub(super) struct Gone;

impl Outbox {
    pub(super) async fn send(&self, input: Input) -> Result<(), Gone> {
        let message = gateway::ExecMessage { process_id: self.process.clone(), input: Some(input) };
        self.sender.send(Ok(message)).await.map_err(|_| Gone)
    }

    async fn eof(&self, fd: u32) -> Result<(), Gone> {
        self.send(Input::File(gateway::FdMessage { fd, eof: true, data: Vec::new() })).await
    }

    /// The end of a process that has had no output, or whose output has ended.
    pub(super) async fn finish(&self, open: &[u32], ended: Result<u32, BuildError>) -> Result<(), Gone> {
        for fd in open.iter().filter(|fd| **fd != 0) {
            self.eof(*fd).await?;
        }
        self.send(Input::Exit(exit(ended))).await?;
        self.send(Input::Done(gateway::DoneMessage {})).await
    }
}

fn exit(ended: Result<u32, BuildError>) -> gateway::ExitMessage {
    let error = match ended {
        Ok(0) => return gateway::ExitMessage { code: 0, error: None },
        Ok(code) => BuildError::msg(format!("exit code: {code}")).wrap(Detail::ExitCode(code)),
        Err(error) => error,
    };
    // An error is never told with the code of success.
    let code = error.exit_code().filter(|code| *code != 0).unwrap_or(UNKNOWN);
    gateway::ExitMessage { code, error: Some(rpc_status(error)) }
}

/// Passes everything on until the process has ended and all is told. `fds` are those that the client opened.
pub(super) async fn follow(
    process: Arc<ContainerProcess>,
    io: ProcessIo,
    fds: Vec<u32>,
    input: mpsc::Receiver<Vec<u8>>,
    out: Outbox,
) -> Result<(), Gone> {
    let ProcessIo { stdin, stdout, stderr, .. } = io;
    let wants = |fd: u32, stream: Option<pipe::Receiver>| stream.filter(|_| fds.contains(&fd));
    let (stdout, stderr) = (wants(1, stdout), wants(2, stderr));
    // Told by those that read them.
    let told: Vec<u32> = [(1, stdout.is_some()), (2, stderr.is_some())]
        .iter()
        .filter(|(_, is)| *is)
        .map(|(fd, _)| *fd)
        .collect();
    let rest: Vec<u32> = fds.iter().copied().filter(|fd| !told.contains(fd)).collect();
    let mut late = Vec::new();
    let ended = {
        let feed = std::pin::pin!(feed(stdin, input));
        let mut outputs = std::pin::pin!(async {
            tokio::try_join!(pass(1, stdout, &out), pass(2, stderr, &out)).map(drop)
        });
        let mut ended = std::pin::pin!(process.wait());
        let mut feeding = futures::FutureExt::fuse(feed);
        let (mut result, mut done) = (None, false);
        while result.is_none() {
            tokio::select! {
                end = &mut ended => result = Some(end),
                () = &mut feeding => {}
                passed = &mut outputs, if !done => {
                    passed?;
                    done = true;
                }
            }
        }
        if !done {
            match tokio::time::timeout(GRACE, outputs).await {
                Ok(passed) => passed?,
                Err(_) => late = told,
            }
        }
        result.unwrap_or_else(|| Err(BuildError::canceled()))
    };
    for fd in late {
        out.eof(fd).await?;
    }
    out.finish(&rest, ended).await
}

/// Writes what the client sends. A process that does not read any more has no use for the rest.
async fn feed(stdin: Option<pipe::Sender>, mut input: mpsc::Receiver<Vec<u8>>) {
    let Some(mut stdin) = stdin else { return };
    while let Some(data) = input.recv().await {
        if stdin.write_all(&data).await.is_err() {
            break;
        }
    }
}

async fn pass(fd: u32, stream: Option<pipe::Receiver>, out: &Outbox) -> Result<(), Gone> {
    let Some(mut stream) = stream else { return Ok(()) };
    let mut buffer = vec![0; CHUNK];
    loop {
        // A terminal ends with an error.
        let n = stream.read(&mut buffer).await.unwrap_or(0);
        if n == 0 {
            return out.eof(fd).await;
        }
        out.send(Input::File(gateway::FdMessage { fd, eof: false, data: buffer[..n].to_vec() })).await?;
    }
}
