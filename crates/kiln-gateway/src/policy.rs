//! Asking a client about sources (spec wire.md section 4).

use crate::source;
use kiln_engine::{PolicyAnswer, PolicyCheck};
use kiln_llb::SourceOp;
use kiln_llb::errdefs::BuildError;
use kiln_proto::policysession::{Answer, CheckPolicyRequest, DecisionResponse};
use kiln_proto::sourcepolicy::PolicyAction;
use kiln_proto::{gateway, pb};
use kiln_session::Session;

/// Most messages of a denial that are passed on.
const MAX_MESSAGES: usize = 100;

pub(crate) async fn check(session: Session, check: PolicyCheck) -> Result<PolicyAnswer, BuildError> {
    let source =
        pb::SourceOp { identifier: check.source.identifier, attrs: check.source.attrs.into_iter().collect() };
    let source = match check.meta {
        Some(meta) => source::meta_response(source, meta),
        None => gateway::ResolveSourceMetaResponse { source: Some(source), ..Default::default() },
    };
    let platform = check.platform.map(kiln_llb::platform::to_pb);
    let request = CheckPolicyRequest { platform, source: Some(source), ..Default::default() };
    let answer = session.check_policy(&request).await.map_err(|e| BuildError::msg(e.to_string()))?;
    match answer.result {
        Some(Answer::Decision(decision)) => decided(decision),
        Some(Answer::Request(request)) => {
            let request = source::meta_request(*request).map_err(|e| BuildError::msg(e.message()))?;
            Ok(PolicyAnswer::Ask(Box::new(request)))
        }
        None => Err(BuildError::msg("no decision in policy response")),
    }
}

fn decided(decision: DecisionResponse) -> Result<PolicyAnswer, BuildError> {
    let wrong = |text: String| Err(BuildError::msg(text));
    match PolicyAction::try_from(decision.action) {
        Ok(PolicyAction::Allow) => Ok(PolicyAnswer::Allow),
        Ok(PolicyAction::Deny) => {
            let messages = decision.deny_messages.into_iter().take(MAX_MESSAGES).map(|m| m.message);
            Ok(PolicyAnswer::Deny { messages: messages.collect() })
        }
        Ok(PolicyAction::Convert) => match decision.update {
            Some(pb::SourceOp { identifier, attrs }) => {
                Ok(PolicyAnswer::Convert(SourceOp { identifier, attrs: attrs.into_iter().collect() }))
            }
            None => wrong("convert action requires updated source".to_string()),
        },
        Err(_) => wrong(format!("unknown action {} in policy response", decision.action)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_one_that_is_known() {
        let with = |action| DecisionResponse { action, ..DecisionResponse::default() };
        assert!(matches!(decided(with(0)), Ok(PolicyAnswer::Allow)));
        assert!(matches!(decided(with(1)), Ok(PolicyAnswer::Deny { messages }) if messages.is_empty()));
        assert!(decided(with(2)).unwrap_err().message.contains("requires updated source"));
        assert!(decided(with(9)).is_err());
    }
}
