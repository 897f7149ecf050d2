//! OCI and Docker image types: references, platforms, descriptors, manifests, configs.
//!
//! Everything here is plain data: no file, no network. Formats follow the OCI image specification 1.1; where Docker
//! or Go programs differ in what they accept or print, this crate does as they do, because digests depend on it.

mod chain;
mod config;
mod descriptor;
mod host;
mod manifest;
pub mod media_type;
mod nullable;
mod platform;
mod platform_match;
mod reference;

pub use chain::{chain_id, chain_ids};
pub use config::{ContainerConfig, Healthcheck, History, ImageConfig, RootFs};
pub use descriptor::{Descriptor, EMPTY_JSON, annotation};
pub use manifest::{Document, DocumentError, Index, Manifest};
pub use platform::{Platform, PlatformError};
pub use platform_match::PlatformMatcher;
pub use reference::{Reference, ReferenceError};
