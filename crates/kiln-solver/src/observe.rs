//! What a job is told while it is built.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kiln_digest::Digest;

use crate::graph::ResultId;
use crate::index::KeyId;

/// Receives what happens to the vertices of one job. Called from the solver's task and from operations, so it must
/// return at once: queue, never wait.
pub trait Observer: Send + Sync + 'static {
    /// A vertex changed.
    fn vertex(&self, event: &VertexEvent);

    /// An operation reports.
    fn progress(&self, _vertex: &Digest, _progress: &OpProgress) {}

    /// A cache decision was made and carried out.
    fn decision(&self, _decision: &Arc<Decision>) {}
}

/// Observes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn vertex(&self, _event: &VertexEvent) {}
}

/// A vertex, as shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VertexInfo {
    /// The digest under which it is shown.
    pub digest: Digest,
    /// The digest in the graph; almost always the same.
    pub original: Digest,
    /// Its name.
    pub name: String,
    /// The digests under which its inputs are shown.
    pub inputs: Vec<Digest>,
}

/// A change of a vertex (spec section 6). One vertex may start and complete several times: for its cache key, then
/// to be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VertexEvent {
    /// The vertex is part of the job. Sent once per job and vertex, first.
    Loaded(Arc<VertexInfo>),
    /// Work on it began.
    Started {
        /// Which.
        vertex: Digest,
        /// When.
        at: SystemTime,
        /// It is being loaded from the cache.
        cached: bool,
    },
    /// Work on it ended. Inputs of a vertex that starts which never started themselves are completed, as cached, at
    /// that moment.
    Completed {
        /// Which.
        vertex: Digest,
        /// When it had begun.
        started: SystemTime,
        /// When it ended.
        at: SystemTime,
        /// It came from the cache.
        cached: bool,
        /// Why it failed; `context canceled` when nobody waited for it any more.
        error: Option<String>,
    },
}

/// Which output of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// 1
    Stdout,
    /// 2
    Stderr,
}

/// What an operation reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpProgress {
    /// A part of the work, for example one layer that is pulled.
    Status {
        /// Names the part within the vertex.
        id: String,
        /// What is done, for example `downloading`.
        action: String,
        /// How far, in units of `total`.
        current: i64,
        /// How far it will go; 0 when unknown.
        total: i64,
        /// When this was so.
        at: SystemTime,
        /// When the part began.
        started: Option<SystemTime>,
        /// When it ended.
        completed: Option<SystemTime>,
    },
    /// Output of a process.
    Log {
        /// Which stream.
        stream: Stream,
        /// The bytes, as they came.
        data: Arc<[u8]>,
        /// When.
        at: SystemTime,
    },
    /// Something worth knowing.
    Warning {
        /// 1 is the most important.
        level: i64,
        /// One line.
        short: String,
        /// More lines.
        detail: Vec<String>,
        /// Where to read on; may be empty.
        url: String,
    },
}

/// Why a vertex was taken from the cache or run, kept so that it can be explained later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The vertex, as given in the graph.
    pub vertex: Digest,
    /// Which of its outputs.
    pub output: u32,
    /// The digests of the operation that were looked up.
    pub op: Vec<Digest>,
    /// What was known of each input.
    pub inputs: Vec<InputKeys>,
    /// What was decided.
    pub outcome: Outcome,
    /// How long the loading or the execution took.
    pub ran_for: Duration,
}

/// What was compared for one input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputKeys {
    /// Cache keys of the input.
    pub keys: Vec<KeyId>,
    /// The part of it that is used.
    pub selector: Option<Digest>,
    /// Digest of its content, when that was computed.
    pub content: Option<Digest>,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The definitions matched an earlier run.
    HitFast(ResultId),
    /// At least one input matched only by its content.
    HitContent(ResultId),
    /// Another vertex with the same key was running or had just run.
    Shared(Digest),
    /// Executed.
    Miss(Nearest),
    /// Executed because the cache was not to be used.
    Ignored,
}

/// What differed from the nearest earlier run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nearest {
    /// Neither the operation nor its inputs were seen together with anything before.
    Nothing,
    /// The inputs are known, but not with this operation.
    Operation,
    /// An earlier run had the same operation and some of the inputs.
    Inputs {
        /// Inputs that differ, by position.
        differing: Vec<usize>,
    },
    /// The key is known, but its results are gone or could not be loaded.
    ResultGone,
}
