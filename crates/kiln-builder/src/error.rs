use std::io;
use std::path::PathBuf;

use kiln_client::ConnectError;
use kiln_llb::errdefs::BuildError;

/// Why something about a builder does not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for is wrong, or does not fit what there is.
    #[error("{0}")]
    Invalid(String),
    /// Neither an instance nor a Docker context has this name.
    #[error("no builder {0:?} found")]
    NoBuilder(String),
    /// A name that an instance cannot have.
    #[error("invalid name {0}, name needs to start with a letter and may not contain symbols, except ._-")]
    Name(String),
    /// A node cannot be used as it was to be created.
    #[error("failed to initialize builder {builder} ({node}): {why}")]
    Init {
        /// The builder.
        builder: String,
        /// Its node.
        node: String,
        /// What is wrong with it.
        why: Box<Error>,
    },
    /// Something that kiln does not do yet.
    #[error("{what} is not built yet: {advice}")]
    NotBuilt {
        /// What was asked for.
        what: String,
        /// What to do instead.
        advice: &'static str,
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
    /// A Docker Engine cannot be reached.
    #[error(
        "failed to connect to the docker API at {host}; check if the path is correct and if the daemon is running: {why}"
    )]
    NoEngine {
        /// Its address.
        host: String,
        /// What the system says.
        why: String,
    },
    /// A Docker Engine refused a request.
    #[error("Error response from daemon: {message}")]
    Engine {
        /// HTTP status.
        status: u16,
        /// What it says.
        message: String,
    },
    /// A daemon cannot be reached or started.
    #[error("{0}")]
    Connect(Box<ConnectError>),
    /// A daemon refused a request.
    #[error("{0}")]
    Daemon(Box<BuildError>),
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        Self::Connect(Box::new(error))
    }
}

impl From<BuildError> for Error {
    fn from(error: BuildError) -> Self {
        Self::Daemon(Box::new(error))
    }
}

impl Error {
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }

    pub(crate) fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }

    /// A Docker Engine says that the thing is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Engine { status: 404, .. })
    }
}
