//! From the flags of `kiln build` to a request: everything that needs no daemon.

pub mod args;
pub mod attrs;
pub mod call;
pub mod context;
pub mod export;
pub mod git;
pub mod job;
pub mod layout;
mod limits;
pub mod metadata;
pub mod plan;
mod policy;
mod refuse;
pub mod remote_file;
pub mod request;
pub mod run;
pub mod secret;
pub mod ssh;
