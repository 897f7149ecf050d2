//! Whole builds against a host in memory.

mod builds;
mod host;
mod reference;
