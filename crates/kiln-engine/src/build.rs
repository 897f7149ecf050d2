//! One build while it runs: what its frontends and its client may use of the engine.

use crate::entitle::Rights;
use crate::hub::Hub;
use crate::{Engine, SourceRules};
use futures::FutureExt;
use kiln_llb::errdefs::{BuildError, Code, Detail, SolveSubject};
use kiln_llb::{Definition, Location, SourceMap, caps};
use kiln_policy::Policies;
use kiln_progress::{LineRange, ProgressGroup, Warning};
use kiln_solver::{Edge, Error, Job};
use kiln_worker::{Failure, Ref, Worker, graph};
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{OnceCell, Semaphore};

/// One build. Dropped when its request has been answered and nobody asks it any more.
pub(crate) struct Build {
    pub(crate) engine: Engine,
    pub(crate) id: String,
    pub(crate) session: String,
    pub(crate) hub: Hub,
    /// What it may do.
    pub(crate) rights: Rights,
    /// Which sources it may use.
    pub(crate) sources: SourceRules,
    pub(crate) job: Job<Worker>,
    /// Names of the cache imports that were said to be left out.
    pub(crate) skipped_imports: Mutex<HashSet<String>>,
    /// Bytes of all graphs that were added.
    pub(crate) graph_bytes: AtomicUsize,
    /// Bytes of all warnings that were asked for.
    pub(crate) warning_bytes: AtomicUsize,
    /// Held by frontends that run.
    pub(crate) frontends: Semaphore,
}

/// Most bytes that the graphs of one build may have together: nobody else's memory is a client's to use up.
const MAX_GRAPH_BYTES: usize = 512 << 20;

/// Most bytes that warnings of one build may have together: they are kept on disk until it is forgotten.
const MAX_WARNING_BYTES: usize = 64 << 20;
/// What a warning costs beside its texts.
const WARNING: usize = 256;

/// A graph that is built when somebody needs its result. Clones are the same.
#[derive(Clone)]
pub(crate) struct LazyRef(Arc<Lazy>);

struct Lazy {
    asked: Definition,
    definition: Definition,
    result: OnceCell<Result<Ref, Failure>>,
}

impl LazyRef {
    /// What was asked for, before source policies.
    pub(crate) fn asked(&self) -> &Definition {
        &self.0.asked
    }

    /// What is built.
    pub(crate) fn definition(&self) -> &Definition {
        &self.0.definition
    }
}

impl Build {
    /// Takes a graph that may run here; nothing runs yet. `None` is scratch.
    ///
    /// # Errors
    /// If the graph asks for what is not granted or not known here.
    pub(crate) async fn add(
        &self,
        asked: Definition,
        policies: &Policies,
    ) -> Result<Option<LazyRef>, BuildError> {
        if asked.root().is_none() {
            return Ok(None);
        }
        let definition = self.admit(asked.clone(), policies).await?;
        check_caps(&definition).map_err(|e| e.context("failed to load LLB"))?;
        self.forget_cache_mounts(&definition)?;
        self.hub.set_groups(groups(&definition));
        Ok(Some(LazyRef(Arc::new(Lazy { asked, definition, result: OnceCell::new() }))))
    }

    /// A graph as it may run here: with the sources that it may use, and with no more rights than the build has.
    ///
    /// # Errors
    /// If it asks for what is not granted.
    pub(crate) async fn admit(
        &self,
        asked: Definition,
        policies: &Policies,
    ) -> Result<Definition, BuildError> {
        self.count(&asked)?;
        let definition = self.police_graph(asked, policies).boxed().await?;
        self.rights.admit(definition).map_err(|e| e.context("failed to load LLB"))
    }

    fn count(&self, definition: &Definition) -> Result<(), BuildError> {
        let bytes: usize = definition.vertices().iter().map(|v| v.encoded().len()).sum();
        let before = self.graph_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) <= MAX_GRAPH_BYTES {
            return Ok(());
        }
        let message = format!("the graphs of this build have more than {MAX_GRAPH_BYTES} bytes");
        Err(BuildError::new(Code::ResourceExhausted, message))
    }

    /// Says a warning of the frontend or client.
    ///
    /// # Errors
    /// If there have been too many.
    pub(crate) fn warn(&self, warning: Warning) -> Result<(), BuildError> {
        let source =
            warning.source.as_ref().map_or(0, |s| s.filename.len() + s.data.len() + s.language.len());
        let detail: usize = warning.detail.iter().map(|line| line.len() + size_of::<Vec<u8>>()).sum();
        let ranges = warning.ranges.len() * size_of::<LineRange>();
        let bytes = WARNING + warning.short.len() + warning.url.len() + source + detail + ranges;
        let before = self.warning_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > MAX_WARNING_BYTES {
            let message = format!("the warnings of this build have more than {MAX_WARNING_BYTES} bytes");
            return Err(BuildError::new(Code::ResourceExhausted, message));
        }
        self.hub.warning(warning);
        Ok(())
    }

    /// Builds it, once.
    pub(crate) async fn get(&self, lazy: &LazyRef) -> Result<Ref, Failure> {
        lazy.0.result.get_or_init(|| self.build(lazy.definition())).await.clone()
    }

    /// An error says where in the source its vertex was written.
    async fn build(&self, definition: &Definition) -> Result<Ref, Failure> {
        let Some(root) = definition.root() else { return Ok(Ref::default()) };
        let invalid = |e: String| BuildError::new(Code::InvalidArgument, e);
        let graph = graph(definition).map_err(|e| invalid(e.to_string()))?;
        let index = u32::try_from(root.index).map_err(|e| invalid(e.to_string()))?;
        match self.job.build(&graph, Edge { digest: root.digest, index }).await {
            Ok(built) => Ok(built.result),
            Err(error) => Err(located(&error, definition)),
        }
    }

    /// Steps without cache start with new cache mounts (spec llb-and-solver.md section 7).
    fn forget_cache_mounts(&self, definition: &Definition) -> Result<(), BuildError> {
        let mut ids = Vec::new();
        for vertex in definition.vertices().iter().filter(|v| v.metadata.ignore_cache) {
            let kiln_llb::Op::Exec(exec) = &vertex.op else { continue };
            for mount in &exec.mounts {
                if let kiln_llb::MountKind::Cache { id, .. } = &mount.kind {
                    ids.push(if id.is_empty() { mount.dest.as_str() } else { id.as_str() });
                }
            }
        }
        if ids.is_empty() {
            return Ok(());
        }
        self.engine.snapshots().drop_cache_mounts(&ids).map_err(|e| BuildError::msg(e.to_string()))
    }
}

/// Everything that a vertex says it needs must be known here.
fn check_caps(definition: &Definition) -> Result<(), BuildError> {
    for vertex in definition.vertices() {
        let mut needed = vertex.metadata.caps.iter().filter(|(_, needed)| **needed).map(|(id, _)| id);
        if let Some(id) = needed.find(|id| !caps::supports_llb(id)) {
            let error = BuildError::new(Code::Unimplemented, caps::missing(id));
            return Err(error.with_vertex(vertex.digest));
        }
    }
    Ok(())
}

fn groups(definition: &Definition) -> impl Iterator<Item = (kiln_digest::Digest, ProgressGroup)> {
    definition.vertices().iter().filter_map(|v| {
        let group = v.metadata.progress_group.as_ref()?;
        let (id, name) = (group.id.clone(), group.name.clone());
        Some((v.digest, ProgressGroup { id, name, weak: group.weak }))
    })
}

/// The error of a vertex with the vertex and the places in the source.
fn located(error: &Error<Failure>, definition: &Definition) -> Failure {
    let (vertex, failure) = match error {
        Error::Op { vertex, error } => (*vertex, error.clone()),
        Error::Internal { vertex, message } => {
            (*vertex, BuildError::new(Code::Internal, message.clone()).into())
        }
        Error::Canceled => return BuildError::canceled().into(),
        other => return BuildError::new(Code::InvalidArgument, other.to_string()).into(),
    };
    let Failure { error, left } = failure;
    let error = if error.vertex().is_none() { error.with_vertex(vertex) } else { error };
    // The vertex shows the reason alone; whoever waits for the result is told when it came up.
    let error = if is_of_cache_key(&error) { error.context("failed to compute cache key") } else { error };
    let Some(source) = definition.source() else { return Failure { error, left } };
    let places = source.locations.get(&vertex.to_string()).map(Vec::as_slice).unwrap_or_default();
    let error = places.iter().fold(error, |error, place| with_place(error, source, place));
    Failure { error, left }
}

fn is_of_cache_key(error: &BuildError) -> bool {
    let of_cache_key = |d: &Detail| matches!(d, Detail::Solve { subject: Some(SolveSubject::Cache(_)), .. });
    error.details.iter().any(of_cache_key)
}

fn with_place(error: BuildError, source: &SourceMap, place: &Location) -> BuildError {
    match source.infos.get(place.source_index) {
        Some(info) => error.with_source(info.clone(), place.ranges.clone()),
        None => error,
    }
}
