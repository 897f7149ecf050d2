//! Why a build failed, in the form that clients of BuildKit read.

use kiln_llb::errdefs::BuildError;
use kiln_llb::mask_credentials;
use kiln_proto::google::protobuf::Any;
use kiln_proto::google::rpc;

/// What clients know the details of an error by; the spelling is BuildKit's.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.googeapis.google.rpc.status+proto";

/// The error with its details.
pub(crate) fn status(error: &BuildError) -> rpc::Status {
    let details = error.encode_details().into_iter().map(|(type_url, value)| Any { type_url, value });
    rpc::Status {
        code: error.code.number(),
        message: mask_credentials(&error.message).into_owned(),
        details: details.chain([process()]).collect(),
    }
}

/// Which process failed, as BuildKit says it: a stack trace with the process it is of. An error here has no trace of its
/// calls; the one frame is where it was taken down.
fn process() -> Any {
    let frame =
        serde_json::json!({"Name": "kiln_history::Recording::finish", "File": file!(), "Line": line!()});
    let cmdline: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    let stack = serde_json::json!({
        "frames": [frame],
        "cmdline": cmdline,
        "pid": std::process::id(),
        "version": concat!("kiln ", env!("CARGO_PKG_VERSION")),
    });
    Any {
        type_url: "github.com/moby/buildkit/stack.Stack+json".into(),
        value: stack.to_string().into_bytes(),
    }
}
