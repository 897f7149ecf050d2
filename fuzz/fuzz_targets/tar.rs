#![no_main]
// Reading any archive ends, without a panic and with bounded memory.
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut reader = kiln_fs::tar::Reader::new(data);
    while let Ok(Some(_)) = reader.next_entry() {}
});
