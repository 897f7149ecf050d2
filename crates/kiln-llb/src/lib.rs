//! LLB: the typed graph, its wire form, its cache keys and its error details.
//!
//! A [`Definition`] is what a client or a frontend sends: operations that name their inputs by the digest of the
//! inputs' bytes. It is decoded once into typed operations ([`Op`]); whatever is out of range is refused there, so
//! that later code may index without asking. [`marshal`] writes operations with the bytes that Go clients write,
//! [`builder`] makes new graphs, [`cachekey`] computes BuildKit's cache keys, [`errdefs`] is the error that crosses
//! every boundary of a build.

pub mod builder;
pub mod cachekey;
pub mod caps;
mod decode;
mod definition;
pub mod errdefs;
mod json;
pub mod marshal;
mod metadata;
mod name;
pub mod op;
pub mod platform;
pub mod protojson;
mod redact;
mod sourcemap;
mod wire;

pub use decode::{DecodeError, OpError};
pub use definition::{Definition, Input, Vertex};
pub use metadata::{LinuxResources, OpMetadata, ProgressGroup};
pub use op::{
    ActionInput, BuildOp, CacheSharing, CdiDevice, ChownOpt, ContentCache, CopyAction, DiffOp, ExecMeta,
    ExecOp, FileAction, FileActionKind, FileMode, FileOp, HostIp, MergeOp, MkDirAction, MkFileAction, Mount,
    MountKind, NetMode, Op, PassthroughOp, ProxyEnv, ResolveMode, RmAction, SecretEnv, SecretOpt,
    SecurityMode, SourceOp, SshOpt, SymlinkAction, Ulimit, UserOpt,
};
pub use redact::mask_credentials;
pub use sourcemap::{Location, Position, Range, SourceInfo, SourceMap};

#[cfg(test)]
mod tests;
