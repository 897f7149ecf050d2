use std::path::PathBuf;

use kiln_llb::errdefs::{BuildError, Code};
use kiln_proto::google::rpc;
use prost::Message;
use tonic::Status;

use crate::{Address, TlsError};

/// Why there is no connection to a daemon.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens.
    #[error("no daemon answers at {address}: {reason}")]
    NoDaemon {
        /// Where.
        address: Address,
        /// What the system says.
        reason: String,
    },
    /// Somebody else listens, or does not let us in.
    #[error("what is at {address} is no daemon for us: {reason}")]
    NotDaemon {
        /// Where.
        address: Address,
        /// What happened.
        reason: String,
    },
    /// There are no usable certificates.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The daemon could not be started.
    #[error("start daemon {program}: {source}")]
    Spawn {
        /// What was run.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The log of a daemon to be started cannot be opened.
    #[error("log of the daemon {log}: {source}")]
    Log {
        /// The file.
        log: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The daemon was started and ended again.
    #[error("the daemon did not start ({status}); its log {log} ends with:\n{tail}")]
    Ended {
        /// How it ended.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The last lines.
        tail: String,
    },
    /// The daemon was started and does not listen.
    #[error("the daemon does not answer at {address}; its log {log} ends with:\n{tail}")]
    Silent {
        /// Where it should listen.
        address: Address,
        /// Its log.
        log: PathBuf,
        /// The last lines.
        tail: String,
    },
}

/// An answer of the daemon as an error of a build, with its details.
pub(crate) fn build_error(status: Status) -> BuildError {
    // Only what went wrong on this side has a cause.
    if let Some(cause) = innermost(&status) {
        return BuildError::new(Code::Unavailable, format!("the connection to the daemon broke: {cause}"));
    }
    let details = rpc::Status::decode(status.details()).map(|s| s.details).unwrap_or_default();
    let details = details.into_iter().map(|any| (any.type_url, any.value));
    BuildError::from_wire(status.code().into(), status.message().to_string(), details)
}

fn innermost(error: &dyn std::error::Error) -> Option<String> {
    let causes = std::iter::successors(error.source(), |e| e.source());
    causes.last().map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_llb::errdefs::Detail;
    use kiln_proto::google::protobuf::Any;
    use tonic::Code as Grpc;

    #[test]
    fn a_broken_connection_is_named() {
        let gone = std::io::Error::new(std::io::ErrorKind::BrokenPipe, "broken pipe");
        let error = build_error(Status::from_error(gone.into()));
        assert_eq!(
            (error.code, error.message.as_str()),
            (Code::Unavailable, "the connection to the daemon broke: broken pipe")
        );
    }

    #[test]
    fn details_are_decoded_and_kept() {
        let any = |url: &str, value: &str| Any { type_url: url.into(), value: value.into() };
        let wire = rpc::Status {
            code: 2,
            message: "boom".into(),
            details: vec![
                any("github.com/moby/buildkit/errdefs.Frontend+json", r#"{"name":"dockerfile.v0"}"#),
                any("x", "y"),
            ],
        };
        let error = build_error(Status::with_details(Grpc::NotFound, "boom", wire.encode_to_vec().into()));
        assert_eq!((error.code, error.message.as_str(), error.details.len()), (Code::NotFound, "boom", 2));
        assert!(matches!(&error.details[0], Detail::Frontend { name, .. } if name == "dockerfile.v0"));
        assert!(build_error(Status::unknown("plain")).details.is_empty());
    }
}
