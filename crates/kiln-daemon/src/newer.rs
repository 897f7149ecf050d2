//! What of `moby.buildkit.v1.Control` the published wire types do not know yet (spec wire.md section 1): two fields of
//! a solve request are read, one of the version is told. Everything else goes on to the generated service.

use crate::control::{ControlService, DOCKERFILE_VERSION, PACKAGE, REVISION, VERSION};
use futures::future::BoxFuture;
use kiln_proto::control::control_server::ControlServer;
use kiln_proto::control::{InfoRequest, ListWorkersRequest, SolveRequest, SolveResponse};
use kiln_proto::extra::SolveRequestExtra;
use kiln_proto::{MAX_MESSAGE_SIZE, newer, pb, worker};
use prost::Message;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tower::Service;

/// The service.
#[derive(Clone)]
pub(crate) struct Newer {
    known: ControlServer<ControlService>,
    control: Arc<ControlService>,
}

impl Newer {
    pub(crate) fn new(control: ControlService) -> Self {
        let control = Arc::new(control);
        let known = ControlServer::from_arc(control.clone())
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(MAX_MESSAGE_SIZE);
        Self { known, control }
    }
}

impl NamedService for Newer {
    const NAME: &'static str = "moby.buildkit.v1.Control";
}

impl Service<http::Request<Body>> for Newer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let control = self.control.clone();
        match request.uri().path().rsplit('/').next() {
            Some("Solve") => {
                Box::pin(newer::unary::<SolveRequest, SolveRequestExtra, _, _>(Method(control), request))
            }
            Some("Info") => Box::pin(newer::unary::<InfoRequest, (), _, _>(Method(control), request)),
            Some("ListWorkers") => {
                Box::pin(newer::unary::<ListWorkersRequest, (), _, _>(Method(control), request))
            }
            _ => self.known.call(request),
        }
    }
}

/// A call of the service.
struct Method(Arc<ControlService>);

type Answer<T> = BoxFuture<'static, Result<Response<T>, Status>>;

impl UnaryService<(SolveRequest, SolveRequestExtra)> for Method {
    type Response = SolveResponse;
    type Future = Answer<SolveResponse>;

    fn call(&mut self, request: Request<(SolveRequest, SolveRequestExtra)>) -> Self::Future {
        let control = self.0.clone();
        Box::pin(async move {
            let (request, extra) = request.into_inner();
            control.solve_newer(request, extra).await.map(Response::new)
        })
    }
}

impl UnaryService<(InfoRequest, ())> for Method {
    type Response = InfoResponse;
    type Future = Answer<InfoResponse>;

    fn call(&mut self, _: Request<(InfoRequest, ())>) -> Self::Future {
        Box::pin(async { Ok(Response::new(InfoResponse { buildkit_version: Some(version()) })) })
    }
}

impl UnaryService<(ListWorkersRequest, ())> for Method {
    type Response = ListWorkersResponse;
    type Future = Answer<ListWorkersResponse>;

    fn call(&mut self, request: Request<(ListWorkersRequest, ())>) -> Self::Future {
        let control = self.0.clone();
        Box::pin(async move {
            let records = control.workers(&request.into_inner().0)?.into_iter();
            Ok(Response::new(ListWorkersResponse { record: records.map(WorkerRecord::from).collect() }))
        })
    }
}

#[derive(Clone, PartialEq, Message)]
struct InfoResponse {
    #[prost(message, optional, tag = "1")]
    buildkit_version: Option<Version>,
}

#[derive(Clone, PartialEq, Message)]
struct ListWorkersResponse {
    #[prost(message, repeated, tag = "1")]
    record: Vec<WorkerRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct WorkerRecord {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(map = "string, string", tag = "2")]
    labels: HashMap<String, String>,
    #[prost(message, repeated, tag = "3")]
    platforms: Vec<pb::Platform>,
    #[prost(message, repeated, tag = "4")]
    gc_policy: Vec<worker::GcPolicy>,
    #[prost(message, optional, tag = "5")]
    buildkit_version: Option<Version>,
    #[prost(message, repeated, tag = "6")]
    cdi_devices: Vec<worker::CdiDevice>,
}

#[derive(Clone, PartialEq, Message)]
struct Version {
    #[prost(string, tag = "1")]
    package: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(string, tag = "3")]
    revision: String,
    #[prost(string, tag = "4")]
    dockerfile_version: String,
}

fn version() -> Version {
    Version {
        package: PACKAGE.into(),
        version: VERSION.into(),
        revision: REVISION.into(),
        dockerfile_version: DOCKERFILE_VERSION.into(),
    }
}

impl From<worker::WorkerRecord> for WorkerRecord {
    fn from(r: worker::WorkerRecord) -> Self {
        Self {
            id: r.id,
            labels: r.labels,
            platforms: r.platforms,
            gc_policy: r.gc_policy,
            buildkit_version: Some(version()),
            cdi_devices: r.cdi_devices,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_clients_read_the_same_record() {
        let known = worker::WorkerRecord {
            id: "w".into(),
            labels: [("a".to_string(), "b".to_string())].into(),
            platforms: vec![pb::Platform { os: "linux".into(), ..Default::default() }],
            gc_policy: vec![worker::GcPolicy { all: true, ..Default::default() }],
            cdi_devices: vec![worker::CdiDevice {
                name: "v/d=x".into(),
                auto_allow: true,
                ..Default::default()
            }],
            ..Default::default()
        };
        let bytes = WorkerRecord::from(known.clone()).encode_to_vec();
        let read = worker::WorkerRecord::decode(&bytes[..]).unwrap();
        assert_eq!((read.id, read.labels), (known.id, known.labels));
        assert_eq!((read.platforms, read.gc_policy), (known.platforms, known.gc_policy));
        assert_eq!(read.cdi_devices, known.cdi_devices);
        assert_eq!(read.buildkit_version.unwrap().version, VERSION);
    }
}
