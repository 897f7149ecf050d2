//! `moby.buildkit.v1.sourcepolicy.policysession`: a client that decides about sources (spec wire.md section 4).

use crate::{gateway, pb};
use std::collections::HashMap;

/// Asks about one source.
pub const CHECK_POLICY: &str = "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy";

/// One source and what is known about it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckPolicyRequest {
    /// What it is wanted for.
    #[prost(message, optional, tag = "1")]
    pub platform: Option<pb::Platform>,
    /// The source, with the facts that were asked for.
    #[prost(message, optional, tag = "2")]
    pub source: Option<gateway::ResolveSourceMetaResponse>,
    /// What the daemon can find out.
    #[prost(map = "string, bool", tag = "3")]
    pub caps: HashMap<String, bool>,
}

/// A decision, or a question back.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckPolicyResponse {
    /// Which of them.
    #[prost(oneof = "Answer", tags = "1, 2")]
    pub result: Option<Answer>,
}

/// What a client answers.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Answer {
    /// A decision.
    #[prost(message, tag = "1")]
    Decision(DecisionResponse),
    /// Facts that it needs first.
    #[prost(message, boxed, tag = "2")]
    Request(Box<gateway::ResolveSourceMetaRequest>),
}

/// A decision.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DecisionResponse {
    /// `PolicyAction`.
    #[prost(int32, tag = "1")]
    pub action: i32,
    /// Why not.
    #[prost(message, repeated, tag = "2")]
    pub deny_messages: Vec<DenyMessage>,
    /// What to use instead.
    #[prost(message, optional, tag = "3")]
    pub update: Option<pb::SourceOp>,
}

/// One reason.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DenyMessage {
    /// For people.
    #[prost(string, tag = "1")]
    pub message: String,
}
