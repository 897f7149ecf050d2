//! Wire types: a published crate plus the few messages it lacks.
//!
//! The published crate is generated from BuildKit v0.29; what is newer is in [`extra`] (spec wire.md section 1).
//! Unknown fields are dropped when a message is encoded again, so digests are always taken over received bytes.

pub use bollard_buildkit_proto::fsutil::types as fsutil;
pub use bollard_buildkit_proto::google;
pub use bollard_buildkit_proto::health;
pub use bollard_buildkit_proto::moby::buildkit::secrets::v1 as secrets;
pub use bollard_buildkit_proto::moby::buildkit::v1 as control;
pub use bollard_buildkit_proto::moby::buildkit::v1::{
    apicaps, frontend as gateway, sourcepolicy, types as worker,
};
pub use bollard_buildkit_proto::moby::filesync::{packet as filesync_packet, v1 as filesync};
pub use bollard_buildkit_proto::moby::sshforward::v1 as ssh;
pub use bollard_buildkit_proto::moby::upload::v1 as upload;
pub use bollard_buildkit_proto::pb;

pub mod containerd;
pub mod exporter;
pub mod extra;
pub mod newer;
pub mod policysession;

/// Largest gRPC message either side accepts, in bytes (spec wire.md).
pub const MAX_MESSAGE_SIZE: usize = 16 << 20;
