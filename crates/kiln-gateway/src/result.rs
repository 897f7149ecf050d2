//! Results on the wire, in the form that the caller understands.

use crate::wire::unimplemented;
use kiln_engine::{BridgeRef, Outcome, ResultRefs};
use kiln_proto::gateway::{self, result::Result as Form};
use std::collections::BTreeMap;
use tonic::Status;

/// What a caller says it understands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed {
    /// Results by key.
    pub(crate) result: bool,
    /// Results with their graphs.
    pub(crate) array_ref: bool,
}

/// The answer to `Solve`.
pub(crate) fn solved(
    outcome: Outcome<BridgeRef>,
    allowed: Allowed,
) -> Result<gateway::SolveResponse, Status> {
    let Outcome { refs, metadata } = outcome;
    let mut default_id = String::new();
    let form = match refs {
        ResultRefs::Many(_) if !allowed.result => {
            return Err(Status::unknown("solve did not return default result"));
        }
        ResultRefs::One(one) => {
            default_id = one.as_ref().map(|r| r.id.clone()).unwrap_or_default();
            match allowed.array_ref {
                true => Form::Ref(wire_ref(one)),
                false => Form::RefDeprecated(default_id.clone()),
            }
        }
        ResultRefs::Many(many) if allowed.array_ref => {
            let refs = many.into_iter().map(|(key, r)| (key, wire_ref(r))).collect();
            Form::Refs(gateway::RefMap { refs })
        }
        ResultRefs::Many(many) => {
            let id = |r: Option<BridgeRef>| r.map(|r| r.id).unwrap_or_default();
            let refs = many.into_iter().map(|(key, r)| (key, id(r))).collect();
            Form::RefsDeprecated(gateway::RefMapDeprecated { refs })
        }
    };
    let result = gateway::Result {
        metadata: metadata.into_iter().collect(),
        result: Some(form),
        ..gateway::Result::default()
    };
    let r#ref = if allowed.result { String::new() } else { default_id };
    Ok(gateway::SolveResponse { r#ref, result: Some(result) })
}

fn wire_ref(found: Option<BridgeRef>) -> gateway::Ref {
    match found {
        Some(BridgeRef { id, definition }) => gateway::Ref { id, def: Some(definition.to_wire()) },
        // Not an empty message: in a map it would be left out, and Go programs would find a null pointer.
        None => gateway::Ref { id: String::new(), def: Some(kiln_proto::pb::Definition::default()) },
    }
}

/// What a caller returns: ids, empty ones for scratch.
pub(crate) fn returned(result: gateway::Result) -> Result<Outcome<String>, Status> {
    if result.attestations.values().any(|a| !a.attestation.is_empty()) {
        return Err(unimplemented("results with attestations"));
    }
    let many = |refs: BTreeMap<String, Option<String>>| ResultRefs::Many(refs);
    let refs = match result.result {
        None => ResultRefs::One(None),
        Some(Form::RefDeprecated(id)) => ResultRefs::One(Some(id)),
        Some(Form::Ref(r)) => ResultRefs::One(Some(r.id)),
        Some(Form::RefsDeprecated(map)) => many(map.refs.into_iter().map(|(k, id)| (k, Some(id))).collect()),
        Some(Form::Refs(map)) => many(map.refs.into_iter().map(|(k, r)| (k, Some(r.id))).collect()),
    };
    Ok(Outcome { refs, metadata: result.metadata.into_iter().collect() })
}

/// Attributes of the oldest clients: base64 by name, in JSON.
pub(crate) fn exporter_attrs(json: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, Status> {
    use base64::Engine as _;
    if json.is_empty() {
        return Ok(BTreeMap::new());
    }
    let invalid = |e: String| Status::invalid_argument(format!("invalid exporter attributes: {e}"));
    let texts: BTreeMap<String, String> = serde_json::from_slice(json).map_err(|e| invalid(e.to_string()))?;
    let decode = |(key, text): (String, String)| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text);
        bytes.map(|bytes| (key, bytes)).map_err(|e| invalid(e.to_string()))
    };
    texts.into_iter().map(decode).collect()
}

/// The default result of a solve as that of the build.
pub(crate) fn last(
    outcome: &Outcome<BridgeRef>,
    mut attrs: BTreeMap<String, Vec<u8>>,
) -> Result<Outcome<String>, Status> {
    let ResultRefs::One(one) = &outcome.refs else {
        return Err(Status::invalid_argument("final solve did not return default result"));
    };
    attrs.extend(outcome.metadata.clone());
    Ok(Outcome { refs: ResultRefs::One(one.as_ref().map(|r| r.id.clone())), metadata: attrs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_llb::Definition;

    fn one() -> Outcome<BridgeRef> {
        let found = BridgeRef { id: "x".into(), definition: Definition::default() };
        Outcome { refs: ResultRefs::One(Some(found)), metadata: [("k".into(), b"v".to_vec())].into() }
    }

    #[test]
    fn every_caller_gets_the_form_it_knows() {
        let oldest = solved(one(), Allowed { result: false, array_ref: false }).unwrap();
        assert_eq!(oldest.r#ref, "x");
        assert_eq!(oldest.result.unwrap().result, Some(Form::RefDeprecated("x".into())));
        let newest = solved(one(), Allowed { result: true, array_ref: true }).unwrap();
        assert_eq!(newest.r#ref, "");
        let result = newest.result.unwrap();
        assert_eq!(result.metadata["k"], b"v");
        assert!(matches!(result.result, Some(Form::Ref(r)) if r.id == "x"));
        let map = || Outcome {
            refs: ResultRefs::Many([("linux/amd64".to_string(), None)].into()),
            metadata: BTreeMap::new(),
        };
        assert!(solved(map(), Allowed { result: false, array_ref: false }).is_err());
        let old = solved(map(), Allowed { result: true, array_ref: false }).unwrap();
        assert!(
            matches!(old.result.unwrap().result, Some(Form::RefsDeprecated(m)) if m.refs["linux/amd64"].is_empty())
        );
    }

    #[test]
    fn what_is_returned_is_read_in_every_form() {
        let with = |form| gateway::Result { result: form, ..gateway::Result::default() };
        assert_eq!(returned(with(None)).unwrap().refs, ResultRefs::One(None));
        let r = gateway::Ref { id: "a".into(), def: None };
        let refs = gateway::RefMap { refs: [("p".to_string(), r)].into() };
        let many = ResultRefs::Many([("p".to_string(), Some("a".to_string()))].into());
        assert_eq!(returned(with(Some(Form::Refs(refs)))).unwrap().refs, many);
        let attestation = gateway::Attestations { attestation: vec![Default::default()] };
        let attested =
            gateway::Result { attestations: [("p".to_string(), attestation)].into(), ..with(None) };
        assert!(returned(attested).unwrap_err().message().contains("attestations"));
    }
}
