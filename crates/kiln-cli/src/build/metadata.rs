//! What a finished build leaves: the image's id, the metadata file.

use crate::error::CliError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// Answers of the exporters.
pub type Response = BTreeMap<String, String>;

/// The image's id: the digest of its config, else of its manifest or index. Empty when no image was made.
pub fn image_id(response: &Response) -> &str {
    let get = |key: &str| response.get(key).map(String::as_str).filter(|v| !v.is_empty());
    get("containerimage.config.digest").or_else(|| get("containerimage.digest")).unwrap_or_default()
}

/// The response as JSON: values that are base64 of a JSON object or list of objects are decoded.
pub fn to_json(response: &Response) -> Map<String, Value> {
    let decode = |text: &str| {
        let bytes = STANDARD.decode(text).ok()?;
        let value: Value = serde_json::from_slice(&bytes).ok()?;
        let is_object = |v: &Value| v.as_object().is_some_and(|o| !o.is_empty());
        let is_list = value.as_array().is_some_and(|l| !l.is_empty() && l.iter().all(Value::is_object));
        (is_object(&value) || is_list).then_some(value)
    };
    // What a frontend answers is JSON as it is.
    let value = |key: &str, text: &str| match key {
        "result.json" => serde_json::from_str(text).ok(),
        _ => decode(text),
    };
    let entries =
        response.iter().map(|(k, v)| (k.clone(), value(k, v).unwrap_or_else(|| Value::String(v.clone()))));
    entries.collect()
}

/// Writes a file so that it is there whole or not at all.
pub fn write(path: &Path, bytes: &[u8], doing: &'static str) -> Result<(), CliError> {
    let error = |source: std::io::Error| CliError::File { doing, path: path.to_owned(), source };
    let name = path.file_name().ok_or_else(|| error(std::io::ErrorKind::IsADirectory.into()))?;
    // Devices such as /dev/stdout cannot be replaced by a renamed file.
    if std::fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        return std::fs::write(path, bytes).map_err(error);
    }
    let mut temporary = name.to_owned();
    temporary.push(format!(".{:08x}.tmp", rand::random::<u32>()));
    let temporary = path.with_file_name(temporary);
    std::fs::write(&temporary, bytes).map_err(error)?;
    std::fs::rename(&temporary, path).map_err(|e| {
        let _ = std::fs::remove_file(&temporary);
        error(e)
    })
}
