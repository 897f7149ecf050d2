//! Results that a frontend has asked for: graphs that are built when somebody needs them.

use kiln_frontend::RefId;
use kiln_llb::errdefs::{BuildError, Code};
use kiln_llb::{Definition, Location, SourceMap};
use kiln_solver::{Edge, Error, Job};
use kiln_worker::{Ref, Worker, graph};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

/// The lazy results of one build.
pub(crate) struct Refs {
    job: Job<Worker>,
    check: Check,
    refs: Mutex<BTreeMap<String, Arc<Lazy>>>,
}

/// Decides whether a graph may run (entitlements).
pub(crate) type Check = Box<dyn Fn(&Definition) -> Result<(), BuildError> + Send + Sync>;

struct Lazy {
    definition: Definition,
    result: OnceCell<Result<Ref, BuildError>>,
}

impl Refs {
    pub(crate) fn new(job: Job<Worker>, check: Check) -> Self {
        Self { job, check, refs: Mutex::default() }
    }

    /// Takes a graph; nothing runs yet.
    pub(crate) fn add(&self, definition: Definition) -> Result<RefId, BuildError> {
        (self.check)(&definition)?;
        let mut refs = self.refs.lock().unwrap_or_else(PoisonError::into_inner);
        let id = format!("ref-{}", refs.len());
        refs.insert(id.clone(), Arc::new(Lazy { definition, result: OnceCell::new() }));
        Ok(RefId(id))
    }

    /// Builds it, once.
    pub(crate) async fn get(&self, id: &RefId) -> Result<Ref, BuildError> {
        let found = self.refs.lock().unwrap_or_else(PoisonError::into_inner).get(&id.0).cloned();
        let lazy = found.ok_or_else(|| BuildError::new(Code::NotFound, format!("no such ref: {}", id.0)))?;
        lazy.result.get_or_init(|| self.build(&lazy.definition)).await.clone()
    }

    /// Builds a graph. An error says where in the source its vertex was written.
    pub(crate) async fn build(&self, definition: &Definition) -> Result<Ref, BuildError> {
        let Some(root) = definition.root() else { return Ok(Ref::default()) };
        let invalid = |e: String| BuildError::new(Code::InvalidArgument, e);
        let graph = graph(definition).map_err(|e| invalid(e.to_string()))?;
        let index = u32::try_from(root.index).map_err(|e| invalid(e.to_string()))?;
        match self.job.build(&graph, Edge { digest: root.digest, index }).await {
            Ok(built) => Ok(built.result),
            Err(error) => Err(located(&error, definition)),
        }
    }

    pub(crate) fn warn_import(&self, kind: &str) {
        tracing::warn!(kind, "cache imports are not built yet; this one is not used");
    }
}

/// The error of a vertex with the vertex and the places in the source.
fn located(error: &Error<BuildError>, definition: &Definition) -> BuildError {
    let (vertex, error) = match error {
        Error::Op { vertex, error } => (*vertex, error.clone()),
        Error::Internal { vertex, message } => (*vertex, BuildError::new(Code::Internal, message.clone())),
        Error::Canceled => return BuildError::canceled(),
        other => return BuildError::new(Code::InvalidArgument, other.to_string()),
    };
    let error = if error.vertex().is_none() { error.with_vertex(vertex) } else { error };
    let Some(source) = definition.source() else { return error };
    let places = source.locations.get(&vertex.to_string()).map(Vec::as_slice).unwrap_or_default();
    places.iter().fold(error, |error, place| with_place(error, source, place))
}

fn with_place(error: BuildError, source: &SourceMap, place: &Location) -> BuildError {
    match source.infos.get(place.source_index) {
        Some(info) => error.with_source(info.clone(), place.ranges.clone()),
        None => error,
    }
}
