//! `--metadata-file`.

use crate::error::{Error, system};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_go::json::escape_html;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// What the exporters say; values that are base64 of a JSON object are decoded.
pub(super) fn to_json(response: &BTreeMap<String, String>) -> String {
    let decode = |text: &str| {
        let value: Value = serde_json::from_slice(&STANDARD.decode(text).ok()?).ok()?;
        value.as_object().is_some_and(|o| !o.is_empty()).then_some(value)
    };
    let entries =
        response.iter().map(|(k, v)| (k.clone(), decode(v).unwrap_or_else(|| Value::String(v.clone()))));
    let object = Value::Object(entries.collect::<Map<_, _>>());
    escape_html(&serde_json::to_string_pretty(&object).unwrap_or_default())
}

/// Writes a file so that it is there whole or not at all.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    kiln_cli::build::metadata::write(path, bytes, "open").map_err(|e| match e {
        kiln_cli::error::CliError::File { path, source, .. } => {
            Error::Text(format!("open {}: {}", path.display(), system(&source)))
        }
        other => Error::Text(other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_decoded_and_everything_else_stays() {
        let b64 = |text: &str| STANDARD.encode(text);
        let response =
            [("a", b64("{\"x\":\"<1>\"}")), ("b", b64("[{}]")), ("c", "sha256:00".into()), ("d", b64("{}"))];
        let response = response.map(|(k, v)| (k.to_string(), v)).into();
        assert_eq!(
            to_json(&response),
            format!(
                "{{\n  \"a\": {{\n    \"x\": \"\\u003c1\\u003e\"\n  }},\n  \"b\": \"{}\",\n  \"c\": \"sha256:00\",\n  \"d\": \"{}\"\n}}",
                b64("[{}]"),
                b64("{}")
            )
        );
        assert_eq!(to_json(&BTreeMap::new()), "{}");
    }
}
