//! The gateway on the standard streams of a frontend: HTTP/2 without TLS, the frontend is the client.

use crate::{BridgeService, HealthService};
use futures::future::BoxFuture;
use futures::stream;
use futures::{FutureExt, StreamExt};
use kiln_engine::{BoxedStream, Bridge, GatewayServer};
use kiln_proto::health::health_server::HealthServer;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

/// Serves bridges to frontends in containers.
#[derive(Clone, Copy, Debug, Default)]
pub struct StdioGateway;

impl GatewayServer for StdioGateway {
    fn serve(&self, bridge: Bridge, stream: BoxedStream) -> BoxFuture<'static, ()> {
        async move {
            let gone = CancellationToken::new();
            let stop = bridge.closed().clone();
            let connection = Connection { stream, _gone: gone.clone().drop_guard() };
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
}

/// Says when it is dropped.
struct Connection {
    stream: BoxedStream,
    _gone: tokio_util::sync::DropGuard,
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
