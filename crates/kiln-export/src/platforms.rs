//! Which platforms a result is for.

use crate::{ExportError, ExportInput};
use kiln_oci::{ImageConfig, Platform};
use serde::Deserialize;
use std::collections::BTreeMap;

/// JSON of the frontend: all platforms of the result, in order.
const KEY: &str = "refs.platforms";

#[derive(Default, Deserialize)]
struct Listed {
    #[serde(rename = "Platforms", default, deserialize_with = "nullable")]
    platforms: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(rename = "Platform")]
    platform: Platform,
}

/// The platforms that a result says it has, with their ids, in order. One that says nothing is for the platform in its
/// image config, or for this machine's.
///
/// # Errors
/// The list is empty or wrong, or the config has only half a platform.
pub fn result_platforms(
    metadata: &BTreeMap<String, Vec<u8>>,
) -> Result<Vec<(String, Platform)>, ExportError> {
    match metadata.get(KEY) {
        Some(json) => listed(json),
        None => Ok(vec![from_config(metadata)?]),
    }
}

/// The platform of each part of the result, with its id.
pub(crate) fn platforms(input: &ExportInput) -> Result<Vec<(String, Platform)>, ExportError> {
    if input.is_map() && !input.metadata.contains_key(KEY) {
        return Err(invalid("unable to export multiple refs, missing platforms mapping".into()));
    }
    let all = result_platforms(&input.metadata)?;
    if !input.is_map() {
        return match all.len() {
            1 => Ok(all),
            _ => Err(invalid("cannot export multiple platforms without multi-platform enabled".into())),
        };
    }
    let find = |id: &String| all.iter().find(|(known, _)| known == id).cloned();
    input
        .refs
        .iter()
        .map(|(id, _)| {
            id.as_ref()
                .and_then(find)
                .ok_or_else(|| invalid(format!("failed to find platform for ID {id:?}")))
        })
        .collect()
}

/// The input with its parts in the order in which the frontend lists the platforms. An input that
/// [`platforms`] refuses stays as it is.
pub(crate) fn in_order(input: &ExportInput) -> ExportInput {
    let mut out = input.clone();
    if let Some(Ok(all)) = input.metadata.get(KEY).map(|json| listed(json)) {
        let place = |id: &Option<String>| all.iter().position(|(known, _)| Some(known) == id.as_ref());
        out.refs.sort_by_key(|(id, _)| place(id).unwrap_or(all.len()));
    }
    out
}

fn listed(json: &[u8]) -> Result<Vec<(String, Platform)>, ExportError> {
    // Go reads `null` as nothing, and nothing at all as well.
    let listed: Option<Listed> = match json {
        [] => None,
        json => serde_json::from_slice(json)
            .map_err(|e| invalid(format!("failed to parse platforms passed to exporter: {e}")))?,
    };
    let listed = listed.unwrap_or_default();
    if listed.platforms.is_empty() {
        return Err(invalid("invalid empty platforms index for exporter".into()));
    }
    let entry = |e: Entry| {
        if e.id.is_empty() {
            return Err(invalid("invalid empty platform key for exporter".into()));
        }
        if e.platform.os.is_empty() || e.platform.architecture.is_empty() {
            return Err(invalid(format!("invalid platform value {:?} of {} for exporter", e.platform, e.id)));
        }
        Ok((e.id, e.platform.normalize()))
    };
    listed.platforms.into_iter().map(entry).collect()
}

fn from_config(metadata: &BTreeMap<String, Vec<u8>>) -> Result<(String, Platform), ExportError> {
    let platform = match metadata.get("containerimage.config") {
        None => Platform::host(),
        Some(json) if json.trim_ascii() == b"null" => {
            return Err(invalid("invalid null image config for export".into()));
        }
        Some(json) => {
            let platform = ImageConfig::parse(json).map_err(ExportError::json)?.platform;
            match (platform.os.is_empty(), platform.architecture.is_empty()) {
                (false, false) => platform,
                (true, true) => Platform::host(),
                _ => {
                    let text = "invalid image config: os and architecture must be specified together";
                    return Err(invalid(text.into()));
                }
            }
        }
    };
    let platform = platform.normalize();
    Ok((platform.format_all(), platform))
}

/// Go writes an empty list as `null`.
fn nullable<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<Entry>, D::Error> {
    Ok(Option::<Vec<Entry>>::deserialize(d)?.unwrap_or_default())
}

fn invalid(text: String) -> ExportError {
    ExportError::Invalid(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARM: &str = r#"{"Platforms":[{"ID":"linux/arm/v7","Platform":{"os":"linux","architecture":"arm","variant":"v7"}}]}"#;

    fn input(ids: &[Option<&str>], metadata: &[(&str, &str)]) -> ExportInput {
        ExportInput {
            refs: ids.iter().map(|id| (id.map(str::to_string), None)).collect(),
            metadata: metadata.iter().map(|(k, v)| (k.to_string(), v.as_bytes().to_vec())).collect(),
        }
    }

    fn ids(input: &ExportInput) -> Result<Vec<String>, String> {
        platforms(input).map(|all| all.into_iter().map(|(id, _)| id).collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_map_needs_its_list() {
        assert_eq!(ids(&input(&[Some("linux/arm/v7")], &[(KEY, ARM)])).unwrap(), ["linux/arm/v7"]);
        let text = ids(&input(&[Some("linux/arm/v7")], &[])).unwrap_err();
        assert_eq!(text, "unable to export multiple refs, missing platforms mapping");
        assert!(ids(&input(&[Some("linux/s390x")], &[(KEY, ARM)])).is_err());
        assert!(ids(&input(&[Some("x")], &[(KEY, r#"{"Platforms":[]}"#)])).is_err());
    }

    #[test]
    fn parts_are_in_the_order_of_the_list() {
        let entry = |os: &str| format!(r#"{{"ID":"{os}/x","Platform":{{"os":"{os}","architecture":"x"}}}}"#);
        let list = format!(r#"{{"Platforms":[{},{}]}}"#, entry("windows"), entry("linux"));
        let ordered = in_order(&input(&[Some("linux/x"), Some("windows/x")], &[(KEY, &list)]));
        assert_eq!(ids(&ordered).unwrap(), ["windows/x", "linux/x"]);
    }

    #[test]
    fn one_result_is_for_what_its_config_says() {
        let config = r#"{"os":"linux","architecture":"aarch64"}"#;
        assert_eq!(ids(&input(&[None], &[("containerimage.config", config)])).unwrap(), ["linux/arm64"]);
        assert_eq!(ids(&input(&[None], &[(KEY, ARM)])).unwrap(), ["linux/arm/v7"]);
        assert_eq!(ids(&input(&[None], &[])).unwrap(), [Platform::host().format_all()]);
        assert!(
            ids(&input(&[None], &[("containerimage.config", r#"{"os":"linux"}"#)]))
                .unwrap_err()
                .contains("architecture")
        );
    }

    #[test]
    fn nothing_at_all_is_no_list() {
        let of = |key: &str, json: &str| ids(&input(&[None], &[(key, json)])).unwrap_err();
        assert_eq!(of(KEY, "null"), "invalid empty platforms index for exporter");
        assert_eq!(of(KEY, ""), "invalid empty platforms index for exporter");
        assert_eq!(of(KEY, r#"{"Platforms":null}"#), "invalid empty platforms index for exporter");
        assert_eq!(of(KEY, r#"{"Platforms":[{"Platform":{}}]}"#), "invalid empty platform key for exporter");
        assert!(of(KEY, r#"{"Platforms":[{"ID":"x","Platform":{}}]}"#).starts_with("invalid platform value"));
        assert_eq!(of("containerimage.config", "null"), "invalid null image config for export");
    }
}
