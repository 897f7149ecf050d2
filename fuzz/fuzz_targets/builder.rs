#![no_main]
// Files in which buildx keeps its builders: what is read is written, and reads back as the same.
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(instance) = serde_json::from_slice::<kiln_builder::Instance>(data) else { return };
    let written = serde_json::to_vec(&instance).expect("an instance is JSON");
    let again: kiln_builder::Instance = serde_json::from_slice(&written).expect("what is written is read");
    assert_eq!(serde_json::to_vec(&again).expect("an instance is JSON"), written);
});
