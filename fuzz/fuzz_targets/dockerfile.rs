#![no_main]
// Any error is allowed, no panic is.
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = kiln_dockerfile::parse(data);
});
