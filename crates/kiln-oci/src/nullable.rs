//! Serde helpers for what Go programs write: `null` where an empty list, map or string is meant.

use serde::{Deserialize, Deserializer};

/// `null` reads as the default value.
pub(crate) fn or_default<'de, D, T>(d: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// For `skip_serializing_if` of booleans.
pub(crate) fn is_false(b: &bool) -> bool {
    !b
}

/// For `skip_serializing_if` of numbers.
pub(crate) fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// RFC 3339 times, as in image configs.
pub(crate) mod time {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(t: &Option<Timestamp>, s: S) -> Result<S::Ok, S::Error> {
        match t {
            Some(t) => s.collect_str(t),
            None => s.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Timestamp>, D::Error> {
        let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
        text.parse().map(Some).map_err(|e| D::Error::custom(format!("invalid time {text:?}: {e}")))
    }
}

/// Padded standard base64, as Go writes byte slices.
pub(crate) mod base64_bytes {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(data: &Option<Vec<u8>>, s: S) -> Result<S::Ok, S::Error> {
        match data {
            Some(data) => s.serialize_str(&STANDARD.encode(data)),
            None => s.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<u8>>, D::Error> {
        let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
        STANDARD.decode(text).map(Some).map_err(D::Error::custom)
    }
}
