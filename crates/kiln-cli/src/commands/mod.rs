//! One file per command.

pub(crate) mod build;
pub(crate) mod buildkitd;
pub(crate) mod completions;
pub(crate) mod daemon;
pub(crate) mod du;
pub(crate) mod prune;
pub(crate) mod version;
