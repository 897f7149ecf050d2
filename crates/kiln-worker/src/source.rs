//! Source: brings content in. The instance is made once per vertex, so that its keys and its snapshot agree.

use crate::clients::Clients;
use crate::exec::failed;
use crate::{Cx, Ref, Worker};
use kiln_llb::errdefs::{BuildError, Code};
use kiln_llb::{SourceOp, Vertex};
use kiln_registry::Access;
use kiln_session::SessionManager;
use kiln_solver::{CacheMap, OpProgress, Stream, VertexProgress};
use kiln_source::{LogStream, Progress, SourceContext, SourceInstance, SourceKeys, Status};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// A vertex as the worker keeps it.
pub struct WorkerOp {
    /// The definition.
    pub vertex: Arc<Vertex>,
    pub(crate) opened: OnceCell<Opened>,
}

/// A source that has been looked at.
#[derive(Clone)]
pub(crate) struct Opened {
    instance: Arc<dyn SourceInstance>,
    keys: SourceKeys,
}

impl WorkerOp {
    /// Nothing is asked yet.
    pub fn new(vertex: Arc<Vertex>) -> Self {
        Self { vertex, opened: OnceCell::new() }
    }
}

impl std::fmt::Debug for WorkerOp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.vertex.fmt(f)
    }
}

pub(crate) async fn cache_map(
    worker: &Worker,
    cx: &Cx,
    op: &WorkerOp,
    source: &SourceOp,
    page: usize,
) -> Result<CacheMap, BuildError> {
    let opened = open(worker, cx, op, source).await?;
    let digests = opened.keys.digests();
    let digest = digests.get(page).or(digests.last()).copied();
    let digest = digest.ok_or_else(|| BuildError::new(Code::Internal, "a source without a key"))?;
    Ok(CacheMap { digest, deps: Vec::new(), last: page + 1 >= digests.len() })
}

pub(crate) async fn snapshot(
    worker: &Worker,
    cx: &Cx,
    op: &WorkerOp,
    source: &SourceOp,
) -> Result<Ref, BuildError> {
    let opened = open(worker, cx, op, source).await?;
    let snapshot =
        opened.instance.snapshot(&context(worker, cx, &cx.progress)).await.map_err(|e| source_error(&e))?;
    Ok(Ref(snapshot))
}

async fn open<'a>(
    worker: &Worker,
    cx: &Cx,
    op: &'a WorkerOp,
    source: &SourceOp,
) -> Result<&'a Opened, BuildError> {
    let resolve = || async {
        let instance: Arc<dyn SourceInstance> = match source.split() {
            Some(("local", name)) => Arc::new(
                worker.0.local.open(name, source, worker.0.session_ids(cx)).map_err(|e| source_error(&e))?,
            ),
            _ => {
                let platform = op.vertex.platform.as_ref().unwrap_or(&worker.0.platform);
                worker.0.sources.open_source(source, platform).map_err(|e| source_error(&e))?.into()
            }
        };
        let keys = instance.keys(&context(worker, cx, &cx.progress)).await.map_err(|e| source_error(&e))?;
        Ok(Opened { instance, keys })
    };
    op.opened.get_or_try_init(resolve).await
}

/// On behalf of the jobs that wait, shown as `progress`.
pub(crate) fn context(worker: &Worker, cx: &Cx, progress: &VertexProgress) -> SourceContext {
    let (inner, jobs) = (worker.0.clone(), cx.jobs.clone());
    let ids = Arc::new(move || inner.sessions_of(&jobs));
    let clients = Arc::new(Clients::new(worker.0.sessions.clone(), ids));
    SourceContext {
        access: Access::new(clients.clone()),
        client: clients,
        progress: Arc::new(VertexLines(progress.clone())),
        memos: worker.0.memos_of(&cx.jobs),
    }
}

/// On behalf of one session; for lookups outside the graph.
pub fn session_context(sessions: &SessionManager, session: &str) -> SourceContext {
    let clients = Arc::new(Clients::one(sessions.clone(), session));
    SourceContext {
        access: Access::new(clients.clone()),
        client: clients,
        progress: Arc::new(kiln_source::NoProgress),
        memos: Vec::new(),
    }
}

/// Progress of a source as that of its vertex.
struct VertexLines(VertexProgress);

impl Progress for VertexLines {
    fn status(&self, s: Status) {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.0.report(&OpProgress::Status {
            id: s.id,
            action: s.action,
            current: number(s.current),
            total: number(s.total),
            at: s.completed.unwrap_or_else(std::time::SystemTime::now),
            started: Some(s.started),
            completed: s.completed,
        });
    }

    fn log(&self, stream: LogStream, data: &[u8]) {
        let stream = match stream {
            LogStream::Stdout => Stream::Stdout,
            LogStream::Stderr => Stream::Stderr,
        };
        self.0.log(stream, data);
    }
}

/// As an error of the build. It has no kind of its own: clients print kinds, and BuildKit gives none here.
pub fn source_error(error: &kiln_source::SourceError) -> BuildError {
    BuildError::msg(error.to_string())
}

/// Makes the snapshot's files available, shown as `progress`.
pub(crate) async fn ensure(
    worker: &Worker,
    cx: &Cx,
    progress: &VertexProgress,
    snapshot: &kiln_snapshot::Snapshot,
) -> Result<(), BuildError> {
    if !snapshot.is_lazy() {
        return Ok(());
    }
    let context = context(worker, cx, progress);
    let provider = worker.0.layers(context.access);
    let lines = kiln_source::image::LayerStatuses::new(context.progress);
    worker.0.snapshots.ensure(snapshot, &provider, &lines).await.map_err(failed)
}
