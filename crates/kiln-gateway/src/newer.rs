//! What of LLBBridge the published wire types do not know yet (spec wire.md section 1): limits of steps in graphs that are
//! to be solved. Everything else goes on to the generated service.

use crate::service::BridgeService;
use futures::future::BoxFuture;
use kiln_proto::extra::GatewaySolveRequestExtra;
use kiln_proto::gateway::llb_bridge_server::LlbBridgeServer;
use kiln_proto::gateway::{SolveRequest, SolveResponse};
use kiln_proto::{MAX_MESSAGE_SIZE, newer};
use std::convert::Infallible;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{NamedService, UnaryService};
use tonic::{Request, Response, Status};

/// The service for a router, with the size limits of the protocol.
#[derive(Clone, Debug)]
pub struct BridgeServer {
    known: LlbBridgeServer<BridgeService>,
    service: BridgeService,
}

impl BridgeServer {
    pub(crate) fn new(service: BridgeService) -> Self {
        let known = LlbBridgeServer::new(service.clone())
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(MAX_MESSAGE_SIZE);
        Self { known, service }
    }
}

impl NamedService for BridgeServer {
    const NAME: &'static str = <LlbBridgeServer<BridgeService> as NamedService>::NAME;
}

impl Service<http::Request<Body>> for BridgeServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match request.uri().path().rsplit('/').next() {
            Some("Solve") => Box::pin(newer::unary(Solve(self.service.clone()), request)),
            _ => self.known.call(request),
        }
    }
}

struct Solve(BridgeService);

impl UnaryService<(SolveRequest, GatewaySolveRequestExtra)> for Solve {
    type Response = SolveResponse;
    type Future = BoxFuture<'static, Result<Response<SolveResponse>, Status>>;

    fn call(&mut self, request: Request<(SolveRequest, GatewaySolveRequestExtra)>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move { service.solve_newer(request).await })
    }
}
