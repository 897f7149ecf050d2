//! One exec stream: messages of a client to several processes, and theirs to it.
//!
//! The processes live as long as the stream: when the client goes away they are killed. When it only ends its own
//! side they go on, with nothing more to read.

use super::ExecStream;
use super::process::{self, Outbox};
use super::signals;
use crate::source::clipped;
use crate::wire::invalid;
use futures::{Stream, StreamExt};
use kiln_engine::{Bridge, ContainerProcess, StartSpec, Wanted};
use kiln_llb::errdefs::{BuildError, Code};
use kiln_llb::{SecretEnv, SecurityMode, Ulimit};
use kiln_proto::gateway::{self, exec_message::Input};
use kiln_proto::pb;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Messages on their way to the client.
const QUEUE: usize = 16;
/// More processes than any stream has.
const MAX_PROCESSES: usize = 10_000;
/// More descriptors than a process is given.
const MAX_FDS: usize = 16;
/// How long processes that were killed with their build may tell their ends.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Serves a stream of messages.
pub(super) fn serve<S>(bridge: Bridge, messages: S) -> ExecStream
where
    S: Stream<Item = Result<gateway::ExecMessage, Status>> + Send + Unpin + 'static,
{
    let (sender, receiver) = mpsc::channel(QUEUE);
    let session = Session { bridge, sender, processes: HashMap::new(), tasks: JoinSet::new() };
    tokio::spawn(session.run(messages));
    Box::pin(ReceiverStream::new(receiver))
}

struct Session {
    bridge: Bridge,
    sender: mpsc::Sender<Result<gateway::ExecMessage, Status>>,
    processes: HashMap<String, Handle>,
    /// Dropped, they take their processes along.
    tasks: JoinSet<()>,
}

/// What the client may say to a process.
struct Handle {
    /// `None` when it could not be started.
    process: Option<Arc<ContainerProcess>>,
    stdin: Input0,
}

/// The state of descriptor 0.
enum Input0 {
    /// The client never had it, or has ended it.
    Closed,
    Open(mpsc::Sender<Vec<u8>>),
}

impl Session {
    async fn run<S>(mut self, mut messages: S)
    where
        S: Stream<Item = Result<gateway::ExecMessage, Status>> + Send + Unpin,
    {
        let (sender, closed) = (self.sender.clone(), self.bridge.closed().clone());
        let ended = tokio::select! {
            ended = self.listen(&mut messages) => ended,
            () = sender.closed() => return,
            () = closed.cancelled() => Ok(()),
        };
        if let Err(status) = ended {
            let _ = sender.send(Err(status)).await;
            return;
        }
        // Nothing more comes from the client.
        self.processes.clear();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        tokio::select! {
            () = all => {}
            () = sender.closed() => {}
            () = async { closed.cancelled().await; tokio::time::sleep(LAST_WORDS).await } => {}
        }
    }

    /// Until the client has nothing more to say, or says what makes no sense.
    async fn listen<S>(&mut self, messages: &mut S) -> Result<(), Status>
    where
        S: Stream<Item = Result<gateway::ExecMessage, Status>> + Send + Unpin,
    {
        while let Some(message) = messages.next().await {
            let gateway::ExecMessage { process_id, input } = message?;
            if process_id.is_empty() {
                return Err(invalid("ProcessID required"));
            }
            match input {
                Some(Input::Init(init)) => self.start(process_id, init).await?,
                Some(Input::File(file)) => self.write(&process_id, file).await?,
                Some(Input::Resize(size)) => {
                    let side = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
                    let resized = self
                        .handle(&process_id)?
                        .process
                        .as_ref()
                        .map(|p| p.resize(side(size.rows), side(size.cols)));
                    log_refused("resize", resized);
                }
                Some(Input::Signal(signal)) => {
                    let number = signals::number(&signal.name);
                    let unknown = || invalid(format!("Unknown signal {}", clipped(&signal.name)));
                    let handle = self.handle(&process_id)?;
                    let number = number.ok_or_else(unknown)?;
                    log_refused("signal", handle.process.as_ref().map(|p| p.signal(number)));
                }
                // Of the server's own messages a client has none to send; BuildKit passes over them too.
                Some(Input::Started(_) | Input::Exit(_) | Input::Done(_)) | None => {}
            }
        }
        Ok(())
    }

    fn handle(&mut self, id: &str) -> Result<&mut Handle, Status> {
        let missing = || Status::not_found(format!("IO for process {:?} not found", clipped(id)));
        self.processes.get_mut(id).ok_or_else(missing)
    }

    async fn write(&mut self, id: &str, file: gateway::FdMessage) -> Result<(), Status> {
        let handle = self.handle(id)?;
        let Input0::Open(stdin) = &handle.stdin else {
            return Err(Status::out_of_range(format!("fd {} unavailable to write", file.fd)));
        };
        if file.fd != 0 {
            return Err(Status::out_of_range(format!("fd {} unavailable to write", file.fd)));
        }
        if !file.data.is_empty() {
            // Nobody reads any more: what is for a process that has ended is for nobody.
            let _ = stdin.send(file.data).await;
        }
        if file.eof {
            handle.stdin = Input0::Closed;
        }
        Ok(())
    }

    async fn start(&mut self, id: String, init: gateway::InitMessage) -> Result<(), Status> {
        if self.processes.contains_key(&id) {
            return Err(Status::already_exists(format!("Process {} already exists", clipped(&id))));
        }
        if self.processes.len() >= MAX_PROCESSES || init.fds.len() > MAX_FDS {
            return Err(Status::resource_exhausted("too many processes or descriptors"));
        }
        let container = init.container_id.clone();
        let mut fds = init.fds.clone();
        fds.sort_unstable();
        fds.dedup();
        let out = Outbox { process: id.clone(), sender: self.sender.clone() };
        let started = match start_spec(init, &fds) {
            Ok(spec) => self.bridge.start_process(&container, spec).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &started
            && error.code == Code::NotFound
        {
            return Err(crate::wire::error_status(error.clone()));
        }
        let (stdin, input) = mpsc::channel(1);
        let stdin = if fds.contains(&0) { Input0::Open(stdin) } else { Input0::Closed };
        if out.send(Input::Started(gateway::StartedMessage {})).await.is_err() {
            return Ok(());
        }
        let process = match started {
            Ok((process, io)) => {
                let process = Arc::new(process);
                let following = process::follow(process.clone(), io, fds, input, out);
                self.tasks.spawn(async { drop(following.await) });
                Some(process)
            }
            // One process that cannot be started is no harm to the others of the stream.
            Err(error) => {
                self.tasks.spawn(async move { drop(out.finish(&fds, Err(error)).await) });
                None
            }
        };
        self.processes.insert(id, Handle { process, stdin });
        Ok(())
    }
}

fn log_refused(what: &'static str, done: Option<Result<(), BuildError>>) {
    if let Some(Err(error)) = done {
        tracing::debug!(%error, "{what} a process of a container");
    }
}

fn start_spec(init: gateway::InitMessage, fds: &[u32]) -> Result<StartSpec, BuildError> {
    let wrong = |message: String| BuildError::new(Code::InvalidArgument, message);
    let meta = init.meta.ok_or_else(|| wrong("a process needs meta data".into()))?;
    let secret = |s: pb::SecretEnv| match s.id.is_empty() {
        true => Err(wrong(format!("secret ID missing for {:?} environment variable", s.name))),
        false => Ok(SecretEnv { id: s.id, name: s.name, optional: s.optional }),
    };
    Ok(StartSpec {
        args: meta.args,
        env: meta.env,
        secret_env: init.secretenv.into_iter().map(secret).collect::<Result<_, _>>()?,
        user: meta.user,
        cwd: meta.cwd,
        security: SecurityMode::from_wire(init.security).map_err(|e| wrong(e.to_string()))?,
        ulimits: meta
            .ulimit
            .into_iter()
            .map(|u| Ulimit { name: u.name, soft: u.soft, hard: u.hard })
            .collect(),
        io: Wanted {
            stdin: fds.contains(&0),
            stdout: fds.contains(&1),
            stderr: fds.contains(&2),
            terminal: init.tty,
        },
    })
}
