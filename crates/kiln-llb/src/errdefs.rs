//! The error that crosses every boundary of a build, with its details (spec llb-and-solver section 8).
//!
//! On the wire it is a gRPC status whose details are `google.protobuf.Any`, each with a bare type name and a JSON
//! payload. Details that are not known here are kept as they came.

mod detail;
mod json;

pub use detail::{Detail, SolveSubject};
pub(crate) use json::metadata_json;
pub use json::{decode_detail, definition_json, encode_detail};

use crate::{Range, SourceInfo};
use kiln_digest::Digest;
use std::fmt;

/// gRPC status codes (grpc/grpc doc/statuscodes.md).
#[expect(missing_docs, reason = "the names are the documentation")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    Canceled = 1,
    #[default]
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// From the number of the wire; what is unknown (and 0, which is no error) becomes `Unknown`.
    pub fn from_number(n: i32) -> Code {
        use Code::*;
        const ALL: [Code; 16] = [
            Canceled,
            Unknown,
            InvalidArgument,
            DeadlineExceeded,
            NotFound,
            AlreadyExists,
            PermissionDenied,
            ResourceExhausted,
            FailedPrecondition,
            Aborted,
            OutOfRange,
            Unimplemented,
            Internal,
            Unavailable,
            DataLoss,
            Unauthenticated,
        ];
        usize::try_from(i64::from(n) - 1).ok().and_then(|i| ALL.get(i)).copied().unwrap_or(Unknown)
    }

    /// The number of the wire.
    pub fn number(self) -> i32 {
        i32::from(self as u8)
    }
}

/// An error of a build. The message is the full text, outermost context first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BuildError {
    /// What kind.
    pub code: Code,
    /// Text for people.
    pub message: String,
    /// For programs, and for showing the source; in the order of the wire.
    pub details: Vec<Detail>,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BuildError {}

impl BuildError {
    /// An error without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        BuildError { code, message: message.into(), details: Vec::new() }
    }

    /// An error of no particular kind.
    pub fn msg(message: impl Into<String>) -> Self {
        Self::new(Code::Unknown, message)
    }

    /// The text of a canceled build.
    pub fn canceled() -> Self {
        Self::new(Code::Canceled, "context canceled")
    }

    /// Puts `context: ` before the text.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Adds a detail that wraps what is there: outer ones come first.
    #[must_use]
    pub fn wrap(mut self, detail: Detail) -> Self {
        self.details.insert(0, detail);
        self
    }

    /// Adds the vertex, unless one is named already.
    #[must_use]
    pub fn with_vertex(self, vertex: Digest) -> Self {
        if self.vertex().is_some() { self } else { self.wrap(Detail::Vertex(vertex)) }
    }

    /// Adds a place in a file.
    #[must_use]
    pub fn with_source(self, info: SourceInfo, ranges: Vec<Range>) -> Self {
        self.wrap(Detail::Source { info: Some(info), ranges })
    }

    /// The innermost vertex.
    pub fn vertex(&self) -> Option<Digest> {
        self.details.iter().rev().find_map(|d| match d {
            Detail::Vertex(v) => Some(*v),
            _ => None,
        })
    }

    /// The places in files, innermost first.
    pub fn sources(&self) -> impl Iterator<Item = (&SourceInfo, &[Range])> {
        self.details.iter().rev().filter_map(|d| match d {
            Detail::Source { info: Some(info), ranges } => Some((info, ranges.as_slice())),
            _ => None,
        })
    }

    /// The exit code of the process that failed, where one did.
    pub fn exit_code(&self) -> Option<u32> {
        self.details.iter().find_map(|d| match d {
            Detail::ExitCode(code) => Some(*code),
            _ => None,
        })
    }

    /// Whether the work was stopped from outside.
    pub fn is_canceled(&self) -> bool {
        self.code == Code::Canceled
    }

    /// The details for the wire: type name and payload.
    pub fn encode_details(&self) -> Vec<(String, Vec<u8>)> {
        self.details.iter().map(encode_detail).collect()
    }

    /// From the parts of a gRPC status.
    pub fn from_wire(
        code: i32,
        message: String,
        details: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Self {
        let details = details.into_iter().map(|(url, value)| decode_detail(&url, &value)).collect();
        BuildError { code: Code::from_number(code), message, details }
    }
}

/// An excerpt of a file with the lines of `ranges` marked, as clients print it. `None` when no line is in the file.
pub fn excerpt(info: &SourceInfo, ranges: &[Range]) -> Option<String> {
    let text = String::from_utf8_lossy(&info.data);
    let lines: Vec<&str> = text.split('\n').collect();
    let last = |r: &Range| r.end.line.max(r.start.line);
    let first_line = usize::try_from(ranges.iter().map(|r| r.start.line).min()?).ok()?;
    let last_line = usize::try_from(ranges.iter().map(last).max()?).ok()?;
    if first_line < 1 || first_line > lines.len() {
        return None;
    }
    let (mut start, mut end) = (first_line, last_line.min(lines.len()));
    let pad = if start == end { 4 } else { 2 };
    let mut shown = 0;
    while shown < pad {
        if start > 1 {
            start -= 1;
            shown += 1;
        }
        if end != lines.len() {
            end += 1;
            shown += 1;
        }
        shown += 1;
    }
    let marked = |n: usize| {
        ranges.iter().any(|r| i64::from(r.start.line) <= n as i64 && n as i64 <= i64::from(last(r)))
    };
    let mut out = format!("{}:{first_line}\n--------------------\n", info.filename);
    for n in start..=end {
        let mark = if marked(n) { ">>>" } else { "   " };
        out.push_str(&format!(" {n:3} | {mark} {}\n", lines[n - 1]));
    }
    out.push_str("--------------------\n");
    Some(out)
}

#[cfg(test)]
mod tests;
