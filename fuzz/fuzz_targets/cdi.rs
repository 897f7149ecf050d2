#![no_main]
// A file of a vendor, scanned as the daemon does.
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("a.yaml"), data).expect("a file");
    let registry = kiln_cdi::Registry::new(vec![dir.path().to_owned()], Vec::new());
    let _ = registry.scan();
});
