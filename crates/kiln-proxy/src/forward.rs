//! One request: decided, sent on, answered.

use crate::body::{Noted, Relayed};
use crate::capture::Capture;
use crate::policy::{Denied, Verdict};
use crate::record::{Answer, Reason};
use crate::serve::Shared;
use crate::target::{Origin, Target, Wrong};
use crate::{headers, mask, upstream};
use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, LOCATION, RANGE};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use std::sync::Arc;

/// What a step is sent.
pub(crate) type Outgoing = Response<Either<Full<Bytes>, Relayed>>;

/// How often a request without a body is sent again when the server closed the connection it was sent on.
const AGAIN: usize = 2;

/// An answer of the proxy's own.
pub(crate) fn own(status: StatusCode, text: &str) -> Outgoing {
    let mut answer = Response::new(Either::Left(Full::from(format!("{text}\n"))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

impl Shared {
    /// Answers a request. What goes wrong is an answer too.
    pub(crate) async fn forward(&self, request: Request<Incoming>, origin: &Origin) -> Outgoing {
        let (parts, body) = request.into_parts();
        let target = match Target::of(&parts, origin) {
            Ok(target) => target,
            Err(Wrong::Address) => return own(StatusCode::BAD_REQUEST, "Bad Request"),
            Err(Wrong::Misdirected) => return own(StatusCode::MISDIRECTED_REQUEST, "Misdirected Request"),
        };
        let target = match self.decide(&parts.method, target.clone()).await {
            Ok(target) => target,
            Err(Denied(reason)) => {
                let denied = Answer::Denied(mask::line(&reason));
                self.capture.request(parts.method.as_str(), &target.shown, None, denied);
                return own(StatusCode::FORBIDDEN, "Forbidden");
            }
        };
        let mut pending = Pending {
            capture: Some(&self.capture),
            method: &parts.method,
            url: &target.shown,
            answer: Answer::None,
        };
        match self.send(&parts, body, &target).await {
            Ok(answer) => {
                pending.capture = None;
                self.relay(&parts, &target, answer)
            }
            Err(error) => {
                pending.answer = Answer::Status(StatusCode::BAD_GATEWAY.as_u16());
                own(StatusCode::BAD_GATEWAY, &upstream::causes(&error))
            }
        }
    }

    async fn decide(&self, method: &Method, target: Target) -> Result<Target, Denied> {
        let other = match self.policy.decide(target.url.as_str()).await? {
            Verdict::Allowed => return Ok(target),
            Verdict::Instead(other) if other == target.url.as_str() => return Ok(target),
            Verdict::Instead(other) => other,
        };
        if method != Method::GET {
            return Err(Denied("a policy replaces it, which can be done for GET only".into()));
        }
        Target::parse(&other)
            .map_err(|_| Denied("a policy replaces it by what is no http or https URL".into()))
    }

    async fn send(
        &self,
        parts: &Parts,
        body: Incoming,
        target: &Target,
    ) -> reqwest::Result<reqwest::Response> {
        let mut body = Some(body).filter(|body| !body.is_end_stream());
        let mut again = if body.is_none() && parts.method.is_idempotent() { AGAIN } else { 0 };
        loop {
            let mut request = reqwest::Request::new(parts.method.clone(), target.url.clone());
            *request.headers_mut() = parts.headers.clone();
            headers::of_request(request.headers_mut(), target.credentials.clone());
            *request.body_mut() = body.take().map(reqwest::Body::wrap);
            match self.client.execute(request).await {
                Err(e) if again > 0 && e.is_request() && !e.is_connect() && !e.is_timeout() => again -= 1,
                answer => return answer,
            }
        }
    }

    fn relay(&self, parts: &Parts, target: &Target, answer: reqwest::Response) -> Outgoing {
        let status = answer.status();
        // Nobody asked for it: the headers that would have are not sent.
        if status.is_informational() {
            return own(StatusCode::BAD_GATEWAY, "the server changes the protocol");
        }
        let redirect = answer.headers().get(LOCATION).and_then(|location| target.redirect(location));
        let method = parts.method.as_str();
        self.capture.request(method, &target.shown, redirect, Answer::Status(status.as_u16()));
        let noted = Noted {
            capture: Arc::clone(&self.capture),
            method: parts.method.clone(),
            url: target.shown.clone(),
            status,
            part: parts.headers.contains_key(RANGE),
        };
        let mut answer = Response::from(answer);
        let body = Relayed::new(&mut answer, noted);
        let (mut parts, _) = answer.into_parts();
        headers::of_answer(&mut parts.headers);
        parts.version = hyper::Version::HTTP_11;
        // What the client keeps with an answer is nothing for the server.
        parts.extensions.clear();
        Response::from_parts(parts, Either::Right(body))
    }
}

/// A request that has been sent on. It is noted also when the step ends before the answer.
struct Pending<'a> {
    /// `None` when it has been noted.
    capture: Option<&'a Capture>,
    method: &'a Method,
    url: &'a str,
    answer: Answer,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let Some(capture) = self.capture else { return };
        let answer = std::mem::replace(&mut self.answer, Answer::None);
        capture.request(self.method.as_str(), self.url, None, answer);
        capture.incomplete(self.method.as_str(), self.url, Reason::UpstreamError);
    }
}
