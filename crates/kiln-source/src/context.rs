//! What a source needs from the build that asked for it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use kiln_digest::Digest;
use kiln_registry::{Access, Observer, RegistryError};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Memo;
use crate::layout::{ByteStream, Layout};

/// A stream of bytes that is read.
pub type ByteReader = Box<dyn AsyncRead + Send + Unpin>;

/// A stream of bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The client did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ClientError(pub String);

/// What the clients of the waiting builds can do for a source. One object stands for all of them.
#[async_trait]
pub trait Client: Send + Sync {
    /// A secret, `None` if no client has it.
    async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, ClientError>;

    /// A connection to the ssh agent `id` (`default`, or a name).
    async fn ssh_agent(&self, id: &str) -> Result<Box<dyn Duplex>, ClientError>;

    /// Fails with a clear reason if no client forwards the ssh agent `id`.
    async fn check_ssh_agent(&self, id: &str) -> Result<(), ClientError>;

    /// What a client serves at `http://<host><path>`, such as a context from standard input.
    async fn upload(&self, host: &str, path: &str) -> Result<ByteReader, ClientError>;

    /// Begins to read a blob of a layout that a client lends.
    async fn layout_blob(&self, layout: &Layout, digest: &Digest) -> Result<ByteStream, ClientError> {
        let Layout { store, .. } = layout;
        Err(ClientError(format!("no client lends layout {store}, so {digest} cannot be read")))
    }
}

/// A client that has nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoClient;

#[async_trait]
impl Client for NoClient {
    async fn secret(&self, _: &str) -> Result<Option<Vec<u8>>, ClientError> {
        Ok(None)
    }

    async fn ssh_agent(&self, id: &str) -> Result<Box<dyn Duplex>, ClientError> {
        Err(ClientError(format!("no SSH key {id:?} forwarded from the client")))
    }

    async fn check_ssh_agent(&self, id: &str) -> Result<(), ClientError> {
        self.ssh_agent(id).await.map(drop)
    }

    async fn upload(&self, _: &str, _: &str) -> Result<ByteReader, ClientError> {
        Err(ClientError("no active sessions".to_string()))
    }
}

/// One line of progress below a step; sent again when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Which line, such as `sha256:...` or `resolve docker.io/library/alpine:3`.
    pub id: String,
    /// What is being done, such as `downloading`; may be empty.
    pub action: String,
    /// Bytes done.
    pub current: u64,
    /// Bytes in all, 0 if not known.
    pub total: u64,
    /// When it began.
    pub started: SystemTime,
    /// When it ended.
    pub completed: Option<SystemTime>,
}

/// Where a line of output belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Is told how a source comes along, from several threads.
pub trait Progress: Send + Sync {
    /// A line changed.
    fn status(&self, status: Status);
    /// Output of a program, or a note such as a retry. Whole lines, already redacted.
    fn log(&self, stream: LogStream, data: &[u8]);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn status(&self, _: Status) {}
    fn log(&self, _: LogStream, _: &[u8]) {}
}

/// Shows the retries of registry calls as log lines, as BuildKit does.
pub struct RetryLog(pub Arc<dyn Progress>);

impl Observer for RetryLog {
    fn retrying(&self, error: &RegistryError, delay: Duration) {
        let line = format!("error: {error}\nretrying in {}s\n", delay.as_secs_f32());
        self.0.log(LogStream::Stderr, line.as_bytes());
    }
}

/// What comes with each call.
#[derive(Clone)]
pub struct SourceContext {
    /// Registry credentials and who sees retries.
    pub access: Access,
    /// Secrets, agents, uploads.
    pub client: Arc<dyn Client>,
    /// Who sees progress.
    pub progress: Arc<dyn Progress>,
    /// What the waiting builds know already.
    pub memos: Vec<Arc<Memo>>,
}

impl SourceContext {
    /// Nobody asks and nobody watches.
    pub fn anonymous() -> Self {
        Self {
            access: Access::anonymous(),
            client: Arc::new(NoClient),
            progress: Arc::new(NoProgress),
            memos: Vec::new(),
        }
    }

    /// Starts a line of progress that ends when the returned value is dropped.
    pub(crate) fn begin(&self, id: impl Into<String>) -> Running {
        let status = Status {
            id: id.into(),
            action: String::new(),
            current: 0,
            total: 0,
            started: SystemTime::now(),
            completed: None,
        };
        self.progress.status(status.clone());
        Running { status, progress: self.progress.clone() }
    }
}

impl fmt::Debug for SourceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SourceContext")
    }
}

/// A line of progress under way.
pub(crate) struct Running {
    status: Status,
    progress: Arc<dyn Progress>,
}

impl Running {
    pub(crate) fn set(&mut self, action: &str, current: u64, total: u64) {
        (self.status.action, self.status.current, self.status.total) = (action.to_string(), current, total);
        self.progress.status(self.status.clone());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.status.completed = Some(SystemTime::now());
        self.progress.status(self.status.clone());
    }
}
