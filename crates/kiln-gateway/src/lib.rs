//! LLBBridge: frontends and clients that drive a build step by step.
//!
//! [`BridgeService`] is the gRPC service over [`kiln_engine::Bridge`]: on the daemon's listener it finds the build by
//! the id in the metadata of each call, on the stdio of a frontend container ([`StdioGateway`]) there is only one.

mod caps;
mod exec;
mod health;
mod newer;
mod policy;
mod result;
mod service;
mod source;
mod stdio;
mod watched;
mod wire;

pub use health::HealthService;
pub use newer::BridgeServer;
pub use service::BridgeService;
pub use stdio::StdioGateway;
pub use watched::Watched;
pub use wire::{BUILD_ID, error_status};
