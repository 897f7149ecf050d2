//! Registries: resolve, pull, push, authenticate (OCI distribution specification 1.1, and what registries really do).
//!
//! - [`Registry`]: connections, tokens and limits of one daemon, made from a [`RegistryConfig`].
//! - [`Repository`]: one repository with somebody's [`Access`]; everything that talks to a registry is a method of it.
//! - [`PushPlan`]: what a push sends, in which order.
//!
//! Nothing is ambient: proxies, certificates and credentials are arguments. Every answer is untrusted: sizes are
//! bounded, digests verified. Transient failures are retried with the policy of the configuration, downloads resume.

mod access;
mod auth;
mod challenge;
mod client;
mod config;
mod endpoint;
mod error;
mod limit;
mod pull;
mod push;
mod push_blob;
mod resolve;
mod retry;
mod scope;
mod sink;
mod tls;
mod token;

pub use access::{
    Access, Anonymous, Credentials, CredentialsError, Login, NoObserver, Observer, Token, TokenRequest,
};
pub use client::{Registry, Repository};
pub use config::{ClientOptions, HostConfig, KeyPair, Proxies, RegistryConfig, Timeouts};
pub use error::RegistryError;
pub use pull::note_source;
pub use push::{
    ByteStream, PushContent, PushObserver, PushPlan, PushTarget, StoreContent, distribution_sources,
};
pub use resolve::{MANIFEST_LIMIT, Resolved};
pub use retry::RetryPolicy;

/// What calls return.
pub type Result<T, E = RegistryError> = std::result::Result<T, E>;
