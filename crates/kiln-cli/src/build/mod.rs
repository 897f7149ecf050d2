//! From the flags of `kiln build` to a request: everything that needs no daemon.

pub mod args;
pub mod attrs;
pub mod context;
pub mod export;
pub mod layout;
mod limits;
pub mod metadata;
pub mod plan;
mod refuse;
pub mod request;
pub mod run;
pub mod secret;
pub mod ssh;
