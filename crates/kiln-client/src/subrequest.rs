//! Questions to a frontend (`requestid`): its answer is in the metadata of its result, which only a build that its
//! client drives gets to see.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use kiln_llb::errdefs::BuildError;
use kiln_proto::control::SolveRequest;
use kiln_proto::gateway::llb_bridge_client::LlbBridgeClient;
use kiln_proto::gateway::{ReturnRequest, SolveRequest as FrontendRequest};
use kiln_proto::google::rpc;
use kiln_proto::{MAX_MESSAGE_SIZE, gateway};
use prost::Message as _;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Status};

use crate::Client;
use crate::error::build_error;

/// What a frontend has to know about for an answer.
const CAPS: (&str, &str) = ("frontend.caps", "moby.buildkit.frontend.subrequests");

/// What the frontend said.
pub(crate) type Answer = BTreeMap<String, Vec<u8>>;

/// A question in the place of a build.
pub(crate) struct Question {
    build: MetadataValue<Ascii>,
    request: FrontendRequest,
}

impl Question {
    /// Takes the question out of a request, if it is one: what is left waits for its client.
    pub(crate) fn take(wire: &mut SolveRequest) -> Option<Self> {
        if !wire.frontend_attrs.contains_key("requestid") || wire.frontend.is_empty() {
            return None;
        }
        let build = wire.r#ref.parse().ok()?;
        let mut options: HashMap<_, _> = wire.frontend_attrs.clone();
        options.entry(CAPS.0.to_string()).or_insert_with(|| CAPS.1.to_string());
        let request = FrontendRequest {
            frontend: std::mem::take(&mut wire.frontend),
            frontend_opt: options,
            frontend_inputs: std::mem::take(&mut wire.frontend_inputs),
            allow_result_return: true,
            allow_result_array_ref: true,
            ..FrontendRequest::default()
        };
        Some(Self { build, request })
    }

    /// Asks, keeps the answer, and ends the build with it.
    pub(crate) async fn ask(self, client: &Client, answer: &OnceLock<Answer>) -> Result<(), BuildError> {
        let mut bridge = LlbBridgeClient::new(client.channel())
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(MAX_MESSAGE_SIZE);
        let build = self.build;
        let returned = match bridge.solve(of(&build, self.request)).await {
            Ok(solved) => {
                let result = solved.into_inner().result;
                let metadata = |r: &gateway::Result| r.metadata.clone().into_iter().collect();
                let _ = answer.set(result.as_ref().map(metadata).unwrap_or_default());
                ReturnRequest { result: Some(result.unwrap_or_default()), error: None }
            }
            Err(status) => ReturnRequest { result: None, error: Some(wire_status(&status)) },
        };
        bridge.r#return(of(&build, returned)).await.map(drop).map_err(build_error)
    }
}

/// A call that belongs to a build.
fn of<T>(build: &MetadataValue<Ascii>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("buildkit-controlapi-buildid", build.clone());
    request
}

fn wire_status(status: &Status) -> rpc::Status {
    let details = rpc::Status::decode(status.details()).map(|s| s.details).unwrap_or_default();
    rpc::Status { code: status.code().into(), message: status.message().to_string(), details }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_question_is_taken_out() {
        let mut wire = SolveRequest {
            r#ref: "b".into(),
            frontend: "dockerfile.v0".into(),
            frontend_attrs: [("target".to_string(), "x".to_string())].into(),
            ..SolveRequest::default()
        };
        assert!(Question::take(&mut wire).is_none());
        wire.frontend_attrs.insert("requestid".into(), "frontend.outline".into());
        let question = Question::take(&mut wire).unwrap();
        assert_eq!((wire.frontend.as_str(), question.request.frontend.as_str()), ("", "dockerfile.v0"));
        assert_eq!(question.request.frontend_opt["frontend.caps"], "moby.buildkit.frontend.subrequests");
    }
}
