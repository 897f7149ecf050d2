//! What the solver needs from the world: the operations themselves.

use std::any::Any;
use std::fmt::Display;
use std::sync::Arc;

use async_trait::async_trait;
use kiln_digest::Digest;
use tokio_util::sync::CancellationToken;

use crate::driver::Nested;
use crate::graph::{Edge, Graph, GraphError, ResultId, Vertex};
use crate::scheduler::Built;
use crate::shared::{JobSet, VertexProgress};

/// How one input takes part in the cache key of an operation (spec section 4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dep {
    /// Which part of the input is used; goes into the link between the two keys.
    pub selector: Option<Digest>,
    /// The input may also be matched by its content, see [`Ops::content_key`].
    pub content: bool,
    /// [`Ops::prepare`] runs on the input before its content is read and before the operation is executed.
    pub prepare: bool,
}

/// One page of an operation's cache key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMap {
    /// Digest of the operation without its inputs.
    pub digest: Digest,
    /// One per input of the vertex. Empty for operations without inputs.
    pub deps: Vec<Dep>,
    /// No further page exists. Only operations without inputs may have several: alternative keys for one result,
    /// asked for one after the other until one of them has a result.
    pub last: bool,
}

/// Held while an operation executes; see [`Ops::acquire`].
pub type Permit = Box<dyn Any + Send>;

/// The operations. Each call is one task of its own; when nobody waits for it any more its `cx.cancel` fires, and
/// if it does not end by itself soon after, it is dropped.
///
/// An error returned after `cx.cancel` fired is not kept; any other error fails the builds that wait for the vertex,
/// and the operation is tried anew when a later build asks for it.
#[async_trait]
pub trait Ops: Send + Sync + Sized + 'static {
    /// What is in a [`Vertex`].
    type Op: Send + Sync + 'static;
    /// One output of an operation. A handle: cheap to clone; the output stays alive while one exists.
    type Result: Clone + Send + Sync + 'static;
    /// Why an operation failed.
    type Error: Clone + Display + Send + Sync + 'static;

    /// The `page`th cache key of the operation, from 0. Pages are asked in order, each once.
    async fn cache_map(
        &self,
        cx: &OpContext<Self>,
        vertex: &Vertex<Self::Op>,
        page: usize,
    ) -> Result<CacheMap, Self::Error>;

    /// Makes `result` ready for use as that input, for example pulls its layers. Called only for a [`Dep`] with
    /// `prepare`, before `content_key` and before `exec`. Its progress belongs to the input: `cx.input(input)`.
    async fn prepare(
        &self,
        _cx: &OpContext<Self>,
        _vertex: &Vertex<Self::Op>,
        _input: usize,
        _result: &Self::Result,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Digest of what the operation uses of that input. Called only for a [`Dep`] with `content`.
    async fn content_key(
        &self,
        cx: &OpContext<Self>,
        vertex: &Vertex<Self::Op>,
        input: usize,
        result: &Self::Result,
    ) -> Result<Digest, Self::Error>;

    /// Waits until the operation may execute (limits on parallelism). The vertex counts as started only afterwards;
    /// the permit is dropped when `exec` returned.
    async fn acquire(
        &self,
        _cx: &OpContext<Self>,
        _vertex: &Vertex<Self::Op>,
    ) -> Result<Permit, Self::Error> {
        Ok(Box::new(()))
    }

    /// Executes the operation: all its outputs. `inputs` are in the order of the vertex.
    async fn exec(
        &self,
        cx: &OpContext<Self>,
        vertex: &Vertex<Self::Op>,
        inputs: Vec<Self::Result>,
    ) -> Result<Vec<Self::Result>, Self::Error>;

    /// A result of an earlier build. `None`: it is gone, and its record is removed. An error keeps the record. In both
    /// cases other records are tried, then the operation is executed.
    async fn load(
        &self,
        cx: &OpContext<Self>,
        record: &ResultId,
    ) -> Result<Option<Self::Result>, Self::Error>;

    /// The name under which `load` can find that result in a later process.
    fn result_id(&self, result: &Self::Result) -> ResultId;
}

/// What an operation may know of its surroundings.
pub struct OpContext<O: Ops> {
    /// The digest under which the vertex is shown. Differs from `Vertex::digest` only for a vertex that runs without
    /// cache beside a cached twin (spec section 1).
    pub vertex: Digest,
    /// Fires when nobody waits for this work any more.
    pub cancel: CancellationToken,
    /// The jobs that wait for the vertex, live: jobs come and go while it runs.
    pub jobs: JobSet,
    /// Reports to all those jobs.
    pub progress: VertexProgress,
    /// The vertex runs without cache.
    pub ignore_cache: bool,
    pub(crate) inputs: Vec<VertexProgress>,
    pub(crate) nested: Nested<O>,
}

impl<O: Ops> OpContext<O> {
    /// Reports as that input: what is done late on behalf of an input (pulling its layers) is shown there.
    pub fn input(&self, index: usize) -> &VertexProgress {
        self.inputs.get(index).unwrap_or(&self.progress)
    }

    /// Builds another graph as part of this operation. It is held by this vertex and seen by its jobs.
    pub async fn build(
        &self,
        graph: &Graph<O::Op>,
        edge: Edge,
    ) -> Result<Built<O::Result>, Arc<Error<O::Error>>> {
        self.nested.build(graph, edge).await
    }
}

/// Why a build has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error<E: Display> {
    /// An operation failed.
    #[error("{error}")]
    Op {
        /// The vertex as given in the graph.
        vertex: Digest,
        /// What the operation said.
        error: E,
    },
    /// An operation broke its contract or panicked.
    #[error("vertex {vertex}: {message}")]
    Internal {
        /// The vertex as given in the graph.
        vertex: Digest,
        /// What happened.
        message: String,
    },
    /// The edge is not in the graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A nested build waits for the vertex that started it, or nests too deep.
    #[error("vertex {0} builds itself")]
    Recursive(Digest),
    /// The job or the solver ended.
    #[error("context canceled")]
    Canceled,
}
