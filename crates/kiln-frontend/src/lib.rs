//! The Dockerfile frontend: instructions to an LLB graph and an image config.
//!
//! [`build`] reads the Dockerfile from the client, turns the stages that the target needs into one graph with the
//! bytes that BuildKit's own frontend makes, has it solved, and returns the result with the image config.
//! Everything it needs from outside goes through [`Host`].

mod args;
mod build;
mod context;
mod convert;
mod dispatch;
mod dockerignore;
mod epoch;
mod fail;
mod git_ref;
mod gofmt;
mod host;
mod image_config;
mod lint;
mod named_context;
mod names;
mod opts;
mod ospath;
mod outline;
mod platform;
mod resolve;
mod stages;
mod state;
mod subrequest;
mod syntax;

pub use build::{FrontendResult, build};
pub use host::{CacheImport, Host, OciStore, RefId, ResolveOpt, Resolved, ResolvedImage, SolveOpt, Warning};
pub use syntax::is_builtin;

#[cfg(test)]
mod tests;
