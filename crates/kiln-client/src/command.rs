//! A program as a connection: its stdin and stdout are the stream, its stderr says what went wrong.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

/// What is kept of the program's messages, in bytes.
const MAX_STDERR: usize = 4 << 10;
/// Time for a program that closed its output to end.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// The stream of a running program, which is killed when this is dropped.
#[derive(Debug)]
pub struct CommandStream {
    stdin: ChildStdin,
    stdout: ChildStdout,
    end: End,
}

/// Until the output ends, then while the program ends.
enum End {
    Running(Process),
    Ending(BoxFuture<'static, Option<String>>),
    Ended(Option<String>),
}

impl std::fmt::Debug for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("End")
    }
}

struct Process {
    child: Child,
    stderr: JoinHandle<String>,
    name: String,
}

impl CommandStream {
    /// Starts a program.
    ///
    /// # Errors
    /// It cannot be started. What it fails with later is the error of a read.
    pub fn start(program: &str, args: &[String]) -> io::Result<Self> {
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("start {program}: {e}")))?;
        let missing = || io::Error::other("no pipe");
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let stderr = tokio::spawn(last_words(stderr.ok_or_else(missing)?));
        let name = format!("[{program} {}]", args.join(" "));
        Ok(Self {
            stdin: stdin.ok_or_else(missing)?,
            stdout: stdout.ok_or_else(missing)?,
            end: End::Running(Process { child, stderr, name }),
        })
    }
}

/// Reads messages to their end and keeps the last ones.
async fn last_words(mut stderr: ChildStderr) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(n @ 1..) = stderr.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..n]);
        kept.drain(..kept.len().saturating_sub(MAX_STDERR));
    }
    String::from_utf8_lossy(&kept).trim().to_string()
}

/// Waits for the end of a program; what it failed with, if it did.
async fn finish(mut process: Process) -> Option<String> {
    let name = &process.name;
    let Ok(status) = tokio::time::timeout(LAST_WORDS, process.child.wait()).await else {
        return Some(format!("command {name} closed its output and does not end"));
    };
    let status = match status {
        Ok(status) if status.success() => return None,
        Ok(status) => status.to_string(),
        Err(e) => e.to_string(),
    };
    let stderr = tokio::time::timeout(Duration::from_secs(1), process.stderr).await;
    let stderr = stderr.ok().and_then(Result::ok).unwrap_or_default();
    Some(format!("command {name} has exited with {status}, make sure the address is valid: stderr={stderr}"))
}

impl AsyncRead for CommandStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if matches!(this.end, End::Running(_)) {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.stdout).poll_read(cx, buf))?;
            if buf.filled().len() > before || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        loop {
            match &mut this.end {
                End::Ended(Some(why)) => return Poll::Ready(Err(io::Error::other(why.clone()))),
                End::Ended(None) => return Poll::Ready(Ok(())),
                End::Ending(work) => {
                    let why = ready!(work.as_mut().poll(cx));
                    this.end = End::Ended(why);
                }
                End::Running(_) => {
                    let End::Running(process) = std::mem::replace(&mut this.end, End::Ended(None)) else {
                        return Poll::Ready(Ok(()));
                    };
                    this.end = End::Ending(Box::pin(finish(process)));
                }
            }
        }
    }
}

impl AsyncWrite for CommandStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.stdin).poll_write(cx, bytes)) {
            // The reader learns why the program is gone; it must be asked before the connection is given up.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Poll::Ready(Ok(bytes.len())),
            result => Poll::Ready(result),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Address, Client, ConnectError};

    async fn error_of(script: &str) -> String {
        let args = ["-c".to_string(), script.to_string()];
        Client::over_command("sh", &args).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_program_that_dies_or_talks_is_named_with_what_it_said() {
        let error = error_of("echo no such container >&2; exit 3").await;
        assert!(error.starts_with("command [sh -c echo"), "{error}");
        assert!(error.ends_with("exit status: 3, make sure the address is valid: stderr=no such container"));
        let error = error_of("echo Welcome to host; cat >/dev/null").await;
        assert!(error.ends_with("it does not speak gRPC; it says \"Welcome to host\""), "{error}");
        let error = error_of("exit 0").await;
        assert!(error.ends_with("it closed the connection before it said anything"), "{error}");
        let error = Client::over_command("no-such-program-here", &[]).await.unwrap_err();
        assert!(error.starts_with("start no-such-program-here: "), "{error}");
    }

    #[tokio::test]
    async fn nobody_at_a_socket() {
        let error = Client::connect(&Address::Unix("/nowhere/at/all".into())).await.unwrap_err();
        assert!(matches!(error, ConnectError::NoDaemon { .. }), "{error}");
    }
}
