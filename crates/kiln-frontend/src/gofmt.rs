//! Texts as Go's fmt prints them; they end up in image histories.

use kiln_dockerfile::quote;

/// `%q` of a list: `["a" "b"]`.
pub(crate) fn quoted_list(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" "))
}

/// `%v` of a list: `[a b]`.
pub(crate) fn plain_list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// `strconv.ParseBool`.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    kiln_dockerfile::csv::parse_bool(text)
}
