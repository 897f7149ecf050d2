//! `moby.buildkit.v1.Control`: the door.

use crate::wire;
use futures::{Stream, StreamExt};
use kiln_engine::{Engine, Entitlement, ExporterSpec, SolveInput, SolveRequest};
use kiln_llb::Definition;
use kiln_llb::errdefs::{BuildError, Code};
use kiln_proto::control::control_server::Control;
use kiln_proto::control::{self, BytesMessage};
use kiln_proto::{pb, worker};
use kiln_snapshot::{Filter, PruneOpts};
use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service. Holds nothing but the engine.
pub(crate) struct ControlService {
    pub(crate) engine: Engine,
    pub(crate) activity: crate::idle::Activity,
}

/// Package name that clients of BuildKit expect in version replies.
const PACKAGE: &str = "github.com/moby/buildkit";
/// What of BuildKit's surface this matches; clients decide by it which features to use.
pub(crate) const VERSION: &str = "v0.30.0-kiln";

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
        let filter = filter(&request.filter)?;
        let records = self.engine.disk_usage(&filter).await.map_err(wire::error_status)?;
        let age = Duration::from_nanos(request.age_limit.max(0).unsigned_abs());
        let record = records.iter().filter(|r| wire::unused_for(r) >= age).map(wire::usage_record).collect();
        Ok(Response::new(control::DiskUsageResponse { record }))
    }

    async fn prune(
        &self,
        request: Request<control::PruneRequest>,
    ) -> Result<Response<Self::PruneStream>, Status> {
        let busy = self.activity.begin();
        let request = request.into_inner();
        let bytes = |n: i64| n.max(0).unsigned_abs();
        let opts = PruneOpts {
            filter: filter(&request.filter)?,
            all: request.all,
            keep_duration: Duration::from_nanos(bytes(request.keep_duration)),
            reserved: bytes(request.reserved_space),
            max_used: bytes(request.max_used_space),
            min_free: bytes(request.min_free_space),
        };
        let removed = self.engine.prune(opts);
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
        let _busy = self.activity.begin();
        let request = solve_request(request.into_inner()).map_err(wire::error_status)?;
        let response = self.engine.solve(request).await.map_err(wire::error_status)?;
        Ok(Response::new(control::SolveResponse {
            exporter_response: response.exporter_response.into_iter().collect(),
        }))
    }

    async fn status(
        &self,
        request: Request<control::StatusRequest>,
    ) -> Result<Response<Self::StatusStream>, Status> {
        let id = request.into_inner().r#ref;
        let missing = || Status::not_found(format!("no such job {id}"));
        let mut follower = self.engine.follow(&id).await.ok_or_else(missing)?;
        let stream = async_stream(move |sender| async move {
            while let Some(update) = follower.next().await {
                if sender.send(Ok(wire::status_response(update))).await.is_err() {
                    return;
                }
            }
        });
        let mut response = Response::new(stream);
        if let Ok(now) = jiff::Timestamp::now().to_string().parse() {
            response.metadata_mut().insert("buildkit-current-timestamp", now);
        }
        Ok(response)
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
        _: Request<control::ListWorkersRequest>,
    ) -> Result<Response<control::ListWorkersResponse>, Status> {
        let info = self.engine.worker_info();
        let record = worker::WorkerRecord {
            id: info.id,
            labels: info.labels.into_iter().collect(),
            platforms: info.platforms.iter().map(wire::platform).collect(),
            gc_policy: info.gc_policy.iter().map(wire::gc_policy).collect(),
            buildkit_version: Some(version()),
            cdi_devices: Vec::new(),
        };
        Ok(Response::new(control::ListWorkersResponse { record: vec![record] }))
    }

    async fn info(
        &self,
        _: Request<control::InfoRequest>,
    ) -> Result<Response<control::InfoResponse>, Status> {
        Ok(Response::new(control::InfoResponse { buildkit_version: Some(version()) }))
    }

    async fn listen_build_history(
        &self,
        _: Request<control::BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        Err(Status::unimplemented("build history is not built yet"))
    }

    async fn update_build_history(
        &self,
        _: Request<control::UpdateBuildHistoryRequest>,
    ) -> Result<Response<control::UpdateBuildHistoryResponse>, Status> {
        Err(Status::unimplemented("build history is not built yet"))
    }
}

fn version() -> worker::BuildkitVersion {
    worker::BuildkitVersion {
        package: PACKAGE.into(),
        version: VERSION.into(),
        revision: env!("CARGO_PKG_VERSION").into(),
    }
}

fn filter(entries: &[String]) -> Result<Filter, Status> {
    Filter::parse_all(entries).map_err(|e| Status::invalid_argument(e.to_string()))
}

/// A task that feeds a stream; it ends when the reader is gone.
fn async_stream<T, F, Fut>(feed: F) -> BoxStream<T>
where
    T: Send + 'static,
    F: FnOnce(tokio::sync::mpsc::Sender<Result<T, Status>>) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    tokio::spawn(feed(sender));
    Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))
}

/// Everything that is checked here is refused by name: nothing of a request is ignored.
fn solve_request(r: control::SolveRequest) -> Result<SolveRequest, BuildError> {
    refuse_what_is_not_built(&r)?;
    if r.r#ref.is_empty() {
        return Err(invalid("a solve request needs a Ref"));
    }
    let entitlements = r
        .entitlements
        .iter()
        .map(|e| e.parse::<Entitlement>().map_err(|e| invalid(&e)))
        .collect::<Result<_, _>>()?;
    let exporters = if r.exporters.is_empty() && !r.exporter_deprecated.is_empty() {
        vec![exporter(r.exporter_deprecated, r.exporter_attrs_deprecated)]
    } else {
        r.exporters.into_iter().map(|e| exporter(e.r#type, e.attrs)).collect()
    };
    let input = match (r.frontend.as_str(), r.definition) {
        ("", None) => return Err(unimplemented("builds that the client drives through LLBBridge")),
        ("", Some(definition)) => SolveInput::Definition(decode(&definition)?),
        (_, Some(_)) => return Err(invalid("invalid request: definition and frontend cannot both be set")),
        (_, None) => {
            let inputs = r
                .frontend_inputs
                .iter()
                .map(|(k, d)| Ok((k.clone(), decode(d)?)))
                .collect::<Result<BTreeMap<_, _>, BuildError>>()?;
            SolveInput::Frontend { name: r.frontend, opts: r.frontend_attrs.into_iter().collect(), inputs }
        }
    };
    Ok(SolveRequest { id: r.r#ref, session: r.session, input, exporters, entitlements, internal: r.internal })
}

fn exporter(kind: String, attrs: HashMap<String, String>) -> ExporterSpec {
    ExporterSpec { kind, attrs: attrs.into_iter().collect() }
}

fn decode(definition: &pb::Definition) -> Result<Definition, BuildError> {
    Definition::decode(definition).map_err(|e| invalid(&e.to_string()))
}

fn refuse_what_is_not_built(r: &control::SolveRequest) -> Result<(), BuildError> {
    let cache = r.cache.as_ref();
    let exports = cache.is_some_and(|c| !c.exports.is_empty() || !c.export_ref_deprecated.is_empty());
    if exports {
        return Err(unimplemented("cache export"));
    }
    if r.source_policy.as_ref().is_some_and(|p| !p.rules.is_empty()) || !r.source_policy_session.is_empty() {
        return Err(unimplemented("source policies"));
    }
    if r.enable_session_exporter {
        return Err(unimplemented("exporters that the session chooses"));
    }
    Ok(())
}

fn invalid(message: &str) -> BuildError {
    BuildError::new(Code::InvalidArgument, message)
}

fn unimplemented(what: &str) -> BuildError {
    BuildError::new(Code::Unimplemented, format!("{what}: not built yet"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> control::SolveRequest {
        control::SolveRequest { r#ref: "r".into(), frontend: "dockerfile.v0".into(), ..Default::default() }
    }

    #[test]
    fn old_and_new_exporters() {
        let old = control::SolveRequest { exporter_deprecated: "image".into(), ..request() };
        assert_eq!(solve_request(old).unwrap().exporters[0].kind, "image");
        let both = control::SolveRequest {
            exporter_deprecated: "image".into(),
            exporters: vec![control::Exporter { r#type: "oci".into(), attrs: HashMap::new() }],
            ..request()
        };
        let kinds: Vec<_> = solve_request(both).unwrap().exporters.into_iter().map(|e| e.kind).collect();
        assert_eq!(kinds, ["oci"]);
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        let cache = control::CacheOptions { exports: vec![Default::default()], ..Default::default() };
        let error = solve_request(control::SolveRequest { cache: Some(cache), ..request() }).unwrap_err();
        assert_eq!(error.code, Code::Unimplemented);
        assert!(error.message.contains("cache export"));
        let nothing = control::SolveRequest { frontend: String::new(), ..request() };
        assert_eq!(solve_request(nothing).unwrap_err().code, Code::Unimplemented);
        let odd = control::SolveRequest { entitlements: vec!["root".into()], ..request() };
        assert!(solve_request(odd).unwrap_err().message.contains("invalid entitlement"));
    }
}
