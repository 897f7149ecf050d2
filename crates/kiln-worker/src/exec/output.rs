//! Output of a step, passed on as it comes.

use crate::Cx;
use kiln_sandbox::Stdio;
use kiln_solver::Stream;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::JoinSet;

/// Bytes that are passed on at once.
const CHUNK: usize = 32 << 10;
/// How long output may come after the process has ended. All its writers are dead by then, so this is only a guard
/// against a descriptor that was passed out of the sandbox.
const GRACE: Duration = Duration::from_secs(2);

/// Readers of a step's output.
pub(crate) struct Output(JoinSet<()>);

/// Empty input, and a pipe each for both outputs.
pub(crate) fn pipes(cx: &Cx) -> io::Result<(Stdio, Output)> {
    let mut readers = JoinSet::new();
    let mut pipe = |stream: Stream| -> io::Result<OwnedFd> {
        let (sender, receiver) = pipe::pipe()?;
        readers.spawn(read(receiver, cx.progress.clone(), stream));
        sender.into_blocking_fd()
    };
    let stdio = Stdio {
        stdout: pipe(Stream::Stdout)?,
        stderr: pipe(Stream::Stderr)?,
        stdin: File::open("/dev/null")?.into(),
    };
    Ok((stdio, Output(readers)))
}

async fn read(mut receiver: pipe::Receiver, progress: kiln_solver::VertexProgress, stream: Stream) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match receiver.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => progress.log(stream, &buffer[..n]),
        }
    }
}

impl Output {
    /// Waits until all output has been passed on.
    pub(crate) async fn finish(&mut self) {
        let all = async { while self.0.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            tracing::warn!("a step's output stayed open after its end");
        }
    }
}
