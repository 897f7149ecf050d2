//! What goes in and what comes out.

use std::sync::Arc;

use kiln_digest::Digest;

use crate::graph::{Edge, Graph, JobId, ResultId, Vertex};
use crate::index::{Change, KeyId};
use crate::observe::{Decision, Observer, VertexEvent};
use crate::ops::{CacheMap, Error, Ops};
use crate::shared::Shared;

/// Names a job within one scheduler. Chosen by the caller, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobKey(pub u64);

/// Names a request for a result. Chosen by the caller, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId(pub u64);

/// Names a piece of work. Chosen by the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(pub u64);

/// Who asks for a build and holds its vertices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A job.
    Job(JobKey),
    /// The operation of the vertex for which that task runs (a nested build).
    Task(TaskId),
}

/// Everything that can wake the scheduler.
pub enum Event<O: Ops> {
    /// A job begins.
    JobStarted {
        /// Names it in later events.
        job: JobKey,
        /// Its name in the world.
        id: JobId,
        /// Is told what happens to its vertices.
        observer: Arc<dyn Observer>,
    },
    /// A job ends: its builds are answered, what only it needed stops, what only it held is freed.
    JobEnded {
        /// Which.
        job: JobKey,
    },
    /// A result is wanted.
    Build {
        /// Names the answer.
        build: BuildId,
        /// For whom.
        owner: Owner,
        /// What to build.
        graph: Graph<O::Op>,
        /// Which result of it.
        edge: Edge,
    },
    /// The result of that build is not wanted any more; no answer will be given.
    Abandoned {
        /// Which.
        build: BuildId,
    },
    /// The execution of a task got its permit.
    Began {
        /// Which.
        task: TaskId,
    },
    /// A task ended. Comes exactly once for every started task, cancelled or not.
    Ended {
        /// Which.
        task: TaskId,
        /// With what.
        report: Report<O>,
    },
    /// Results do not exist any more.
    Forget {
        /// Which.
        results: Vec<ResultId>,
    },
}

/// How a task failed.
#[derive(Clone, Debug)]
pub enum Fault<E> {
    /// The operation said so.
    Op(E),
    /// It broke its contract or panicked.
    Internal(String),
    /// It was dropped after it had been cancelled.
    Dropped,
}

/// The results of an operation, with their names.
pub type Outputs<O> = Vec<(<O as Ops>::Result, ResultId)>;

/// What a task came to.
pub enum Report<O: Ops> {
    /// A page of the cache key.
    CacheMap(Result<CacheMap, Fault<O::Error>>),
    /// The input is prepared; the digest of its content if that was asked for.
    Input(Result<Option<Digest>, Fault<O::Error>>),
    /// All outputs, with their names.
    Exec(Result<Outputs<O>, Fault<O::Error>>),
    /// A result of an earlier build, or `None` if it is gone.
    Load(Result<Option<O::Result>, Fault<O::Error>>),
}

/// Work to be done outside.
pub enum Work<O: Ops> {
    /// [`Ops::cache_map`].
    CacheMap {
        /// Which page.
        page: usize,
    },
    /// [`Ops::prepare`] and then [`Ops::content_key`], as far as asked for.
    Input {
        /// Which input.
        input: usize,
        /// Its result.
        result: O::Result,
        /// Whether to prepare.
        prepare: bool,
        /// Whether to compute the digest.
        content: bool,
    },
    /// [`Ops::acquire`], then report [`Event::Began`], then [`Ops::exec`].
    Exec {
        /// The results of all inputs.
        inputs: Vec<O::Result>,
    },
    /// [`Ops::load`].
    Load {
        /// Which.
        record: ResultId,
    },
}

/// A started task.
pub struct Task<O: Ops> {
    /// Names it.
    pub id: TaskId,
    /// What to do.
    pub work: Work<O>,
    /// For which vertex.
    pub vertex: Arc<Vertex<O::Op>>,
    pub(crate) shown_as: Digest,
    pub(crate) ignore_cache: bool,
    pub(crate) shared: Arc<Shared>,
    pub(crate) inputs: Vec<Arc<Shared>>,
}

/// What a job is told.
#[derive(Clone, Debug)]
pub enum Note {
    /// See [`Observer::vertex`].
    Vertex(VertexEvent),
    /// See [`Observer::decision`].
    Decision(Arc<Decision>),
}

/// What the scheduler wants done. To be carried out in order.
pub enum Action<O: Ops> {
    /// Start a task.
    Start(Box<Task<O>>),
    /// Nobody needs that task any more.
    Cancel(TaskId),
    /// Answer a build.
    Answer {
        /// Which.
        build: BuildId,
        /// With what.
        result: Result<Built<O::Result>, Arc<Error<O::Error>>>,
    },
    /// Tell jobs.
    Tell {
        /// Whom.
        to: Vec<Arc<dyn Observer>>,
        /// What.
        note: Note,
    },
    /// Persist changes of the cache index.
    Journal(Vec<Change>),
}

/// What a build came to.
#[derive(Clone, Debug)]
pub struct Built<R> {
    /// The result.
    pub result: R,
    /// Its name in the cache.
    pub id: ResultId,
    /// Under what it is known.
    pub keys: CacheKeyInfo,
}

/// The cache keys of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheKeyInfo {
    /// Keys in the [`CacheIndex`]; several for sources with several pages.
    pub keys: Vec<KeyId>,
    /// It was loaded, not executed.
    pub cached: bool,
}
