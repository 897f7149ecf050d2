//! Objects as Go's encoding/json writes those of the protocol: empty members are left out, 64-bit numbers are numbers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// An object that is being made.
#[derive(Default)]
pub(super) struct Object(Map<String, Value>);

impl Object {
    /// Adds a member.
    pub(super) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// Adds a member unless it is empty.
    pub(super) fn put(self, key: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        if kiln_go::json::is_empty(&value) { self } else { self.with(key, value) }
    }

    /// Adds a message if there is one, even an empty one.
    pub(super) fn message<T>(self, key: &str, message: Option<T>, json: impl FnOnce(T) -> Value) -> Self {
        match message {
            Some(message) => self.with(key, json(message)),
            None => self,
        }
    }

    /// Adds bytes unless there are none.
    pub(super) fn bytes(self, key: &str, bytes: &[u8]) -> Self {
        self.put(key, STANDARD.encode(bytes))
    }

    pub(super) fn value(self) -> Value {
        Value::Object(self.0)
    }
}

/// A list of messages.
pub(super) fn list<'a, T: 'a>(items: &'a [T], json: impl Fn(&'a T) -> Value) -> Value {
    items.iter().map(json).collect()
}

/// A map, in the order of its keys.
pub(super) fn map<'a, V: Into<Value> + Clone + 'a>(
    entries: impl IntoIterator<Item = (&'a String, &'a V)>,
) -> Value {
    let mut sorted: Vec<_> = entries.into_iter().collect();
    sorted.sort_by_key(|(key, _)| *key);
    Value::Object(sorted.into_iter().map(|(k, v)| (k.clone(), v.clone().into())).collect())
}
