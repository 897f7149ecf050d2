//! Errors and exit statuses (spec daemon-and-cli.md section 4).

use std::process::ExitCode;

use kiln_cli::advice::{self, Words};
use kiln_cli::error::CliError;
use kiln_cli::printer;
use kiln_llb::errdefs::{BuildError, Code};

/// What the commands are called here.
const WORDS: Words = Words {
    build: "docker buildx build",
    prune: "docker buildx prune",
    no_daemon: "docker buildx ls shows the builders and whether their daemons answer",
};

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
            Self::Cli(error) | Self::Build(error) => match error {
                CliError::Canceled => 130,
                CliError::Status(status) => *status,
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

    fn advice(&self) -> Vec<String> {
        match self {
            Self::Cli(error @ (CliError::Build(_) | CliError::Engine(_))) | Self::Build(error) => {
                advice::hints(error, &WORDS)
            }
            _ => self.advice_on_builders().into_iter().map(str::to_owned).collect(),
        }
    }

    fn advice_on_builders(&self) -> Option<&'static str> {
        use kiln_builder::Error as B;
        match self {
            Self::Builder(B::Init { why, .. }) if matches!(**why, B::NoEngine { .. }) => Some(
                "there is no Docker Engine; for a builder without one: docker buildx create --driver kiln",
            ),
            Self::Builder(B::NoEngine { .. }) | Self::BuildOn(B::NoEngine { .. }) => Some(
                "there is no Docker Engine; to build without one: docker buildx create --driver kiln --use",
            ),
            Self::Builder(B::Connect(error))
            | Self::BuildOn(B::Connect(error))
            | Self::Cli(CliError::Connect(error)) => advice::on_connecting(error, &WORDS),
            _ => None,
        }
    }

    /// Tells the user and gives the exit status.
    pub(crate) fn report(&self, is_plugin: bool) -> ExitCode {
        let status = ExitCode::from(self.exit_status(is_plugin));
        match self {
            Self::Cli(error) if error.is_silent() => return status,
            Self::Flag { message, usage } if is_plugin => {
                printer::people(&format!("{message}\n\n{usage}\n"));
                return status;
            }
            Self::Cli(error) | Self::Build(error) => printer::people(&kiln_cli::error::excerpts(error)),
            _ => {}
        }
        printer::people(&kiln_cli::error::readable(&format!("ERROR: {self}\n")));
        for advice in self.advice() {
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
