#![no_main]
// A definition that decodes must encode to what decodes to the same digests.
use kiln_llb::Definition;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    let Ok(pb) = kiln_proto::pb::Definition::decode(data) else { return };
    let Ok(definition) = Definition::decode(&pb) else { return };
    let again = Definition::decode(&definition.to_pb()).expect("what was decoded once decodes again");
    assert_eq!(definition.root(), again.root());
    for vertex in definition.vertices() {
        let _ = kiln_llb::cachekey::deps(vertex);
    }
});
