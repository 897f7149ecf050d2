//! Sources: images, downloads and git repositories as snapshots, with BuildKit's cache keys.
//!
//! [`Sources::open_source`] turns a source operation into a [`SourceInstance`], which first gives cache keys and then,
//! if they were not enough, the snapshot. What a source needs from the client that asked (secrets, registry
//! credentials, an ssh agent) comes with each call in a [`SourceContext`]; nothing is kept between builds but content.

mod blob;
mod blocking;
mod context;
mod error;
pub mod git;
pub mod http;
pub mod image;
mod instance;
mod layout;
pub mod local;
mod locks;
mod memo;
mod redact;

pub use blob::{BlobId, BlobInstance, Locator};
pub use context::{
    ByteReader, Client, ClientError, Duplex, LogStream, NoClient, NoProgress, Progress, RetryLog,
    SourceContext, Status,
};
pub use error::SourceError;
pub use instance::{GitObjects, SourceFacts, SourceInstance, SourceKeys, Sources, SourcesConfig};
pub use layout::{ByteStream, Layout};
pub use memo::Memo;
pub use redact::redact_url;

/// What calls return.
pub type Result<T, E = SourceError> = std::result::Result<T, E>;
