//! The client side: find or start a daemon, serve its callbacks, submit a build, follow it.
//!
//! A [`Client`] is a connection to a daemon, by socket or in memory. [`Client::solve`] opens a session that serves
//! what the [`BuildRequest`] allows (directories, secrets, ssh agents, credentials, export targets), submits the build
//! and passes on its progress. Dropping the future cancels the build.

mod address;
mod autostart;
mod client;
mod command;
mod connect;
mod convert;
mod error;
mod history;
mod id;
mod maintenance;
mod newer;
mod preface;
mod providers;
mod registry_tls;
mod remote;
mod request;
mod solve;
mod source_policy;
mod subrequest;
mod tls;

pub use address::{Address, AddressError};
pub use autostart::{Autostart, find_or_start};
pub use client::Client;
pub use command::CommandStream;
pub use connect::ConnectOptions;
pub use error::ConnectError;
pub use history::{
    BlobInfo, BuildRecord, Descriptor, HistoryEvent, HistoryEventKind, HistoryQuery, RecordedExporter,
    RecordedResult,
};
pub use id::new_id;
pub use maintenance::{Device, GcPolicy, PruneRequest, UsageRecord, Version, Worker};
pub use providers::{
    DockerConfig, Login, MAX_SECRET_SIZE, SecretOrigin, SecretSource, SshSource, Upload, UploadSource,
};
pub use registry_tls::RegistryTls;
pub use remote::Remote;
pub use request::{BuildRequest, CacheEntry, Export, LocalDir, Output, OutputWriter, Work};
pub use solve::SolveResponse;
pub use source_policy::SourcePolicy;
pub use tls::{Identity, Tls, TlsError};

#[cfg(test)]
mod tests;
