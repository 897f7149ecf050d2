//! From the flags of `kiln build` to a request: everything that needs no daemon.

pub(crate) mod args;
mod attrs;
pub(crate) mod context;
pub(crate) mod export;
mod limits;
pub(crate) mod metadata;
pub(crate) mod plan;
mod refuse;
pub(crate) mod secret;
pub(crate) mod ssh;
