//! HTTP/2 over a byte pipe, both roles, one connection, no TLS.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http_body::{Body as _, Frame, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response, Uri};
use tonic::service::Routes;
use tower::Service;

use crate::{ANSWER_HEADERS, CONNECTION_WINDOW, FRAME_SIZE, HEADER_LIST, STREAM_WINDOW};

/// Ends a call in the middle. Servers there are that take `CANCEL` for the end of the data, and half of it for all.
const CUT: Reason = Reason::INTERNAL_ERROR;
/// Bytes of one call that wait to be written to the connection.
const SEND_BUFFER: usize = 1 << 20;

/// The calling side of a session: a gRPC transport that tonic's clients accept. Cheap to clone.
///
/// It is made of HTTP/2 streams, without a client above them: a call whose answer is dropped must be reset at once,
/// also when its peer has taken no data for long, and what waits for the peer must go.
#[derive(Clone, Debug)]
pub struct Connection {
    send: h2::client::SendRequest<Bytes>,
}

/// Authority of every session call.
pub(crate) fn origin() -> Uri {
    Uri::from_static("http://localhost")
}

/// Drives the connection until it ends.
pub(crate) type Driver = Pin<Box<dyn Future<Output = Result<(), h2::Error>> + Send>>;

impl Connection {
    /// Starts HTTP/2 as the caller. The second value must be polled for anything to happen; dropping it cuts the
    /// connection.
    pub(crate) async fn open<I>(io: I) -> Result<(Self, Driver), h2::Error>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (send, driver) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME_SIZE)
            .max_header_list_size(ANSWER_HEADERS)
            .max_send_buffer_size(SEND_BUFFER)
            .handshake(io)
            .await?;
        Ok((Self { send }, Box::pin(driver)))
    }
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Answer>;
    type Error = h2::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, h2::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        self.send.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (head, body) = request.into_parts();
        let sent = self.send.send_request(Request::from_parts(head, ()), false);
        Box::pin(async move {
            let (answer, stream) = sent?;
            let cancel = CancellationToken::new();
            tokio::spawn(send(body, stream, cancel.clone()));
            let cancel = cancel.drop_guard();
            let answer = answer.await?;
            Ok(answer.map(|data| Answer { data, ended: false, _cancel: cancel }))
        })
    }
}

/// Sends the body of a call until it ends or nobody waits for the answer.
async fn send(body: Body, mut stream: SendStream<Bytes>, cancel: CancellationToken) {
    let failed = tokio::select! {
        biased;
        sent = send_frames(body, &mut stream) => sent.err(),
        () = cancel.cancelled() => Some(CUT),
    };
    if let Some(reason) = failed {
        stream.send_reset(reason);
    }
}

/// Returns at the end of the body, and when the other side wants no more of it.
async fn send_frames(mut body: Body, stream: &mut SendStream<Bytes>) -> Result<(), Reason> {
    loop {
        // A message is taken only when there is room for some of it.
        if !has_room(stream, 1).await {
            return Ok(());
        }
        let frame = poll_fn(|cx| match stream.poll_reset(cx) {
            Poll::Ready(_) => Poll::Ready(Err(Reason::NO_ERROR)),
            Poll::Pending => Pin::new(&mut body).poll_frame(cx).map(Ok),
        });
        let Ok(frame) = frame.await else { return Ok(()) };
        let Some(frame) = frame else {
            // If this fails the other side has ended the call before.
            let _ = stream.send_data(Bytes::new(), true);
            return Ok(());
        };
        let Ok(mut data) = frame.map_err(|_| CUT)?.into_data() else { continue };
        while !data.is_empty() {
            if !has_room(stream, data.len()).await {
                return Ok(());
            }
            let part = data.split_to(stream.capacity().min(data.len()));
            if stream.send_data(part, false).is_err() {
                return Ok(());
            }
        }
    }
}

/// Waits until some of `wanted` bytes may be sent; `false` when the other side has ended the call.
async fn has_room(stream: &mut SendStream<Bytes>, wanted: usize) -> bool {
    stream.reserve_capacity(wanted);
    while stream.capacity() == 0 {
        match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return false,
        }
    }
    true
}

/// The answer to a call. Dropped, it ends the call in both directions.
pub struct Answer {
    data: RecvStream,
    ended: bool,
    _cancel: DropGuard,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answer")
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.ended {
            match ready!(self.data.poll_data(cx)) {
                Some(Ok(data)) => {
                    // More may come: what is taken from here is bounded by who reads.
                    self.data.flow_control().release_capacity(data.len())?;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // Said by servers that have answered before all was sent.
                Some(Err(e)) if matches!(e.reason(), Some(Reason::NO_ERROR | Reason::CANCEL)) => {
                    return Poll::Ready(None);
                }
                Some(Err(e)) => return Poll::Ready(Some(Err(e))),
                None => self.ended = true,
            }
        }
        Poll::Ready(ready!(self.data.poll_trailers(cx)).transpose().map(|t| t.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
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
