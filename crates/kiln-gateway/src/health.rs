//! `grpc.health.v1.Health`: whoever can ask is served, until the daemon drains.

use futures::stream::{self, BoxStream, StreamExt};
use kiln_proto::health::health_check_response::ServingStatus;
use kiln_proto::health::health_server::Health;
use kiln_proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// The health service of every listener.
#[derive(Clone, Debug, Default)]
pub struct HealthService {
    stopping: CancellationToken,
}

impl HealthService {
    /// Healthy until `stopping` fires.
    pub fn until(stopping: CancellationToken) -> Self {
        Self { stopping }
    }

    fn now(&self) -> HealthCheckResponse {
        answer(if self.stopping.is_cancelled() { ServingStatus::NotServing } else { ServingStatus::Serving })
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match request.into_inner().service.as_str() {
            "" => Ok(Response::new(self.now())),
            _ => Err(Status::not_found("unknown service")),
        }
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        Ok(Response::new(HealthListResponse { statuses: [(String::new(), self.now())].into() }))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        if !request.into_inner().service.is_empty() {
            let unknown = stream::iter([Ok(answer(ServingStatus::ServiceUnknown))]);
            return Ok(Response::new(unknown.chain(stream::pending()).boxed()));
        }
        let (now, stopping) = (self.now(), self.stopping.clone());
        let was_stopping = stopping.is_cancelled();
        let later = stream::once(async move {
            if was_stopping {
                return std::future::pending().await;
            }
            stopping.cancelled_owned().await;
            Ok(answer(ServingStatus::NotServing))
        });
        let all = stream::iter([Ok(now)]).chain(later).chain(stream::pending());
        Ok(Response::new(all.boxed()))
    }
}
