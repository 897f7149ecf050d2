//! Sessions: calls from the daemon back to the client, and the file transfer protocol.
//!
//! A session is a gRPC connection whose roles are turned round: it runs inside the byte stream of one
//! `Control.Session` call, the client serves and the daemon calls (spec wire.md section 4). The daemon keeps its
//! sessions in a [`SessionManager`] and calls through [`Session`]; a client builds a [`Server`] and runs it.
//! [`fsutil`] is the protocol in which trees of files travel over it, in both directions.

mod codec;
mod connection;
mod content;
mod credentials;
mod error;
mod exporters;
mod files;
pub mod fsutil;
mod headers;
mod health;
mod layout;
mod manager;
mod pipe;
mod policy;
mod raw;
mod server;
mod session;

pub use connection::{Answer, Connection};
pub use content::{RemoteBlob, RemoteStore};
pub use credentials::{Credentials, Token, TokenRequest};
pub use error::SessionError;
pub use files::{FileSend, FileSync, SendTarget};
pub use headers::{SessionHeaders, decode_values, encode_values};
pub use health::HealthPolicy;
pub use layout::{LayoutDir, Layouts};
pub use manager::{Lookup, SessionManager};
pub use pipe::{BytesPipe, DEFAULT_CHUNK};
pub use raw::{ByteUpload, Incoming, RawStream, Role, Wanted};
pub use server::Server;
pub use session::{DirectoryRequest, FileRequest, Session};

/// HTTP/2 stream window, in bytes.
const STREAM_WINDOW: u32 = 4 << 20;
/// HTTP/2 connection window, in bytes.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Largest HTTP/2 frame we accept, in bytes: fewer, larger frames for file data.
const FRAME_SIZE: u32 = 64 << 10;
/// Largest header list that we accept of a call, in bytes. Ignore files travel in headers, so the usual 16 KiB would not do;
/// this is the limit of the Go implementation.
const HEADER_LIST: u32 = 16 << 20;
/// Largest header list that we accept in answer to a call, in bytes: it holds a status and its details.
const ANSWER_HEADERS: u32 = 256 << 10;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
