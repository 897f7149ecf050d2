//! HTTP/2 over a byte pipe, both roles, one connection, no TLS.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response, Uri};
use tonic::service::Routes;
use tower::Service;

use crate::{CONNECTION_WINDOW, FRAME_SIZE, HEADER_LIST, STREAM_WINDOW};

/// The calling side of a session: a gRPC transport that tonic's clients accept. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connection {
    send: hyper::client::conn::http2::SendRequest<Body>,
}

/// Authority of every session call.
pub(crate) fn origin() -> Uri {
    Uri::from_static("http://localhost")
}

/// Streams that hold requests alive; drives the connection until it ends.
pub(crate) type Driver = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

impl Connection {
    /// Starts HTTP/2 as the caller. The second value must be polled for anything to happen; dropping it cuts the
    /// connection.
    pub(crate) async fn open<I>(io: I) -> Result<(Self, Driver), hyper::Error>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (send, driver) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME_SIZE)
            .max_header_list_size(HEADER_LIST)
            .handshake(TokioIo::new(io))
            .await?;
        Ok((Self { send }, Box::pin(driver)))
    }
}

impl Service<Request<Body>> for Connection {
    type Response = Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.send.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.send.send_request(request))
    }
}

/// Serves `routes` to the peer until it hangs up. Dropping the future cuts the connection and ends its calls.
pub(crate) async fn serve<I>(io: I, routes: Routes) -> Result<(), hyper::Error>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_SIZE)
        .max_header_list_size(HEADER_LIST)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(routes.prepare()))
        .await
}
