//! The daemon: gRPC services, configuration, sockets, shutdown.
//!
//! [`run`] is `kiln daemon` and `buildkitd`; [`InProcess`] is the same daemon inside another process, over an in-memory
//! stream.

mod config;
mod content;
mod control;
mod debug;
mod gc_rules;
mod history;
mod idle;
mod intake;
mod listen;
mod merge;
mod metrics;
mod newer;
mod notify;
mod options;
mod otlp;
mod places;
mod reflection;
mod refuse;
mod request;
mod serve;
mod services;
mod settings;
mod stop;
mod wire;

#[cfg(test)]
mod tests;

pub use config::ConfigError;
pub use control::version_line;
pub use listen::ListenError;
pub use options::{OciOptions, Options, OptionsError};
pub use places::Places;
pub use serve::{DaemonError, InProcess, isolate, run};
