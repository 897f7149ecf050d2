//! `moby.buildkit.v1.Control`: the door.

use crate::metrics::Metrics;
use crate::request::{self, solve_request};
use crate::{history, wire};
use futures::{Stream, StreamExt};
use kiln_engine::Engine;
use kiln_proto::control::control_server::Control;
use kiln_proto::control::{self, BytesMessage};
use kiln_proto::extra::SolveRequestExtra;
use kiln_proto::worker;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status, Streaming};

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service. Holds nothing of its own.
pub(crate) struct ControlService {
    pub(crate) engine: Engine,
    pub(crate) activity: crate::idle::Activity,
    pub(crate) metrics: Arc<Metrics>,
}

/// Package name that clients of BuildKit expect in version replies.
pub(crate) const PACKAGE: &str = "github.com/moby/buildkit";
/// What of BuildKit's surface this matches; clients decide by it which features to use.
pub(crate) const VERSION: &str = "v0.30.0-kiln";
/// Version of kiln itself, where BuildKit has a commit.
pub(crate) const REVISION: &str = env!("CARGO_PKG_VERSION");
/// What of the Dockerfile frontend's surface this matches.
pub(crate) const DOCKERFILE_VERSION: &str = "1.26.0-kiln";

/// What `buildkitd --version` prints: exactly four words, of which buildx takes the third.
pub fn version_line() -> String {
    format!("buildkitd {PACKAGE} {VERSION} {REVISION}")
}

/// A build that fails within this time may end before its client's session has begun.
const SESSION_BEGINS: Duration = Duration::from_secs(1);

impl ControlService {
    /// A build, from request to answer. Dropping the future stops it.
    pub(crate) async fn solve_newer(
        &self,
        request: control::SolveRequest,
        extra: SolveRequestExtra,
    ) -> Result<control::SolveResponse, Status> {
        let _busy = self.activity.begin();
        let (id, session) = (request.r#ref.clone(), request.session.clone());
        let begun = Instant::now();
        let solved = match solve_request(request, &extra) {
            Ok(request) => self.engine.solve(request).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &solved {
            tracing::info!(build = ?id.chars().take(64).collect::<String>(), %error, "build failed");
        }
        if solved.is_err() && !session.is_empty() && begun.elapsed() < SESSION_BEGINS {
            self.engine.sessions().settle(&session).await;
        }
        let count = if solved.is_ok() { &self.metrics.builds_done } else { &self.metrics.builds_failed };
        count.fetch_add(1, Ordering::Relaxed);
        let response = solved.map_err(wire::error_status)?;
        Ok(control::SolveResponse { exporter_response: response.exporter_response.into_iter().collect() })
    }

    /// The workers that the request asks for: the only one, or none.
    pub(crate) fn workers(
        &self,
        request: &control::ListWorkersRequest,
    ) -> Result<Vec<worker::WorkerRecord>, Status> {
        let filter = request::filter("ListWorkers", &request.filter)?;
        let info = self.engine.worker_info();
        let field = |name: &str| match name {
            "id" => Some(info.id.clone()),
            _ => info.labels.get(name.strip_prefix("labels.")?).cloned(),
        };
        if !filter.matches_fields(field) {
            return Ok(Vec::new());
        }
        Ok(vec![worker::WorkerRecord {
            id: info.id,
            labels: info.labels.into_iter().collect(),
            platforms: info.platforms.into_iter().map(kiln_llb::platform::to_pb).collect(),
            gc_policy: info.gc_policy.iter().map(wire::gc_policy).collect(),
            buildkit_version: Some(version()),
            cdi_devices: self.engine.devices().iter().map(wire::device).collect(),
        }])
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    type PruneStream = BoxStream<control::UsageRecord>;
    type StatusStream = BoxStream<control::StatusResponse>;
    type SessionStream = BoxStream<BytesMessage>;
    type ListenBuildHistoryStream = BoxStream<control::BuildHistoryEvent>;

    async fn disk_usage(
        &self,
        request: Request<control::DiskUsageRequest>,
    ) -> Result<Response<control::DiskUsageResponse>, Status> {
        let _busy = self.activity.begin();
        let request = request.into_inner();
        let filter = request::filter("DiskUsage", &request.filter)?;
        let age = request::duration("DiskUsage", "ageLimit", request.age_limit)?;
        let records = self.engine.disk_usage(&filter).await.map_err(wire::error_status)?;
        let record = records.iter().filter(|r| wire::unused_for(r) >= age).map(wire::usage_record).collect();
        Ok(Response::new(control::DiskUsageResponse { record }))
    }

    async fn prune(
        &self,
        request: Request<control::PruneRequest>,
    ) -> Result<Response<Self::PruneStream>, Status> {
        let busy = self.activity.begin();
        let removed = self.engine.prune(request::prune(&request.into_inner())?);
        let stream = removed.map(move |r| {
            let _ = &busy;
            r.map(|record| wire::usage_record(&record)).map_err(wire::error_status)
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn solve(
        &self,
        request: Request<control::SolveRequest>,
    ) -> Result<Response<control::SolveResponse>, Status> {
        self.solve_newer(request.into_inner(), SolveRequestExtra::default()).await.map(Response::new)
    }

    async fn status(
        &self,
        request: Request<control::StatusRequest>,
    ) -> Result<Response<Self::StatusStream>, Status> {
        let id = request.into_inner().r#ref;
        request::name("Status", "Ref", &id)?;
        if let Some(past) = history::replay(&self.engine, &id).await? {
            return Ok(history::timestamped(past));
        }
        let missing = || Status::not_found(format!("no such job {id}"));
        let mut follower = self.engine.follow(&id).await.ok_or_else(missing)?;
        let stream = async_stream(move |sender| async move {
            while let Some(update) = follower.next().await {
                if sender.send(Ok(wire::status_response(update))).await.is_err() {
                    return;
                }
            }
        });
        Ok(history::timestamped(stream))
    }

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let busy = self.activity.begin();
        let (metadata, _, incoming) = request.into_parts();
        let stream = self.engine.sessions().accept(&metadata, incoming).map_err(Status::from)?;
        let stream = stream.map(move |message| {
            let _ = &busy;
            message
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_workers(
        &self,
        request: Request<control::ListWorkersRequest>,
    ) -> Result<Response<control::ListWorkersResponse>, Status> {
        let record = self.workers(&request.into_inner())?;
        Ok(Response::new(control::ListWorkersResponse { record }))
    }

    async fn info(
        &self,
        _: Request<control::InfoRequest>,
    ) -> Result<Response<control::InfoResponse>, Status> {
        Ok(Response::new(control::InfoResponse { buildkit_version: Some(version()) }))
    }

    async fn listen_build_history(
        &self,
        request: Request<control::BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        let busy = self.activity.begin();
        let request = request.into_inner();
        request::filter_size("ListenBuildHistory", &request.filter)?;
        let events = history::listen(&self.engine, request, busy).await?;
        Ok(history::timestamped(events))
    }

    async fn update_build_history(
        &self,
        request: Request<control::UpdateBuildHistoryRequest>,
    ) -> Result<Response<control::UpdateBuildHistoryResponse>, Status> {
        let _busy = self.activity.begin();
        history::update(&self.engine, request.into_inner()).await?;
        Ok(Response::new(control::UpdateBuildHistoryResponse {}))
    }
}

fn version() -> worker::BuildkitVersion {
    worker::BuildkitVersion { package: PACKAGE.into(), version: VERSION.into(), revision: REVISION.into() }
}

/// A task that feeds a stream; it ends when the reader is gone.
fn async_stream<T, F, Fut>(feed: F) -> BoxStream<T>
where
    T: Send + 'static,
    F: FnOnce(tokio::sync::mpsc::Sender<Result<T, Status>>) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    // A reader that does not read holds so many messages.
    let (sender, receiver) = tokio::sync::mpsc::channel(2);
    tokio::spawn(feed(sender));
    Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))
}
