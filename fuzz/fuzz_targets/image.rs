#![no_main]
// References, platforms, manifests and configs from a registry.
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = serde_json::from_slice::<kiln_oci::ImageConfig>(data);
    let _ = serde_json::from_slice::<kiln_oci::Manifest>(data);
    let _ = serde_json::from_slice::<kiln_oci::Index>(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = text.parse::<kiln_oci::Reference>() {
        let printed = reference.to_string();
        assert_eq!(printed.parse::<kiln_oci::Reference>().expect("printed references parse").to_string(), printed);
    }
    let _ = text.parse::<kiln_oci::Platform>();
});
