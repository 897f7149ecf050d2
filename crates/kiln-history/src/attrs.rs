//! What of a request goes into its record: no credentials, and nothing without a bound.

use kiln_llb::mask_credentials;
use kiln_proto::control::BuildHistoryRecord;
use prost::Message;
use serde_json::Value;
use std::collections::HashMap;

/// Encoded bytes of a record; a message must hold one, and listeners hold several.
const MAX_RECORD: usize = 1 << 20;
/// What is left of a value of a record that is too large, in bytes.
const CLIPPED: usize = 1 << 10;

/// The option of a frontend as it is recorded. Build arguments stay as they are: they are no place for secrets, and
/// show what was built.
pub(crate) fn recorded(key: &str, value: &str) -> String {
    match key {
        _ if key.starts_with("build-arg:") => value.to_string(),
        "cache-imports" => cache_imports(value),
        _ => mask_credentials(value).into_owned(),
    }
}

/// Cache imports are JSON whose attributes may hold tokens; only what says where the cache is stays.
fn cache_imports(value: &str) -> String {
    const KEPT: &[&str] = &["ref", "scope", "name", "region", "bucket", "prefix", "src", "digest", "tag"];
    let Ok(Value::Array(mut entries)) = serde_json::from_str(value) else { return String::new() };
    for entry in &mut entries {
        if let Some(attrs) = entry.get_mut("Attrs").and_then(Value::as_object_mut) {
            attrs.retain(|key, _| KEPT.contains(&key.as_str()));
            for value in attrs.values_mut() {
                if let Value::String(text) = value {
                    *text = mask_credentials(text).into_owned();
                }
            }
        }
    }
    Value::Array(entries).to_string()
}

/// Makes a record small enough: clips long values, and leaves the values out when that is not enough.
pub(crate) fn clip(record: &mut BuildHistoryRecord) {
    if record.encoded_len() <= MAX_RECORD {
        return;
    }
    let mut maps: Vec<&mut HashMap<String, String>> =
        vec![&mut record.frontend_attrs, &mut record.exporter_response];
    maps.extend(record.exporters.iter_mut().map(|e| &mut e.attrs));
    maps.iter_mut().flat_map(|m| m.values_mut()).for_each(clip_text);
    if let Some(error) = &mut record.error {
        clip_text(&mut error.message);
    }
    clip_text(&mut record.frontend);
    if record.encoded_len() > MAX_RECORD {
        record.frontend_attrs.clear();
        record.exporter_response.clear();
        record.exporters.clear();
    }
}

fn clip_text(text: &mut String) {
    if text.len() > CLIPPED {
        text.truncate(text.floor_char_boundary(CLIPPED));
        text.push_str("...");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_out() {
        let context = recorded("context", "https://me:pw@host/r.git#main");
        assert_eq!(context, "https://xxxxx:xxxxx@host/r.git#main");
        let proxy = recorded("build-arg:HTTP_PROXY", "http://u:p@proxy");
        assert_eq!(proxy, "http://u:p@proxy");
        let imports = r#"[{"Type":"s3","Attrs":{"bucket":"b","secret_access_key":"s3cr3t"}}]"#;
        assert_eq!(recorded("cache-imports", imports), r#"[{"Type":"s3","Attrs":{"bucket":"b"}}]"#);
        assert_eq!(recorded("cache-imports", "no json"), "");
    }

    #[test]
    fn a_record_has_a_bound() {
        let mut record = BuildHistoryRecord { r#ref: "r".into(), ..Default::default() };
        record.frontend_attrs.insert("a".into(), "ä".repeat(1 << 20));
        record.frontend_attrs.insert("b".into(), "short".into());
        clip(&mut record);
        assert!(record.encoded_len() < 4096);
        assert_eq!(record.frontend_attrs["b"], "short");
        record.frontend_attrs = (0..300_000).map(|n| (format!("key{n}"), String::new())).collect();
        clip(&mut record);
        assert!(record.encoded_len() < 4096);
        assert_eq!(record.r#ref, "r");
    }
}
