//! Builders by name: instances as buildx keeps them, and the drivers that reach or boot their daemons.
//!
//! A [`World`] knows where instances and Docker's contexts are. It gives [`Builder`]s, whose nodes are reached through
//! a [`Driver`]: kiln's own daemon, a daemon at an address, one in a container, or the one inside a Docker Engine.

#![forbid(unsafe_code)]

mod builder;
mod config;
mod create;
mod daemon_config;
mod docker;
mod driver;
mod engine;
mod error;
mod instance;
mod names;
mod refs;
mod steps;
mod store;
mod words;

pub use builder::{Builder, Facts, LoadedNode, World, boot};
pub use config::ConfigDir;
pub use create::CreateRequest;
pub use docker::{DEFAULT_CONTEXT, Docker, Endpoint, Flags};
pub use driver::{Driver, DriverKind, OwnDaemon, Removal, Status, Stream};
pub use engine::{Engine, ImageLoad};
pub use error::Error;
pub use instance::{Instance, NeedsRestart, Node, NodeSettings};
pub use refs::{BuildRef, Refs};
pub use steps::{Steps, Vertex};
pub use store::{Reach, Store};

#[cfg(test)]
mod tests;
