//! Objects as protojson writes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The members of an object; defaults are left out.
#[derive(Default)]
pub(super) struct Object(Map<String, Value>);

impl Object {
    pub(super) fn put(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_string(), value.into());
        self
    }

    pub(super) fn text(self, key: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.put(key, value) }
    }

    pub(super) fn flag(self, key: &str, value: bool) -> Self {
        if value { self.put(key, true) } else { self }
    }

    pub(super) fn long(self, key: &str, value: i64) -> Self {
        if value == 0 { self } else { self.put(key, value.to_string()) }
    }

    pub(super) fn int(self, key: &str, value: i64) -> Self {
        if value == 0 { self } else { self.put(key, value) }
    }

    pub(super) fn bytes(self, key: &str, value: &[u8]) -> Self {
        self.text(key, &STANDARD.encode(value))
    }

    /// An enum; a number without a name is written as it is.
    pub(super) fn name(self, key: &str, value: i32, names: &[&str]) -> Self {
        match usize::try_from(value).ok().and_then(|i| names.get(i)) {
            _ if value == 0 => self,
            Some(name) => self.put(key, *name),
            None => self.put(key, value),
        }
    }

    pub(super) fn some(self, key: &str, value: Option<Value>) -> Self {
        match value {
            Some(value) => self.put(key, value),
            None => self,
        }
    }

    pub(super) fn list<T>(self, key: &str, list: &[T], one: impl Fn(&T) -> Value) -> Self {
        if list.is_empty() { self } else { self.put(key, list.iter().map(one).collect::<Vec<_>>()) }
    }

    pub(super) fn texts(self, key: &str, list: &[String]) -> Self {
        self.list(key, list, |t| t.as_str().into())
    }

    pub(super) fn map<T>(self, key: &str, map: &BTreeMap<String, T>, one: impl Fn(&T) -> Value) -> Self {
        if map.is_empty() {
            return self;
        }
        let map: Map<String, Value> = map.iter().map(|(k, v)| (k.clone(), one(v))).collect();
        self.put(key, map)
    }

    pub(super) fn done(self) -> Value {
        Value::Object(self.0)
    }
}

pub(super) fn object() -> Object {
    Object::default()
}
