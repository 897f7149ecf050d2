//! `containerd.services.content.v1`: messages of the content service, which both a daemon and a session serve.

use crate::google::protobuf::Timestamp;
use std::collections::HashMap;

/// `/service/Method` of each call.
pub mod method {
    /// Facts about one blob.
    pub const INFO: &str = "/containerd.services.content.v1.Content/Info";
    /// Changes labels.
    pub const UPDATE: &str = "/containerd.services.content.v1.Content/Update";
    /// All blobs, streamed.
    pub const LIST: &str = "/containerd.services.content.v1.Content/List";
    /// Removes a blob.
    pub const DELETE: &str = "/containerd.services.content.v1.Content/Delete";
    /// Bytes of a blob, streamed.
    pub const READ: &str = "/containerd.services.content.v1.Content/Read";
    /// One write under way.
    pub const STATUS: &str = "/containerd.services.content.v1.Content/Status";
    /// All writes under way.
    pub const LIST_STATUSES: &str = "/containerd.services.content.v1.Content/ListStatuses";
    /// A new blob, streamed; every request is answered.
    pub const WRITE: &str = "/containerd.services.content.v1.Content/Write";
    /// Gives up a write.
    pub const ABORT: &str = "/containerd.services.content.v1.Content/Abort";
}

/// Facts about a blob.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Info {
    /// `sha256:...`
    #[prost(string, tag = "1")]
    pub digest: String,
    /// Bytes.
    #[prost(int64, tag = "2")]
    pub size: i64,
    /// When it was complete.
    #[prost(message, optional, tag = "3")]
    pub created_at: Option<Timestamp>,
    /// When its labels changed.
    #[prost(message, optional, tag = "4")]
    pub updated_at: Option<Timestamp>,
    /// Anything.
    #[prost(map = "string, string", tag = "5")]
    pub labels: HashMap<String, String>,
}

/// Asks for facts.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct InfoRequest {
    /// Which blob.
    #[prost(string, tag = "1")]
    pub digest: String,
}

/// Answers with facts; also the answer to `Update`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InfoResponse {
    /// The facts.
    #[prost(message, optional, tag = "1")]
    pub info: Option<Info>,
}

/// Changes labels; the mask (field 2) is left out, as nobody here writes labels.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdateRequest {
    /// New facts.
    #[prost(message, optional, tag = "1")]
    pub info: Option<Info>,
}

/// Asks for all blobs.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListContentRequest {
    /// In containerd's syntax; a blob that one matches is listed.
    #[prost(string, repeated, tag = "1")]
    pub filters: Vec<String>,
}

/// Some of the blobs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListContentResponse {
    /// Facts about each.
    #[prost(message, repeated, tag = "1")]
    pub info: Vec<Info>,
}

/// Removes a blob.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeleteContentRequest {
    /// Which.
    #[prost(string, tag = "1")]
    pub digest: String,
}

/// Asks for bytes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ReadContentRequest {
    /// Which blob.
    #[prost(string, tag = "1")]
    pub digest: String,
    /// First byte.
    #[prost(int64, tag = "2")]
    pub offset: i64,
    /// How many bytes; 0 is all.
    #[prost(int64, tag = "3")]
    pub size: i64,
}

/// Some bytes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ReadContentResponse {
    /// Where they are in the blob.
    #[prost(int64, tag = "1")]
    pub offset: i64,
    /// The bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
}

/// A write under way.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    /// When it began.
    #[prost(message, optional, tag = "1")]
    pub started_at: Option<Timestamp>,
    /// When bytes came last.
    #[prost(message, optional, tag = "2")]
    pub updated_at: Option<Timestamp>,
    /// Its name.
    #[prost(string, tag = "3")]
    pub r#ref: String,
    /// Bytes so far.
    #[prost(int64, tag = "4")]
    pub offset: i64,
    /// Bytes in the end; 0 is unknown.
    #[prost(int64, tag = "5")]
    pub total: i64,
    /// Digest in the end, if known.
    #[prost(string, tag = "6")]
    pub expected: String,
}

/// Names a write; also the request of `Abort`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StatusRequest {
    /// Its name.
    #[prost(string, tag = "1")]
    pub r#ref: String,
}

/// Answers with a write.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusResponse {
    /// The write.
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
}

/// Asks for all writes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListStatusesRequest {
    /// In containerd's syntax.
    #[prost(string, repeated, tag = "1")]
    pub filters: Vec<String>,
}

/// All writes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListStatusesResponse {
    /// Each.
    #[prost(message, repeated, tag = "1")]
    pub statuses: Vec<Status>,
}

/// What a message of a write wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum WriteAction {
    /// Only the state.
    Stat = 0,
    /// Takes bytes.
    Write = 1,
    /// Ends the blob.
    Commit = 2,
}

/// A message of a write. The first names it and says what is expected.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WriteContentRequest {
    /// What is wanted.
    #[prost(enumeration = "WriteAction", tag = "1")]
    pub action: i32,
    /// Name of the write; only one at a time has it.
    #[prost(string, tag = "2")]
    pub r#ref: String,
    /// Bytes in the end; 0 is unknown.
    #[prost(int64, tag = "3")]
    pub total: i64,
    /// Digest in the end, if known.
    #[prost(string, tag = "4")]
    pub expected: String,
    /// Where the bytes go.
    #[prost(int64, tag = "5")]
    pub offset: i64,
    /// The bytes.
    #[prost(bytes = "vec", tag = "6")]
    pub data: Vec<u8>,
    /// Labels of the blob.
    #[prost(map = "string, string", tag = "7")]
    pub labels: HashMap<String, String>,
}

/// The answer to each message of a write.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WriteContentResponse {
    /// As asked.
    #[prost(enumeration = "WriteAction", tag = "1")]
    pub action: i32,
    /// When it began.
    #[prost(message, optional, tag = "2")]
    pub started_at: Option<Timestamp>,
    /// When bytes came last.
    #[prost(message, optional, tag = "3")]
    pub updated_at: Option<Timestamp>,
    /// Bytes so far.
    #[prost(int64, tag = "4")]
    pub offset: i64,
    /// Bytes in the end.
    #[prost(int64, tag = "5")]
    pub total: i64,
    /// After the end: what it is.
    #[prost(string, tag = "6")]
    pub digest: String,
}

/// `google.protobuf.Empty`
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Empty {}
