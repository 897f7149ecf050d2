//! Metadata of the session stream and of its calls (spec wire.md sections 4 and 5).

use std::collections::BTreeSet;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};

use crate::SessionError;
use crate::health::HealthPolicy;

const ID: &str = "x-docker-expose-session-uuid";
const NAME: &str = "x-docker-expose-session-name";
const SHARED_KEY: &str = "x-docker-expose-session-sharedkey";
const METHOD: &str = "x-docker-expose-session-grpc-method";
const HEALTH: &str = "x-buildkit-session-health-custom-timeout";
/// Longest id or key that is believed, in bytes.
const MAX_ID: usize = 1 << 10;

/// What a client says of itself when it opens a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionHeaders {
    /// Names the session in builds.
    pub id: String,
    /// For people; legacy.
    pub name: String,
    /// Names the client's directory across sessions, for incremental transfers. Not a secret.
    pub shared_key: String,
    /// `/service/Method` of everything the client serves.
    pub methods: BTreeSet<String>,
    /// How its health is checked.
    pub health: HealthPolicy,
}

impl SessionHeaders {
    /// Reads the metadata of a `Control.Session` call. Method names are folded to lower case.
    pub fn from_metadata(metadata: &MetadataMap) -> Result<Self, SessionError> {
        let one = |key: &str| metadata.get(key).and_then(|v| v.to_str().ok()).unwrap_or_default().to_string();
        let headers = Self {
            id: one(ID),
            name: one(NAME),
            shared_key: one(SHARED_KEY),
            methods: values(metadata, METHOD).map(|m| m.to_ascii_lowercase()).collect(),
            health: HealthPolicy::from_header(&one(HEALTH)),
        };
        match () {
            () if headers.id.is_empty() => Err(SessionError::Invalid(format!("header {ID} is missing"))),
            () if headers.id.len() > MAX_ID => Err(SessionError::Invalid(format!("header {ID} is too long"))),
            () if headers.shared_key.len() > MAX_ID => {
                Err(SessionError::Invalid(format!("header {SHARED_KEY} is too long")))
            }
            () => Ok(headers),
        }
    }

    /// The metadata to open a session with.
    pub fn to_metadata(&self) -> Result<MetadataMap, SessionError> {
        let mut map = MetadataMap::new();
        insert(&mut map, ID, &self.id)?;
        insert(&mut map, NAME, &self.name)?;
        insert(&mut map, SHARED_KEY, &self.shared_key)?;
        for method in &self.methods {
            map.append(METHOD, ascii(METHOD, method)?);
        }
        Ok(map)
    }

    /// Whether the client serves `/service/Method`; case does not matter.
    pub fn supports(&self, method: &str) -> bool {
        self.methods.iter().any(|m| m.eq_ignore_ascii_case(method))
    }
}

/// All values of `key` that are text.
pub(crate) fn values<'a>(metadata: &'a MetadataMap, key: &'a str) -> impl Iterator<Item = &'a str> {
    metadata.get_all(key).iter().filter_map(|v| v.to_str().ok())
}

/// Adds a value that must be plain ASCII.
pub(crate) fn insert(map: &mut MetadataMap, key: &'static str, value: &str) -> Result<(), SessionError> {
    map.insert(key, ascii(key, value)?);
    Ok(())
}

fn ascii(key: &str, value: &str) -> Result<MetadataValue<Ascii>, SessionError> {
    value.parse().map_err(|_| SessionError::Invalid(format!("header {key} cannot carry {value:?}")))
}

/// What Go's `url.QueryEscape` leaves alone, besides letters and digits.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Sets all values of a key. If one has a non-ASCII character, or one that a header cannot carry, all are
/// query-escaped and `<key>-encoded: 1` is added.
pub fn encode_values(
    map: &mut MetadataMap,
    key: &'static str,
    values: &[String],
) -> Result<(), SessionError> {
    let plain = values.iter().all(|v| v.bytes().all(|b| (0x20..0x7f).contains(&b) || b == b'\t'));
    for value in values {
        if plain {
            map.append(key, ascii(key, value)?);
        } else {
            let escaped = utf8_percent_encode(value, QUERY).to_string();
            map.append(key, ascii(key, &escaped)?);
        }
    }
    if !plain {
        let flag = MetadataKey::from_bytes(format!("{key}-encoded").as_bytes())
            .map_err(|_| SessionError::Invalid(format!("header name {key}")))?;
        map.insert(flag, MetadataValue::from_static("1"));
    }
    Ok(())
}

/// Reads what [`encode_values`] wrote.
pub fn decode_values(map: &MetadataMap, key: &str) -> Vec<String> {
    let flag = format!("{key}-encoded");
    let encoded = values(map, &flag).next().and_then(kiln_go::parse_bool) == Some(true);
    let decode = |v: &str| match encoded {
        true => percent_decode_str(&v.replace('+', " ")).decode_utf8_lossy().into_owned(),
        false => v.to_string(),
    };
    map.get_all(key).iter().filter_map(|v| std::str::from_utf8(v.as_bytes()).ok().map(decode)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_values_travel_plain() {
        let mut map = MetadataMap::new();
        encode_values(&mut map, "exclude-patterns", &["a b%20+".into(), "!c".into()]).unwrap();
        assert!(map.get("exclude-patterns-encoded").is_none());
        assert_eq!(map.get("exclude-patterns").unwrap(), "a b%20+");
        assert_eq!(decode_values(&map, "exclude-patterns"), ["a b%20+", "!c"]);
    }

    #[test]
    fn one_foreign_character_escapes_all_values_of_the_key() {
        let mut map = MetadataMap::new();
        encode_values(&mut map, "followpaths", &["ü b".into(), "c+/d~".into()]).unwrap();
        assert_eq!(map.get("followpaths-encoded").unwrap(), "1");
        assert_eq!(map.get("followpaths").unwrap(), "%C3%BC%20b");
        assert_eq!(decode_values(&map, "followpaths"), ["ü b", "c+/d~"]);
        // As Go writes a space.
        map.insert("followpaths", "%C3%BC+b".parse().unwrap());
        assert_eq!(decode_values(&map, "followpaths"), ["ü b"]);
    }

    #[test]
    fn control_characters_do_not_break_the_header() {
        let mut map = MetadataMap::new();
        encode_values(&mut map, "followpaths", &["a\nb".into()]).unwrap();
        assert_eq!(decode_values(&map, "followpaths"), ["a\nb"]);
    }

    #[test]
    fn session_headers_round_trip_and_fold_method_names() {
        let headers = SessionHeaders {
            id: "abc".into(),
            name: "n".into(),
            shared_key: "k".into(),
            methods: ["/grpc.health.v1.Health/Check".to_string()].into(),
            health: HealthPolicy::default(),
        };
        let read = SessionHeaders::from_metadata(&headers.to_metadata().unwrap()).unwrap();
        assert_eq!((read.id.as_str(), read.shared_key.as_str()), ("abc", "k"));
        assert!(read.supports("/grpc.health.V1.Health/check"));
        assert!(!read.supports("/grpc.health.v1.Health/Watch"));
        assert!(SessionHeaders::from_metadata(&MetadataMap::new()).is_err());
    }
}
