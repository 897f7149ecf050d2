use tonic::{Code, Status};

/// Why a call to a client failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SessionError {
    /// The client never came, or is gone.
    #[error("no active session for {0}")]
    NoSession(String),
    /// Nobody to ask: the build has no session at all.
    #[error("no active sessions")]
    NoSessions,
    /// A second connection under the id of a live session.
    #[error("session {0} already exists")]
    Duplicate(String),
    /// More clients than there may be.
    #[error("too many sessions: there are {0}")]
    TooMany(usize),
    /// The stream's metadata cannot be a session's.
    #[error("invalid session: {0}")]
    Invalid(String),
    /// The client did not announce this method.
    #[error("method {0} not supported by the client")]
    Unsupported(String),
    /// The client has no such secret.
    #[error("secret {0}: not found")]
    SecretNotFound(String),
    /// The client answered with an error.
    #[error("{call}: {}", said(.status))]
    Call {
        /// What was asked, such as `credentials for docker.io`.
        call: String,
        /// The answer.
        status: Box<Status>,
    },
    /// The connection broke or its health checks failed.
    #[error("{call}: session closed: {reason}")]
    Closed {
        /// What was asked.
        call: String,
        /// Why the session ended.
        reason: String,
    },
    /// No answer in time.
    #[error("{0}: no answer from the client in time")]
    Timeout(String),
}

impl SessionError {
    /// The gRPC code that describes this error best.
    pub fn code(&self) -> Code {
        match self {
            Self::NoSession(_) | Self::NoSessions | Self::SecretNotFound(_) => Code::NotFound,
            Self::Duplicate(_) => Code::AlreadyExists,
            Self::TooMany(_) => Code::ResourceExhausted,
            Self::Invalid(_) => Code::InvalidArgument,
            Self::Unsupported(_) => Code::Unimplemented,
            Self::Call { status, .. } => status.code(),
            Self::Closed { .. } => Code::Unavailable,
            Self::Timeout(_) => Code::DeadlineExceeded,
        }
    }

    /// Whether the client has no such thing, or cannot give anything of the kind.
    pub fn is_missing(&self) -> bool {
        matches!(self.code(), Code::NotFound | Code::Unimplemented)
    }

    pub(crate) fn call(call: impl Into<String>, status: Status) -> Self {
        Self::Call { call: call.into(), status: Box::new(status) }
    }
}

/// What an answer says. A client without the service, or that forwards nothing, says nothing but a code.
fn said(status: &Status) -> &str {
    match status.message() {
        "" if status.code() == Code::Unimplemented => "not offered by the client",
        "" => status.code().description(),
        message => message,
    }
}

impl From<SessionError> for Status {
    fn from(e: SessionError) -> Self {
        Status::new(e.code(), e.to_string())
    }
}
