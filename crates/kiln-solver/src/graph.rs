//! The graph of a build as the solver sees it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use kiln_digest::Digest;

/// One output of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// The vertex.
    pub digest: Digest,
    /// Which of its outputs.
    pub index: u32,
}

/// One operation of a build. `O` is what the [`Ops`](crate::Ops) understand; the solver never looks into it.
#[derive(Debug)]
pub struct Vertex<O> {
    /// Digest of the definition of this vertex and everything below it.
    pub digest: Digest,
    /// The name shown to people.
    pub name: String,
    /// What it needs, in the order that its operation knows them.
    pub inputs: Vec<Edge>,
    /// Run although the cache has a result (`--no-cache`). The result is saved nevertheless.
    pub ignore_cache: bool,
    /// The operation.
    pub op: Arc<O>,
}

/// A checked graph: no vertex twice, no unknown input, no cycle. Cheap to clone.
#[derive(Debug)]
pub struct Graph<O> {
    inner: Arc<Inner<O>>,
}

#[derive(Debug)]
struct Inner<O> {
    /// Inputs before those that need them.
    sorted: Vec<Arc<Vertex<O>>>,
    by_digest: HashMap<Digest, usize>,
}

/// Why vertices do not make a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Two vertices have one digest.
    #[error("vertex {0} is given twice")]
    Twice(Digest),
    /// An input is not among the vertices.
    #[error("input {input} of vertex {vertex} is not part of the graph")]
    MissingInput {
        /// Who needs it.
        vertex: Digest,
        /// What is missing.
        input: Digest,
    },
    /// The vertex depends on itself.
    #[error("vertex {0} depends on itself")]
    Cycle(Digest),
    /// The edge asked for names a vertex that the graph has not.
    #[error("vertex {0} is not part of the graph")]
    UnknownRoot(Digest),
}

impl<O> Clone for Graph<O> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<O> Graph<O> {
    /// Checks and sorts `vertices`, which may come in any order. Linear in the number of edges.
    pub fn new(vertices: impl IntoIterator<Item = Vertex<O>>) -> Result<Self, GraphError> {
        let vertices: Vec<Arc<Vertex<O>>> = vertices.into_iter().map(Arc::new).collect();
        let mut position = HashMap::with_capacity(vertices.len());
        for (i, v) in vertices.iter().enumerate() {
            if position.insert(v.digest, i).is_some() {
                return Err(GraphError::Twice(v.digest));
            }
        }
        let order = sort(&vertices, &position)?;
        let sorted: Vec<_> = order.iter().map(|i| vertices[*i].clone()).collect();
        let by_digest = sorted.iter().enumerate().map(|(i, v)| (v.digest, i)).collect();
        Ok(Self { inner: Arc::new(Inner { sorted, by_digest }) })
    }

    /// The vertex of that digest.
    pub fn get(&self, digest: &Digest) -> Option<&Arc<Vertex<O>>> {
        self.inner.by_digest.get(digest).map(|i| &self.inner.sorted[*i])
    }

    /// All vertices, inputs before those that need them.
    pub fn vertices(&self) -> &[Arc<Vertex<O>>] {
        &self.inner.sorted
    }
}

/// Topological order with an explicit stack, because graphs may be thousands of vertices deep.
fn sort<O>(vertices: &[Arc<Vertex<O>>], position: &HashMap<Digest, usize>) -> Result<Vec<usize>, GraphError> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; vertices.len()];
    let mut order = Vec::with_capacity(vertices.len());
    let mut stack = Vec::new();
    for start in 0..vertices.len() {
        if marks[start] != Mark::New {
            continue;
        }
        marks[start] = Mark::Open;
        stack.push((start, 0));
        while let Some((at, next)) = stack.pop() {
            let vertex = &vertices[at];
            let Some(input) = vertex.inputs.get(next) else {
                marks[at] = Mark::Done;
                order.push(at);
                continue;
            };
            stack.push((at, next + 1));
            let below = *position
                .get(&input.digest)
                .ok_or(GraphError::MissingInput { vertex: vertex.digest, input: input.digest })?;
            match marks[below] {
                Mark::Done => {}
                Mark::Open => return Err(GraphError::Cycle(input.digest)),
                Mark::New => {
                    marks[below] = Mark::Open;
                    stack.push((below, 0));
                }
            }
        }
    }
    Ok(order)
}

/// The name of a stored result, as [`Ops::result_id`](crate::Ops::result_id) gives it; persisted in cache records.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResultId(Arc<str>);

/// The name of a job: the `Ref` of a solve request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(Arc<str>);

macro_rules! text_id {
    ($name:ident) => {
        impl $name {
            /// From its text.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(ResultId);
text_id!(JobId);
