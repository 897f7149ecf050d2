//! The body of an answer on its way to the step.

use crate::capture::Capture;
use crate::record::Reason;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::CONTENT_LENGTH;
use hyper::{Method, StatusCode};
use kiln_digest::Hasher;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Notes what a body was when it ends, at the latest when it is dropped. It is noted before the step can know that it has
/// all: a step that then ends at once has been recorded.
pub(crate) struct Noted {
    pub(crate) capture: Arc<Capture>,
    pub(crate) method: Method,
    /// For people.
    pub(crate) url: String,
    pub(crate) status: StatusCode,
    /// The request was for a part only.
    pub(crate) part: bool,
}

impl Noted {
    /// Why there is no digest, however the body ends; that of its end is `None`.
    fn reason(&self, ended: bool) -> Option<Reason> {
        if self.method != Method::GET {
            Some(Reason::Method)
        } else if self.part || self.status == StatusCode::PARTIAL_CONTENT {
            Some(Reason::Partial)
        } else if !ended {
            Some(Reason::BodyReadFailed)
        } else if self.status.as_u16() >= 400 {
            Some(Reason::Unsuccessful)
        } else {
            None
        }
    }

    fn end(&self, digest: Option<Hasher>) {
        match (self.reason(digest.is_some()), digest) {
            (Some(reason), _) => self.capture.incomplete(self.method.as_str(), &self.url, reason),
            (None, Some(digest)) if self.status.is_success() => {
                self.capture.material(&self.url, digest.finish());
            }
            (None, _) => {}
        }
    }
}

/// Passes a body on.
pub(crate) struct Relayed {
    body: reqwest::Body,
    /// Bytes to come, where the server says how many.
    left: Option<u64>,
    /// Taken when the body has ended.
    hash: Option<Hasher>,
    noted: Noted,
}

impl Relayed {
    pub(crate) fn new(answer: &mut hyper::Response<reqwest::Body>, noted: Noted) -> Self {
        let length = answer.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        let body = std::mem::take(answer.body_mut());
        let without = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&noted.status);
        let empty = body.is_end_stream() || without || noted.method == Method::HEAD;
        let mut relayed = Self { body, left: length, hash: Some(Hasher::new()), noted };
        if empty || length == Some(0) {
            relayed.complete();
        }
        relayed
    }

    fn complete(&mut self) {
        if let Some(hash) = self.hash.take() {
            self.noted.end(Some(hash));
        }
    }

    fn passes(&mut self, data: &Bytes) {
        if let Some(hash) = &mut self.hash {
            hash.update(data);
        }
        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        if self.left == Some(0) {
            self.complete();
        }
    }
}

impl Body for Relayed {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        loop {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                // Trailers are of the connection.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.passes(&data);
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Some(Err(e)) => return Poll::Ready(Some(Err(e))),
                None => {
                    self.complete();
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.hash.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        if self.hash.is_some() {
            self.noted.end(None);
        }
    }
}
