//! Values as templates see them: Go's structs, with the names of their fields and of their JSON members.

use crate::human;
use jiff::Timestamp;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;

/// A value.
#[allow(missing_docs, reason = "the names say it")]
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No pointer, no list, no map.
    Nil(Nil),
    Bool(bool),
    Int(i64),
    Text(String),
    Time(Timestamp),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
    Struct(Struct),
}

/// What is missing.
#[allow(missing_docs, reason = "the names say it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nil {
    Pointer,
    List,
    Map,
    /// What a map does not have.
    NoValue,
}

/// A struct: its type, and its fields in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Struct {
    /// The name of the type, for messages.
    pub kind: &'static str,
    /// What there is, in order.
    pub fields: Vec<Field>,
    /// Its JSON, where that is not of the fields.
    pub whole: Option<Json>,
}

/// A field.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its name in templates.
    pub name: &'static str,
    /// Its name in JSON.
    pub json: &'static str,
    /// Left out of JSON when it is empty.
    pub omit: bool,
    /// What it holds.
    pub value: Value,
}

impl Struct {
    /// An empty struct of a type.
    pub fn new(kind: &'static str) -> Self {
        Self { kind, ..Self::default() }
    }

    /// Adds a field that is always in the JSON.
    pub fn with(mut self, name: &'static str, json: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push(Field { name, json, omit: false, value: value.into() });
        self
    }

    /// Gives it a JSON of its own.
    pub fn with_whole(mut self, whole: Json) -> Self {
        self.whole = Some(whole);
        self
    }

    /// Adds a field that JSON leaves out when it is empty.
    pub fn omit(mut self, name: &'static str, json: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push(Field { name, json, omit: true, value: value.into() });
        self
    }
}

impl From<Struct> for Value {
    fn from(s: Struct) -> Self {
        Self::Struct(s)
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Self::Bool(b)
    }
}

impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Self::Int(n)
    }
}

impl From<&str> for Value {
    fn from(s: &str) -> Self {
        Self::Text(s.to_owned())
    }
}

impl From<String> for Value {
    fn from(s: String) -> Self {
        Self::Text(s)
    }
}

impl From<Option<Timestamp>> for Value {
    fn from(t: Option<Timestamp>) -> Self {
        t.map_or(Self::Nil(Nil::Pointer), Self::Time)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(list: Vec<T>) -> Self {
        // An empty list comes over the wire as none.
        if list.is_empty() {
            Self::Nil(Nil::List)
        } else {
            Self::List(list.into_iter().map(Into::into).collect())
        }
    }
}

impl From<&[String]> for Value {
    fn from(list: &[String]) -> Self {
        list.iter().map(String::as_str).collect::<Vec<_>>().into()
    }
}

impl From<&BTreeMap<String, String>> for Value {
    fn from(map: &BTreeMap<String, String>) -> Self {
        if map.is_empty() {
            return Self::Nil(Nil::Map);
        }
        Self::Map(map.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect())
    }
}

impl Value {
    /// Whether `if` takes it for true.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Nil(_) => false,
            Self::Bool(b) => *b,
            Self::Int(n) => *n != 0,
            Self::Text(s) => !s.is_empty(),
            Self::List(l) => !l.is_empty(),
            Self::Map(m) => !m.is_empty(),
            Self::Time(_) | Self::Struct(_) => true,
        }
    }

    /// As JSON.
    pub fn json(&self) -> Json {
        match self {
            Self::Nil(_) => Json::Null,
            Self::Bool(b) => (*b).into(),
            Self::Int(n) => (*n).into(),
            Self::Text(s) => s.as_str().into(),
            Self::Time(t) => t.to_string().into(),
            Self::List(l) => l.iter().map(Value::json).collect(),
            Self::Map(m) => m.iter().map(|(k, v)| (k.clone(), v.json())).collect(),
            Self::Struct(Struct { whole: Some(whole), .. }) => whole.clone(),
            Self::Struct(s) => {
                let shown = s.fields.iter().filter(|f| !f.omit || f.value.is_true());
                Json::Object(shown.map(|f| (f.json.to_owned(), f.value.json())).collect::<Map<_, _>>())
            }
        }
    }

    /// As `{{.}}` prints it.
    pub fn print(&self) -> String {
        let joined = |values: Vec<String>| values.join(" ");
        match self {
            Self::Nil(Nil::Pointer) => "<nil>".into(),
            Self::Nil(Nil::NoValue) => "<no value>".into(),
            Self::Nil(Nil::List) => "[]".into(),
            Self::Nil(Nil::Map) => "map[]".into(),
            Self::Bool(b) => b.to_string(),
            Self::Int(n) => n.to_string(),
            Self::Text(s) => s.clone(),
            Self::Time(t) => human::go_time(*t),
            Self::List(l) => format!("[{}]", joined(l.iter().map(Value::print).collect())),
            Self::Map(m) => {
                format!("map[{}]", joined(m.iter().map(|(k, v)| format!("{k}:{}", v.print())).collect()))
            }
            Self::Struct(s) => format!("{{{}}}", joined(s.fields.iter().map(|f| f.value.print()).collect())),
        }
    }

    /// The type, for messages.
    pub fn kind(&self) -> String {
        match self {
            Self::Nil(Nil::Pointer | Nil::NoValue) => "nil".into(),
            Self::Nil(Nil::List) => "list".into(),
            Self::Nil(Nil::Map) | Self::Map(_) => "map".into(),
            Self::Bool(_) => "bool".into(),
            Self::Int(_) => "int".into(),
            Self::Text(_) => "string".into(),
            Self::Time(_) => "time.Time".into(),
            Self::List(l) => l.first().map_or("list".into(), |v| format!("[]{}", v.kind())),
            Self::Struct(s) => s.kind.into(),
        }
    }
}
