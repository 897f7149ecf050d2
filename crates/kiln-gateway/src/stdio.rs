//! The gateway on the standard streams of a frontend: HTTP/2 without TLS, the frontend is the client.

use crate::{BridgeService, HealthService, Watched};
use futures::future::BoxFuture;
use futures::stream;
use futures::{FutureExt, StreamExt};
use kiln_engine::{BoxedStream, Bridge, GatewayServer, PolicyAnswer, PolicyCheck};
use kiln_llb::errdefs::BuildError;
use kiln_proto::health::health_server::HealthServer;
use kiln_session::Session;
use std::io;

/// Serves bridges to frontends in containers, and asks clients about sources.
#[derive(Clone, Copy, Debug, Default)]
pub struct StdioGateway;

impl GatewayServer for StdioGateway {
    fn serve(&self, bridge: Bridge, stream: BoxedStream) -> BoxFuture<'static, ()> {
        async move {
            let stop = bridge.closed().clone();
            let (connection, gone) = Watched::new(stream);
            // Serving ends with this one connection, or with the build.
            let incoming = stream::iter([Ok::<_, io::Error>(connection)]).chain(stream::pending());
            let ended = async move {
                tokio::select! {
                    () = gone.cancelled() => {}
                    () = stop.cancelled() => {}
                }
            };
            let router = tonic::transport::Server::builder()
                .add_service(BridgeService::of(bridge).into_server())
                .add_service(HealthServer::new(HealthService::default()));
            if let Err(error) = router.serve_with_incoming_shutdown(incoming, ended).await {
                tracing::debug!(%error, "serve the gateway to a frontend");
            }
        }
        .boxed()
    }

    fn check_policy(
        &self,
        session: Session,
        check: PolicyCheck,
    ) -> BoxFuture<'static, Result<PolicyAnswer, BuildError>> {
        crate::policy::check(session, check).boxed()
    }
}
