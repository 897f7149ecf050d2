//! The part of the door where builds of the past are asked for.

use futures::Stream;
use futures::stream;
use kiln_engine::{Engine, History};
use kiln_history::{Event, EventKind, HistoryError, Query};
use kiln_proto::control::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRequest, StatusResponse, UpdateBuildHistoryRequest,
};
use std::pin::Pin;
use tokio::task::spawn_blocking;
use tonic::{Response, Status};

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// `Control.ListenBuildHistory`; `busy` is held as long as somebody listens.
pub(crate) async fn listen<B: Send + 'static>(
    engine: &Engine,
    request: BuildHistoryRequest,
    busy: B,
) -> Result<BoxStream<BuildHistoryEvent>, Status> {
    let query = Query {
        reference: Some(request.r#ref).filter(|r| !r.is_empty()),
        active_only: request.active_only,
        early_exit: request.early_exit,
        filters: request.filter,
        limit: request.limit,
    };
    let listener = blocking(engine, move |history| history.listen(&query)).await?;
    let next = |state: Option<(kiln_history::Listener, B)>| async move {
        let (mut listener, busy) = state?;
        match listener.next().await {
            Ok(event) => event.map(|event| (Ok(wire(event)), Some((listener, busy)))),
            Err(error) => Some((Err(status(error)), None)),
        }
    };
    Ok(Box::pin(stream::unfold(Some((listener, busy)), next)))
}

/// `Control.UpdateBuildHistory`. Of several wishes the first counts: delete, finalize, pin or unpin.
pub(crate) async fn update(engine: &Engine, request: UpdateBuildHistoryRequest) -> Result<(), Status> {
    let UpdateBuildHistoryRequest { r#ref, pinned, delete, finalize } = request;
    if r#ref.is_empty() {
        return Err(Status::invalid_argument("an update of the build history needs a Ref"));
    }
    blocking(engine, move |history| match (delete, finalize) {
        (true, _) => history.delete(&r#ref),
        // A record is complete, its trace included, when it is there: there is nothing to wait for.
        (false, true) => Ok(()),
        (false, false) => history.pin(&r#ref, pinned),
    })
    .await
}

/// The whole progress of a build that is over; `None` when there is no record of it, or it runs (again).
pub(crate) async fn replay(engine: &Engine, id: &str) -> Result<Option<BoxStream<StatusResponse>>, Status> {
    let id = id.to_string();
    let log = blocking(engine, move |history| match history.is_active(&id) {
        true => Ok(None),
        false => history.log(&id),
    });
    let Some(log) = log.await? else { return Ok(None) };
    // A thread is held for a message at a time, not for as long as the client listens.
    let next = |mut log: kiln_history::LogReader| async move {
        let read = spawn_blocking(move || log.read().map(|message| message.map(|m| (m, log))));
        read.await.map_err(|e| Status::internal(format!("build history: {e}")))?.map_err(status)
    };
    Ok(Some(Box::pin(stream::try_unfold(log, next))))
}

/// With the header by which clients know how far the daemon's clock is from theirs.
pub(crate) fn timestamped<T>(stream: T) -> Response<T> {
    let mut response = Response::new(stream);
    if let Ok(now) = jiff::Timestamp::now().to_string().parse() {
        response.metadata_mut().insert("buildkit-current-timestamp", now);
    }
    response
}

async fn blocking<T: Send + 'static>(
    engine: &Engine,
    work: impl FnOnce(&History) -> Result<T, HistoryError> + Send + 'static,
) -> Result<T, Status> {
    let history = engine.history().clone();
    let done = spawn_blocking(move || work(&history)).await;
    done.map_err(|e| Status::internal(format!("build history: {e}")))?.map_err(status)
}

fn wire(event: Event) -> BuildHistoryEvent {
    let kind = match event.kind {
        EventKind::Started => BuildHistoryEventType::Started,
        EventKind::Complete => BuildHistoryEventType::Complete,
        EventKind::Deleted => BuildHistoryEventType::Deleted,
    };
    BuildHistoryEvent { r#type: kind.into(), record: Some((*event.record).clone()) }
}

fn status(error: HistoryError) -> Status {
    let message = error.to_string();
    match error {
        HistoryError::NotFound(_) | HistoryError::Deleted(_) => Status::not_found(message),
        HistoryError::Query(_) => Status::invalid_argument(message),
        HistoryError::Behind(_) => Status::resource_exhausted(message),
        HistoryError::Content(ref e) if e.is_not_found() => Status::not_found(message),
        HistoryError::Log { .. } => Status::data_loss(message),
        HistoryError::Content(_) | HistoryError::Db(_) => Status::internal(message),
    }
}
