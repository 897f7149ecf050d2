//! Errors of the command line, and the one place that turns them into text, advice and an exit status.

use crate::advice;
use crate::printer;
use kiln_client::ConnectError;
use kiln_llb::errdefs::{BuildError, Code};
use kiln_llb::mask_credentials;
use kiln_progress::{LineRange, SourceFile, print_source_excerpt, printable_lines};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A flag has a value that cannot be used.
    #[error("invalid value '{value}' for {flag}: {why}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// Flags or arguments that do not go together.
    #[error("{0}")]
    Usage(String),
    /// Something of the command line of docker build that kiln does not do yet.
    #[error("{flag} is not built yet: {why}")]
    NotBuilt {
        /// The flag or the way it was used.
        flag: String,
        /// What to know about it.
        why: &'static str,
    },
    /// A file of the client.
    #[error("{doing} {}: {source}", path.display())]
    File {
        /// The step.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A standard stream.
    #[error("{doing}: {source}")]
    Stream {
        /// The step.
        doing: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A Docker Engine that was to take a result.
    #[error("{0}")]
    Engine(Box<kiln_builder::Error>),
    /// No daemon could be reached or started.
    #[error("{0}")]
    Connect(Box<ConnectError>),
    /// The daemon in this process could not start.
    #[error("{0}")]
    Daemon(String),
    /// The build or another request failed in the daemon.
    #[error("{0}")]
    Build(Box<BuildError>),
    /// The daemon went away during a request; its log is known.
    #[error("{error}")]
    Gone {
        /// What was seen of it.
        error: Box<BuildError>,
        /// Where the daemon writes.
        log: PathBuf,
    },
    /// Stopped by a signal.
    #[error("canceled")]
    Canceled,
    /// Everything was said already.
    #[error("exit status {0}")]
    Status(u8),
}

impl From<ConnectError> for CliError {
    fn from(error: ConnectError) -> Self {
        Self::Connect(Box::new(error))
    }
}

impl From<kiln_builder::Error> for CliError {
    fn from(error: kiln_builder::Error) -> Self {
        Self::Engine(Box::new(error))
    }
}

impl From<BuildError> for CliError {
    fn from(error: BuildError) -> Self {
        if error.is_canceled() { Self::Canceled } else { Self::Build(Box::new(error)) }
    }
}

impl CliError {
    /// An error of a daemon that has, as far as it is known, this log.
    pub fn of_build(error: BuildError, log: Option<&Path>) -> Self {
        match log {
            Some(log) if error.code == Code::Unavailable => {
                Self::Gone { error: Box::new(error), log: log.to_owned() }
            }
            _ => error.into(),
        }
    }

    /// An error of a client's file.
    pub fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }

    /// An error of a standard stream.
    pub fn stream(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Stream { doing, source }
    }

    fn exit_status(&self) -> u8 {
        match self {
            // As a shell reports a program that SIGINT ended.
            Self::Canceled => 130,
            Self::Status(status) => *status,
            _ => 1,
        }
    }

    /// Whether there is nothing to say: it was said, or the reader went away.
    pub fn is_silent(&self) -> bool {
        match self {
            Self::Status(_) => true,
            Self::Stream { source, .. } => source.kind() == io::ErrorKind::BrokenPipe,
            _ => false,
        }
    }
}

/// Tells the user and gives the exit status.
pub fn report(error: &CliError) -> ExitCode {
    if !error.is_silent() {
        printer::people(&text(error));
    }
    ExitCode::from(error.exit_status())
}

/// A message as people read it: without the numbers of system errors, whose words say as much, and without what steers a
/// terminal, for part of it was said by the daemon and by those that it asked.
pub fn readable(message: &str) -> String {
    const NUMBER: &str = " (os error ";
    let (mut out, mut rest) = (String::new(), message);
    while let Some((before, after)) = rest.split_once(NUMBER) {
        out.push_str(before);
        rest = match after.split_once(')') {
            Some((number, more)) if number.parse::<u32>().is_ok() => more,
            _ => {
                out.push_str(NUMBER);
                after
            }
        };
    }
    out.push_str(rest);
    printable_lines(&out)
}

/// Excerpts of the sources, `error: ...`, then hints.
pub fn text(error: &CliError) -> String {
    let mut out = excerpts(error);
    out.push_str(&readable(&format!("error: {error}\n")));
    for hint in advice::hints(error, &advice::KILN) {
        out.push_str(&format!("hint: {hint}\n"));
    }
    out
}

/// The places in sources that an error is about.
pub fn excerpts(error: &CliError) -> String {
    let mut out = Vec::new();
    if let CliError::Build(build) = error {
        for (info, ranges) in build.sources() {
            let source = SourceFile {
                filename: info.filename.clone(),
                data: mask_credentials(&String::from_utf8_lossy(&info.data)).into_owned().into_bytes(),
                language: String::new(),
            };
            let ranges: Vec<LineRange> =
                ranges.iter().map(|r| LineRange { start: r.start.line, end: r.end.line }).collect();
            // Writing to memory does not fail.
            let _ = print_source_excerpt(&source, &ranges, &mut out);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
