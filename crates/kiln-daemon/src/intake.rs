//! What clients are sending: calls, and messages of which only a part has come. All of them together are bounded,
//! whoever sends them and over however many connections.

use bytes::{Buf, Bytes};
use futures::future::BoxFuture;
use futures::task::AtomicWaker;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

/// Bytes of messages that have begun to come. When there are more, the one that began first is refused: messages of
/// honest clients are the younger ones.
const MESSAGES: usize = 256 << 20;
/// Calls of all connections.
const CALLS: usize = 16_384;
/// Flags and length in front of each message (gRPC over HTTP/2).
const PREFIX: usize = 5;

/// Counts what comes in. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Intake(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    messages: usize,
    calls: usize,
    open: AtomicUsize,
    parts: Mutex<Parts>,
}

/// Messages that are not complete, by age.
#[derive(Debug, Default)]
struct Parts {
    next: u64,
    bytes: usize,
    all: BTreeMap<u64, (usize, Arc<Shed>)>,
}

/// Tells a message that it is refused.
#[derive(Debug, Default)]
struct Shed {
    now: AtomicBool,
    waker: AtomicWaker,
}

impl Intake {
    pub(crate) fn new() -> Self {
        Self::limited(MESSAGES, CALLS)
    }

    fn limited(messages: usize, calls: usize) -> Self {
        Self(Arc::new(Shared { messages, calls, open: AtomicUsize::new(0), parts: Mutex::default() }))
    }

    /// A place for a call, if there is one.
    fn call(&self) -> Option<Place> {
        let place = Place(self.clone());
        (self.0.open.fetch_add(1, Ordering::Relaxed) < self.0.calls).then_some(place)
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        // Every change is complete before anything can panic.
        self.0.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message of `bytes` has begun. Makes room for it.
    fn begin(&self, bytes: usize, shed: &Arc<Shed>) -> u64 {
        let mut parts = self.parts();
        let id = parts.next;
        parts.next += 1;
        parts.bytes += bytes;
        parts.all.insert(id, (bytes, shed.clone()));
        while parts.bytes > self.0.messages
            && let Some((_, (freed, oldest))) = parts.all.pop_first()
        {
            parts.bytes -= freed;
            oldest.now.store(true, Ordering::Release);
            oldest.waker.wake();
        }
        id
    }

    fn end(&self, id: u64) {
        let mut parts = self.parts();
        if let Some((bytes, _)) = parts.all.remove(&id) {
            parts.bytes -= bytes;
        }
    }
}

/// A call that goes on.
struct Place(Intake);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S> Layer<S> for Intake {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, intake: self.clone() }
    }
}

/// A service whose calls are counted.
#[derive(Clone, Debug)]
pub(crate) struct Counted<S> {
    inner: S,
    intake: Intake,
}

impl<S> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(place) = self.intake.call() else {
            let status = Status::resource_exhausted("too many calls at a time");
            return Box::pin(async move { Ok(status.into_http()) });
        };
        let intake = self.intake.clone();
        let answer = self.inner.call(request.map(|body| Body::new(Received::new(body, intake))));
        Box::pin(async move { Ok(answer.await?.map(|body| Body::new(Held { body, _place: place }))) })
    }
}

/// The answer to a call, which lasts until it is sent.
struct Held {
    body: Body,
    _place: Place,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The messages of a call.
struct Received {
    body: Body,
    intake: Intake,
    shed: Arc<Shed>,
    /// The present message, if it is not complete.
    part: Option<u64>,
    prefix: Vec<u8>,
    /// Bytes that the present message still needs.
    left: usize,
}

impl Received {
    fn new(body: Body, intake: Intake) -> Self {
        Self { body, intake, shed: Arc::default(), part: None, prefix: Vec::new(), left: 0 }
    }

    /// Follows the messages in `data`.
    fn follow(&mut self, mut data: Bytes) {
        while data.has_remaining() {
            if self.left == 0 {
                let wanted = PREFIX - self.prefix.len();
                self.prefix.extend_from_slice(&data.split_to(wanted.min(data.len())));
                if let [_, a, b, c, d] = self.prefix[..] {
                    self.prefix.clear();
                    self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                }
            }
            let here = self.left.min(data.len());
            if self.part.is_none() && here < self.left {
                // What is more than a message may have is refused when its prefix is read.
                let bytes = self.left.min(kiln_proto::MAX_MESSAGE_SIZE);
                self.part = Some(self.intake.begin(bytes, &self.shed));
            }
            data.advance(here);
            self.left -= here;
            if self.left == 0 {
                self.complete();
            }
        }
    }

    fn complete(&mut self) {
        if let Some(id) = self.part.take() {
            self.intake.end(id);
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.complete();
    }
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.shed.waker.register(cx.waker());
        if self.shed.now.load(Ordering::Acquire) {
            let text = "too much is being received: a message that was not complete for long is refused";
            return Poll::Ready(Some(Err(Status::resource_exhausted(text))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.follow(data.clone());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of `size`, of which `sent` bytes have come.
    fn begun(intake: &Intake, size: u32, sent: usize) -> Received {
        let mut received = Received::new(Body::empty(), intake.clone());
        let message = [&[0][..], &size.to_be_bytes(), &vec![0; sent]].concat();
        received.follow(message.into());
        received
    }

    fn bytes(intake: &Intake) -> usize {
        intake.parts().bytes
    }

    fn is_shed(received: &Received) -> bool {
        received.shed.now.load(Ordering::Acquire)
    }

    #[test]
    fn messages_count_until_they_are_complete() {
        let intake = Intake::limited(1000, 1);
        let mut one = begun(&intake, 100, 99);
        assert_eq!(bytes(&intake), 100);
        one.follow(Bytes::from_static(b"x"));
        assert_eq!(bytes(&intake), 0);
        // Cut anywhere, and several in one.
        let stream = [0, 0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 2];
        for cut in 0..stream.len() {
            let mut received = Received::new(Body::empty(), intake.clone());
            received.follow(Bytes::copy_from_slice(&stream[..cut]));
            received.follow(Bytes::copy_from_slice(&stream[cut..]));
            assert_eq!((bytes(&intake), received.left, received.prefix.len()), (0, 0, 0), "{cut}");
        }
        let gone = begun(&intake, 500, 3);
        assert_eq!(bytes(&intake), 500);
        drop(gone);
        assert_eq!(bytes(&intake), 0);
    }

    #[test]
    fn the_oldest_give_way() {
        let intake = Intake::limited(1000, 1);
        let old: Vec<Received> = (0..3).map(|_| begun(&intake, 300, 10)).collect();
        let young = begun(&intake, 700, 10);
        assert_eq!(old.iter().map(is_shed).collect::<Vec<_>>(), [true, true, false]);
        assert!(!is_shed(&young));
        assert_eq!(bytes(&intake), 1000);
        drop((old, young));
        assert_eq!(bytes(&intake), 0);
        // What is larger than everything may be is counted as the largest that may be.
        assert!(is_shed(&begun(&intake, u32::MAX, 10)));
        assert_eq!(bytes(&intake), 0);
    }

    #[test]
    fn calls_have_places() {
        let intake = Intake::limited(0, 2);
        let (one, two) = (intake.call(), intake.call());
        assert!(one.is_some() && two.is_some() && intake.call().is_none() && intake.call().is_none());
        drop(one);
        assert!(intake.call().is_some());
    }
}
