//! Texts as Go's fmt prints them; they end up in image histories.

use kiln_go::quote;

/// `%q` of a list: `["a" "b"]`.
pub(crate) fn quoted_list(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|w| quote(w)).collect::<Vec<_>>().join(" "))
}

/// `%v` of a list: `[a b]`.
pub(crate) fn plain_list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}
