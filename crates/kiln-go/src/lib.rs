//! Texts as Go programs read and write them.
//!
//! The tools that kiln stands beside are written in Go: their flags, files and messages follow its standard library,
//! and digests are taken over what it writes. Each rule of it that is needed is here, once.

#![forbid(unsafe_code)]

pub mod csv;
pub mod duration;
pub mod json;
pub mod path;
mod quote;
pub mod units;

pub use quote::quote;

/// Reads a boolean, as `strconv.ParseBool`: `1 t T TRUE true True 0 f F FALSE false False`, nothing else.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::parse_bool;

    #[test]
    fn booleans_are_twelve_words() {
        for (words, value) in [("1 t T TRUE true True", true), ("0 f F FALSE false False", false)] {
            assert!(words.split(' ').all(|word| parse_bool(word) == Some(value)), "{words}");
        }
        for other in ["", "tRUE", "yes", "on", " true", "01"] {
            assert_eq!(parse_bool(other), None, "{other}");
        }
    }
}
