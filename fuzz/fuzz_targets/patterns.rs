#![no_main]
// Patterns of a .dockerignore against a path.
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: (Vec<String>, String)| {
    let (patterns, path) = data;
    if let Ok(matcher) = kiln_fs::patterns::Matcher::new(&patterns) {
        let _ = matcher.matches(&path);
    }
    if let Some(pattern) = patterns.first() {
        let _ = kiln_fs::patterns::go_match(pattern.as_bytes(), path.as_bytes());
    }
});
