//! Errors, platforms, files between the engine and the wire.

use crate::source::clipped;
use kiln_llb::errdefs::{BuildError, Code};
use kiln_oci::Platform;
use kiln_proto::google::{protobuf::Any, rpc};
use kiln_proto::{fsutil, pb, worker};
use kiln_session::fsutil::Stat;
use prost::Message;
use tonic::Status;

/// Metadata key that names the build a call is about.
pub const BUILD_ID: &str = "buildkit-controlapi-buildid";

/// A gRPC status with the error's details (spec llb-and-solver.md section 8).
pub fn error_status(error: BuildError) -> Status {
    let full = rpc_status(error);
    Status::with_details(full.code.into(), full.message.clone(), full.encode_to_vec().into())
}

/// The same as a message.
pub(crate) fn rpc_status(error: BuildError) -> rpc::Status {
    let details =
        error.encode_details().into_iter().map(|(type_url, value)| Any { type_url, value }).collect();
    rpc::Status { code: error.code.number(), message: error.message, details }
}

/// The error that a client returns as the end of its build.
pub(crate) fn returned_error(status: rpc::Status) -> BuildError {
    let details = status.details.into_iter().map(|any| (any.type_url, any.value));
    BuildError::from_wire(status.code, status.message, details)
}

pub(crate) fn invalid(message: impl Into<String>) -> Status {
    Status::invalid_argument(message.into())
}

pub(crate) fn unimplemented(what: &str) -> Status {
    error_status(BuildError::new(Code::Unimplemented, format!("{what}: not built yet")))
}

/// A platform without operating system or architecture is none.
pub(crate) fn platform(p: pb::Platform) -> Result<Platform, Status> {
    if p.os.is_empty() || p.architecture.is_empty() {
        let (os, architecture) = (clipped(&p.os), clipped(&p.architecture));
        return Err(invalid(format!("invalid platform {os:?}/{architecture:?}: both parts are needed")));
    }
    Ok(kiln_llb::platform::from_pb(p))
}

/// The worker, as frontends see it.
pub(crate) fn worker_record(info: kiln_engine::WorkerInfo) -> worker::WorkerRecord {
    worker::WorkerRecord {
        id: info.id,
        labels: info.labels.into_iter().collect(),
        platforms: info.platforms.into_iter().map(kiln_llb::platform::to_pb).collect(),
        ..worker::WorkerRecord::default()
    }
}

/// A file's description. Names that are no UTF-8 cannot travel in this message; what is wrong in them is replaced.
pub(crate) fn stat(s: Stat) -> fsutil::Stat {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    fsutil::Stat {
        path: text(&s.path),
        mode: s.mode,
        uid: s.uid,
        gid: s.gid,
        size: s.size,
        mod_time: s.mod_time,
        linkname: text(&s.linkname),
        devmajor: s.devmajor,
        devminor: s.devminor,
        xattrs: s.xattrs.into_iter().collect(),
    }
}
