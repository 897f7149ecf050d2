//! The daemon: gRPC services, configuration, sockets, shutdown.
//!
//! [`run`] is `kiln daemon`; [`InProcess`] is the same daemon inside another process, over an in-memory stream.

mod config;
mod control;
mod health;
mod idle;
mod listen;
mod options;
mod serve;
mod watched;
mod wire;

pub use config::ConfigError;
pub use options::{DEFAULT_CONFIG, Options, OptionsError};
pub use serve::{DaemonError, InProcess, isolate, run};
