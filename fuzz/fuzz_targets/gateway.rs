#![no_main]
// Messages of frontends, and the graphs in them.
use kiln_llb::Definition;
use kiln_proto::gateway;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = gateway::SolveRequest::decode(data) {
        for definition in request.definition.iter().chain(request.frontend_inputs.values()) {
            let _ = Definition::decode(definition);
        }
    }
    if let Ok(request) = gateway::NewContainerRequest::decode(data) {
        for mount in request.mounts {
            let _ = kiln_llb::Mount::from_container(mount);
        }
        let _ = kiln_llb::NetMode::from_wire(request.network);
    }
    if let Ok(result) = gateway::ReturnRequest::decode(data)
        && let Some(error) = result.error
    {
        let details = error.details.into_iter().map(|any| (any.type_url, any.value));
        let _ = kiln_llb::errdefs::BuildError::from_wire(error.code, error.message, details);
    }
});
