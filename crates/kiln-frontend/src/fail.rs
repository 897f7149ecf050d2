//! Errors while a Dockerfile is converted: a build error and the places that led to it.

use kiln_dockerfile::shell::ExpandError;
use kiln_dockerfile::{MountError, ParseError, Range};
use kiln_llb::SourceInfo;
use kiln_llb::builder::MarshalError;
use kiln_llb::errdefs::{BuildError, Code};
use std::fmt;

/// An error with places in the Dockerfile, innermost first.
#[derive(Debug)]
pub(crate) struct Fail {
    pub(crate) error: Box<BuildError>,
    pub(crate) at: Vec<Range>,
}

pub(crate) type Result<T> = std::result::Result<T, Fail>;

impl Fail {
    pub(crate) fn msg(message: impl Into<String>) -> Self {
        BuildError::msg(message).into()
    }

    /// Adds a place further out.
    pub(crate) fn at(mut self, range: Range) -> Self {
        self.at.push(range);
        self
    }

    /// Says that the place is this one, whatever was known.
    pub(crate) fn only_at(mut self, range: Range) -> Self {
        self.at = vec![range];
        self
    }

    pub(crate) fn context(mut self, context: impl fmt::Display) -> Self {
        *self.error = self.error.context(context);
        self
    }

    /// The error for the outside: each place becomes a source detail.
    pub(crate) fn into_error(self, info: &SourceInfo) -> BuildError {
        let with_place = |e: BuildError, r: &Range| e.with_source(info.clone(), wire_ranges(*r));
        self.at.iter().fold(*self.error, with_place)
    }
}

/// One range per line, as the reference sends them.
pub(crate) fn wire_ranges(range: Range) -> Vec<kiln_llb::Range> {
    let position =
        |line: u32| kiln_llb::Position { line: i32::try_from(line).unwrap_or(i32::MAX), character: 0 };
    range.lines().map(|r| kiln_llb::Range { start: position(r.start), end: position(r.end) }).collect()
}

/// Adds a place to the error of a result.
pub(crate) trait At<T> {
    fn at(self, range: Range) -> Result<T>;
}

impl<T, E: Into<Fail>> At<T> for std::result::Result<T, E> {
    fn at(self, range: Range) -> Result<T> {
        self.map_err(|e| e.into().at(range))
    }
}

impl From<BuildError> for Fail {
    fn from(error: BuildError) -> Self {
        Fail { error: Box::new(error), at: Vec::new() }
    }
}

impl From<ParseError> for Fail {
    fn from(e: ParseError) -> Self {
        let error = Box::new(BuildError::msg(e.to_string()));
        Fail { error, at: e.range.into_iter().collect() }
    }
}

impl From<ExpandError> for Fail {
    fn from(e: ExpandError) -> Self {
        Fail::msg(e.to_string())
    }
}

impl From<MountError<Fail>> for Fail {
    fn from(e: MountError<Fail>) -> Self {
        match e {
            MountError::Expand(fail) => fail,
            other => Fail::msg(other.to_string()),
        }
    }
}

/// For the text of a mount error, which never shows an expander's error here.
impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl From<MarshalError> for Fail {
    fn from(e: MarshalError) -> Self {
        BuildError::new(Code::Internal, format!("failed to marshal LLB definition: {e}")).into()
    }
}
