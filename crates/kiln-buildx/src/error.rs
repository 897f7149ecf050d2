//! Errors and exit statuses (spec daemon-and-cli.md section 4).

use std::process::ExitCode;

use kiln_cli::error::CliError;
use kiln_cli::printer;
use kiln_client::ConnectError;
use kiln_llb::errdefs::{BuildError, Code};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Said as it is.
    #[error("{0}")]
    Text(String),
    /// A flag that there is not, or a value that cannot be used; with the usage of the command.
    #[error("{message}")]
    Flag { message: String, usage: String },
    /// A builder cannot be found, made or used.
    #[error("{0}")]
    Builder(#[from] kiln_builder::Error),
    /// The daemon of a build cannot be booted or reached, or an engine does not take its result.
    #[error("failed to build: {0}")]
    BuildOn(kiln_builder::Error),
    /// Something of a build, before it is one.
    #[error("{0}")]
    Cli(#[from] CliError),
    /// A build failed.
    #[error("failed to build: {0}")]
    Build(CliError),
    /// Everything was said already.
    #[error("exit status {0}")]
    Exit(u8),
}

impl From<BuildError> for Error {
    fn from(error: BuildError) -> Self {
        Self::Cli(error.into())
    }
}

impl Error {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    fn exit_status(&self, is_plugin: bool) -> u8 {
        match self {
            Self::Flag { .. } if is_plugin => 125,
            Self::Exit(status) => *status,
            Self::Cli(error) | Self::Build(error) => match error {
                CliError::Canceled => 130,
                CliError::Build(error) => of_code(error.code),
                _ => 1,
            },
            Self::Builder(error) | Self::BuildOn(error) => match error {
                kiln_builder::Error::Daemon(error) => of_code(error.code),
                _ => 1,
            },
            _ => 1,
        }
    }

    fn advice(&self) -> Option<String> {
        use kiln_builder::Error as B;
        let text = match self {
            Self::Builder(B::Init { why, .. }) if matches!(**why, B::NoEngine { .. }) => {
                "there is no Docker Engine; for a builder without one: docker buildx create --driver kiln"
                    .to_owned()
            }
            Self::Builder(B::NoEngine { .. }) | Self::BuildOn(B::NoEngine { .. }) => {
                "there is no Docker Engine; to build without one: docker buildx create --driver kiln --use"
                    .to_owned()
            }
            Self::Builder(B::Connect(error))
            | Self::BuildOn(B::Connect(error))
            | Self::Cli(CliError::Connect(error)) => match &**error {
                ConnectError::NoDaemon { .. } => {
                    "docker buildx ls shows the builders and whether their daemons answer".to_owned()
                }
                ConnectError::Log { source, .. } | ConnectError::Spawn { source, .. }
                    if source.kind() == std::io::ErrorKind::PermissionDenied =>
                {
                    "there is no daemon yet, and builds need root: run docker as root".to_owned()
                }
                _ => return None,
            },
            Self::Cli(CliError::Gone { log, .. }) | Self::Build(CliError::Gone { log, .. }) => {
                format!("the daemon went away; its log is {}", log.display())
            }
            _ => return None,
        };
        Some(text)
    }

    /// Tells the user and gives the exit status.
    pub(crate) fn report(&self, is_plugin: bool) -> ExitCode {
        let status = ExitCode::from(self.exit_status(is_plugin));
        match self {
            Self::Exit(_) => return status,
            Self::Cli(CliError::Stream { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => {
                return status;
            }
            Self::Flag { message, usage } if is_plugin => {
                printer::people(&format!("{message}\n\n{usage}\n"));
                return status;
            }
            Self::Cli(error) | Self::Build(error) => printer::people(&kiln_cli::error::excerpts(error)),
            _ => {}
        }
        // Part of it was said by the daemon or an engine.
        printer::people(&kiln_progress::printable_lines(&format!("ERROR: {self}\n")));
        if let Some(advice) = self.advice() {
            printer::people(&format!("hint: {advice}\n"));
        }
        status
    }
}

fn of_code(code: Code) -> u8 {
    match code {
        Code::Internal => 100,
        Code::ResourceExhausted => 102,
        Code::Canceled => 130,
        _ => 1,
    }
}
