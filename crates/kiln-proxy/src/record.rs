//! What a step fetched.

use kiln_digest::Digest;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What went through the proxy of one step, in the order in which answers came. URLs are without credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// All requests.
    pub requests: Vec<Request>,
    /// What was fetched whole.
    pub materials: Vec<Material>,
    /// What cannot be known again by a digest.
    pub incomplete: Vec<Incomplete>,
    /// How many entries there was no room for.
    pub left_out: u64,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// As on the wire.
    pub method: String,
    /// What was fetched, which may be another URL than the step's.
    pub url: String,
    /// Where the answer sends the step.
    pub redirect: Option<String>,
    /// What came back.
    pub answer: Answer,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This status; 502 also when the server could not be reached.
    Status(u16),
    /// A policy said no, for this reason; the step saw 403.
    Denied(String),
    /// None before the step ended.
    None,
}

/// Content that was fetched whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// Where it was.
    pub url: String,
    /// Of the bytes.
    pub digest: Digest,
}

/// Something that was fetched, and cannot be known again by a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incomplete {
    /// Of the request.
    pub method: String,
    /// Of the request.
    pub url: String,
    /// Why.
    pub reason: Reason,
}

/// Why something is [`Incomplete`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The server could not be reached, or did not answer.
    UpstreamError,
    /// Not a GET: the same request need not give the same.
    Method,
    /// A part of something.
    Partial,
    /// The body was not read to its end.
    BodyReadFailed,
    /// The status says that it went wrong.
    Unsuccessful,
}

impl Reason {
    /// The name that BuildKit has for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UpstreamError => "upstream_error",
            Self::Method => "method_not_materializable",
            Self::Partial => "partial_response",
            Self::BodyReadFailed => "body_read_failed",
            Self::Unsuccessful => "unsuccessful_response",
        }
    }
}

impl Record {
    /// Whether every byte that the step fetched is known by a digest.
    pub fn is_complete(&self) -> bool {
        self.incomplete.is_empty() && self.left_out == 0
    }

    /// What is said of it in the step's log; nothing where there were no requests.
    pub fn log(&self) -> String {
        let mut out = String::new();
        if self.requests.is_empty() {
            return out;
        }
        out.push_str("proxy network requests:\n");
        for request in &self.requests {
            let _ = write!(out, "- {} {}", request.method, request.url);
            let _ = match &request.answer {
                Answer::Status(status) => writeln!(out, " -> {status}"),
                Answer::Denied(reason) => writeln!(out, " -> 403 ({reason})"),
                Answer::None => writeln!(out),
            };
        }
        if self.left_out > 0 {
            let _ = writeln!(out, "- and more, which were not noted");
        }
        out
    }

    /// Content that a redirect led to is also that of the URL that redirected.
    pub(crate) fn follow_redirects(&mut self) {
        let redirects: BTreeMap<&str, &str> = self
            .requests
            .iter()
            .filter_map(|r| r.redirect.as_deref().map(|to| (r.url.as_str(), to)))
            .filter(|(from, to)| from != to)
            .collect();
        let mut known: BTreeMap<&str, Digest> =
            self.materials.iter().map(|m| (m.url.as_str(), m.digest)).collect();
        let mut found = Vec::new();
        for start in redirects.keys() {
            let (mut path, mut at) = (Vec::new(), *start);
            while !known.contains_key(at) && !path.contains(&at) {
                path.push(at);
                match redirects.get(at) {
                    Some(next) if path.len() <= MAX_REDIRECTS => at = next,
                    _ => break,
                }
            }
            let Some(digest) = known.get(at).copied() else { continue };
            for url in path.into_iter().rev() {
                known.insert(url, digest);
                found.push(Material { url: url.to_string(), digest });
            }
        }
        self.materials.append(&mut found);
    }
}

/// Longest chain of redirects that is followed; clients give up earlier.
const MAX_REDIRECTS: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    fn request(url: &str, redirect: Option<&str>, status: u16) -> Request {
        let redirect = redirect.map(str::to_string);
        Request { method: "GET".into(), url: url.into(), redirect, answer: Answer::Status(status) }
    }

    #[test]
    fn a_redirect_has_the_digest_of_what_it_led_to() {
        let digest = Digest::sha256("x");
        let mut record = Record {
            requests: vec![
                request("a", Some("b"), 302),
                request("b", Some("c"), 301),
                request("c", None, 200),
                request("x", Some("y"), 302),
                request("y", Some("x"), 302),
                request("self", Some("self"), 302),
            ],
            materials: vec![Material { url: "c".into(), digest }],
            ..Record::default()
        };
        record.follow_redirects();
        let urls: Vec<&str> = record.materials.iter().map(|m| m.url.as_str()).collect();
        assert_eq!(urls, ["c", "b", "a"]);
        assert!(record.materials.iter().all(|m| m.digest == digest));
    }

    #[test]
    fn the_log_is_that_of_buildkit() {
        let mut record = Record::default();
        assert_eq!(record.log(), "");
        record.requests = vec![request("http://h/", None, 200)];
        let denied = Answer::Denied("source policy".into());
        record.requests.push(Request { answer: denied, ..request("http://d/", None, 0) });
        record.requests.push(Request { answer: Answer::None, ..request("http://s/", None, 0) });
        let lines = "proxy network requests:\n- GET http://h/ -> 200\n- GET http://d/ -> 403 (source policy)\n- GET http://s/\n";
        assert_eq!(record.log(), lines);
    }
}
