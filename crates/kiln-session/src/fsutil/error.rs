use std::path::PathBuf;

use tonic::Status;

use super::packet::PacketError;

/// Why a transfer of files failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The call broke or was refused by the other side.
    #[error("{}", .0.message())]
    Call(Status),
    /// The sender gave up.
    #[error("error from sender: {0}")]
    Sender(String),
    /// The receiver gave up.
    #[error("error from receiver: {0}")]
    Receiver(String),
    /// Not a packet.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// An announced path that is not a clean relative one.
    #[error("invalid path {path:?}: {reason}")]
    Path {
        /// As received.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An announced entry that contradicts itself.
    #[error("invalid entry {path:?}: {reason}")]
    Entry {
        /// As received.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Entries must ascend, and a directory must come before what is in it.
    #[error("changes out of order: {0:?} {1:?}")]
    Order(PathBuf, PathBuf),
    /// A hard link to something that was not announced as a file before.
    #[error("invalid link {path:?} to unknown path: {target:?}")]
    Link {
        /// The link.
        path: PathBuf,
        /// Where it points.
        target: PathBuf,
    },
    /// Contents that were not asked for, or asked for twice.
    #[error("invalid file request {0}")]
    FileRequest(u32),
    /// A request for something that is not a file of this transfer.
    #[error("invalid file id {0}")]
    FileId(u32),
    /// A packet that does not belong here.
    #[error("unexpected packet: {0}")]
    Unexpected(&'static str),
    /// One of [`super::Limits`] was reached.
    #[error("file transfer refused: more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A file goes on far beyond its announced size.
    #[error("file {path:?} is longer than announced ({size} bytes)")]
    Overrun {
        /// The file.
        path: PathBuf,
        /// Announced size in bytes.
        size: u64,
    },
    /// The same path in two joined trees.
    #[error("cannot overwrite {0:?}: the path exists twice in the transfer")]
    Twice(PathBuf),
    /// A bad include or exclude pattern.
    #[error("invalid pattern: {0}")]
    Pattern(String),
    /// The filesystem refused.
    #[error(transparent)]
    Fs(#[from] kiln_fs::Error),
    /// The filesystem refused.
    #[error("{step} {path:?}: {source}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On which path of the transfer.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The stream ended in the middle.
    #[error("file transfer broke off before its end")]
    BrokeOff,
    /// A worker of this transfer panicked.
    #[error("file transfer failed inside; this is a bug")]
    Panicked,
    /// Cancelled.
    #[error("file transfer was stopped")]
    Stopped,
}

impl TransferError {
    pub(crate) fn io(step: &'static str, path: impl Into<PathBuf>, e: impl Into<std::io::Error>) -> Self {
        Self::Io { step, path: path.into(), source: e.into() }
    }

    /// Whether the other side does not have what was asked for.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(tonic::Code::NotFound)
    }

    /// The gRPC code of the other side's answer, if that is what failed.
    pub fn code(&self) -> Option<tonic::Code> {
        match self {
            Self::Call(status) => Some(status.code()),
            _ => None,
        }
    }
}

impl From<TransferError> for Status {
    fn from(e: TransferError) -> Self {
        match e {
            TransferError::Call(status) => status,
            other => Status::unknown(other.to_string()),
        }
    }
}
