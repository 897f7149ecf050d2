//! Errors of reading a Dockerfile. The texts are those users and tools know (spec dockerfile.md section 16).

use crate::ast::Range;
use crate::mount::MountError;
use kiln_go::quote;
use std::convert::Infallible;
use std::fmt;

/// Why a Dockerfile was not accepted, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// What is wrong.
    pub kind: ErrorKind,
    /// The lines to show; None when the whole file is meant.
    pub range: Option<Range>,
    /// Line named in the text (`dockerfile parse error on line N: `).
    pub named_line: Option<u32>,
}

impl ParseError {
    pub(crate) fn at(kind: ErrorKind, range: Range) -> Self {
        Self { kind, range: Some(range), named_line: None }
    }

    pub(crate) fn in_instruction(kind: ErrorKind, range: Range) -> Self {
        Self { kind, range: Some(range), named_line: Some(range.start) }
    }

    pub(crate) fn whole(kind: ErrorKind) -> Self {
        Self { kind, range: None, named_line: None }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.named_line {
            write!(f, "dockerfile parse error on line {line}: ")?;
        }
        self.kind.fmt(f)
    }
}

impl std::error::Error for ParseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.kind)
    }
}

/// A hint added to an error: ` (did you mean X?)` or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hint(pub Option<String>);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(word) => write!(f, " (did you mean {word}?)"),
            None => Ok(()),
        }
    }
}

/// What can be wrong in a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum ErrorKind {
    #[error("the Dockerfile cannot be empty")]
    Empty,
    #[error("file with no instructions")]
    NoInstructions,
    #[error("dockerfile contains no stages to build")]
    NoStages,
    #[error("no build stage in current context")]
    BeforeFrom,
    #[error("dockerfile line greater than max allowed size of 65535")]
    LineTooLong,
    #[error("instruction is not valid UTF-8")]
    NotUtf8,
    #[error("only one {0} parser directive can be used")]
    RepeatedDirective(String),
    #[error("invalid escape token '{0}' does not match ` or \\")]
    EscapeToken(String),
    #[error("unterminated heredoc")]
    UnterminatedHeredoc,
    #[error("{0}")]
    HeredocWord(crate::shell::ExpandError),
    #[error("unknown instruction: {word}{hint}")]
    UnknownInstruction { word: String, hint: Hint },
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    JsonNotStrings,
    #[error("{0} must have two arguments")]
    TwoArguments(&'static str),
    #[error("Syntax error - can't find = in {}. Must be of the form: name=value", quote(.0))]
    MissingEquals(String),
    #[error("{0} requires at least one argument")]
    AtLeastOne(&'static str),
    #[error("{0} requires exactly one argument")]
    ExactlyOne(&'static str),
    #[error(
        "{0} requires at least two arguments, but only one was provided. Destination could not be determined"
    )]
    NoDestination(&'static str),
    #[error("{0} cannot accept a heredoc as a destination")]
    HeredocDestination(&'static str),
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    #[error("FROM requires either one or three arguments")]
    FromArguments,
    #[error("invalid name for build stage: {}, name can't start with a number or contain symbols", quote(.0))]
    StageName(String),
    #[error("{0} requires the arguments to be in JSON form")]
    NotJson(&'static str),
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    #[error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    OnbuildChain,
    #[error("{0} isn't allowed as an ONBUILD trigger")]
    OnbuildTrigger(String),
    #[error("Missing command after HEALTHCHECK CMD")]
    HealthNoCommand,
    #[error("Unknown type {} in HEALTHCHECK (try CMD)", quote(.0))]
    HealthType(String),
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthNone,
    #[error("Interval {} cannot be less than 1ms", quote(.0))]
    HealthInterval(&'static str),
    #[error("{0}")]
    Duration(kiln_go::duration::DurationError),
    #[error("strconv.ParseInt: parsing {}: {reason}", quote(.value))]
    Retries { value: String, reason: &'static str },
    #[error("--retries cannot be negative ({0})")]
    NegativeRetries(i64),
    #[error("invalid network mode {}", quote(.0))]
    Network(String),
    #[error("security {} is not valid", quote(.0))]
    Security(String),
    #[error("unknown flag: --{name}{hint}")]
    UnknownFlag { name: String, hint: Hint },
    #[error("duplicate flag specified: --{0}")]
    DuplicateFlag(String),
    #[error("missing a value on flag: --{0}")]
    FlagValue(String),
    #[error("expecting boolean value for flag --{name}, not: {value}")]
    FlagBool { name: String, value: String },
    #[error("{0}")]
    Mount(MountError<Infallible>),
    #[error("{0}")]
    Device(String),
}
