//! `CONNECT`: what goes through the tunnel is looked at like everything else.

use crate::forward::{Outgoing, own};
use crate::prefixed::Prefixed;
use crate::serve::{Place, Shared};
use crate::target::Origin;
use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::http::uri::Authority;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsAcceptor;

/// How long a client may take to begin, and for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// The first byte of TLS: a record with a handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

impl Shared {
    /// Answers `CONNECT`. Nothing is connected: that happens with the first request that a policy allows.
    pub(crate) fn connect(self: &Arc<Self>, request: Request<Incoming>, place: &Place) -> Outgoing {
        let Some(server) = request.uri().authority().filter(|a| !a.as_str().contains('@')).cloned() else {
            return own(StatusCode::BAD_REQUEST, "Bad Request");
        };
        let (shared, place) = (Arc::clone(self), Arc::clone(place));
        self.spawn(async move {
            let upgraded = tokio::time::timeout(HANDSHAKE, hyper::upgrade::on(request)).await;
            if let Ok(Ok(stream)) = upgraded
                && let Err(error) = shared.tunnel(stream, server, place).await
            {
                tracing::debug!(%error, "a tunnel of a step ends");
            }
        });
        Response::new(Either::Left(Full::<Bytes>::default()))
    }

    async fn tunnel(self: Arc<Self>, stream: Upgraded, server: Authority, place: Place) -> io::Result<()> {
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let begun = tokio::time::timeout(HANDSHAKE, Prefixed::read(TokioIo::new(stream)));
        let (first, stream) = begun.await.map_err(late)??;
        // Some clients use tunnels also for plain HTTP.
        if first != TLS_HANDSHAKE {
            return self.serve(stream, Origin::Tunnel { secure: false, server }, place).await;
        }
        let config = self.authority.server(server.host()).map_err(io::Error::other)?;
        let accepted = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream));
        let stream = accepted.await.map_err(late)??;
        self.serve(stream, Origin::Tunnel { secure: true, server }, place).await
    }
}
