//! Details as JSON, with the field names and the omissions of Go.

use super::{Detail, SolveSubject};
use crate::{Position, Range, SourceInfo};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_proto::pb;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

const PREFIX: &str = "github.com/moby/buildkit/";

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Named {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Vertex {
    #[serde(skip_serializing_if = "String::is_empty")]
    digest: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Source {
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Info>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<JsonRange>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Info {
    #[serde(skip_serializing_if = "String::is_empty")]
    filename: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    data: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    language: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct JsonRange {
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<JsonPosition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<JsonPosition>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct JsonPosition {
    #[serde(skip_serializing_if = "is_zero")]
    line: i32,
    #[serde(skip_serializing_if = "is_zero")]
    character: i32,
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// protojson: 64-bit numbers are texts, and either form is read.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Solve {
    #[serde(rename = "inputIDs", skip_serializing_if = "Vec::is_empty")]
    input_ids: Vec<String>,
    #[serde(rename = "mountIDs", skip_serializing_if = "Vec::is_empty")]
    mount_ids: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    op: Option<Box<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<Subject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<Subject>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    description: BTreeMap<String, String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Subject {
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<Value>,
}

impl Subject {
    fn new(i: i64) -> Self {
        Subject { index: (i != 0).then(|| Value::String(i.to_string())) }
    }

    fn get(&self) -> i64 {
        match &self.index {
            Some(Value::String(s)) => s.parse().unwrap_or(0),
            Some(v) => v.as_i64().unwrap_or(0),
            None => 0,
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Frontend {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    source: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Compatibility {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    feature: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Decision {
    /// A name, or a number from those that do not know names.
    action: Value,
    #[serde(rename = "denyMessages", skip_serializing_if = "Vec::is_empty")]
    messages: Vec<DenyMessage>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct DenyMessage {
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Exit {
    #[serde(rename = "Code", skip_serializing_if = "Option::is_none")]
    code: Option<u32>,
}

/// The bare type name and the payload of a detail.
pub fn encode_detail(d: &Detail) -> (String, Vec<u8>) {
    let (name, value) = match d {
        Detail::Unknown { type_url, value } => return (type_url.clone(), value.clone()),
        Detail::Vertex(v) => ("errdefs.Vertex", to_value(Vertex { digest: v.to_string() })),
        Detail::Source { info, ranges } => ("errdefs.Source", to_value(source(info.as_ref(), ranges))),
        Detail::Solve { input_ids, mount_ids, op, subject, description } => {
            let (file, cache) = match subject {
                Some(SolveSubject::File(i)) => (Some(Subject::new(*i)), None),
                Some(SolveSubject::Cache(i)) => (None, Some(Subject::new(*i))),
                None => (None, None),
            };
            let (input_ids, mount_ids) = (input_ids.clone(), mount_ids.clone());
            let solve =
                Solve { input_ids, mount_ids, op: op.clone(), file, cache, description: description.clone() };
            ("errdefs.Solve", to_value(solve))
        }
        Detail::Frontend { name, source } => {
            ("errdefs.Frontend", to_value(Frontend { name: name.clone(), source: source.clone() }))
        }
        Detail::FrontendCap(name) => ("errdefs.FrontendCap", to_value(Named { name: name.clone() })),
        Detail::Subrequest(name) => ("errdefs.Subrequest", to_value(Named { name: name.clone() })),
        Detail::CompatibilityFeature { version, feature } => {
            let version = (*version != 0).then_some(*version);
            ("errdefs.CompatibilityFeature", to_value(Compatibility { version, feature: feature.clone() }))
        }
        Detail::PolicyDenied(messages) => {
            let messages = messages.iter().map(|m| DenyMessage { message: m.clone() }).collect();
            let decision = Decision { action: Value::from("DENY"), messages };
            ("policysession.DecisionResponse", to_value(decision))
        }
        Detail::ExitCode(code) => {
            ("gatewayapi.ExitMessage", to_value(Exit { code: (*code != 0).then_some(*code) }))
        }
    };
    (format!("{PREFIX}{name}+json"), value)
}

fn to_value<T: Serialize>(v: T) -> Vec<u8> {
    serde_json::to_vec(&v).unwrap_or_else(|_| b"{}".to_vec())
}

fn source(info: Option<&SourceInfo>, ranges: &[Range]) -> Source {
    let info = info.map(|i| Info {
        filename: i.filename.clone(),
        data: STANDARD.encode(&i.data),
        definition: i.definition.as_deref().and_then(definition_json),
        language: i.language.clone(),
    });
    Source { info, ranges: ranges.iter().map(json_range).collect() }
}

fn json_range(r: &Range) -> JsonRange {
    let position = |p: Position| Some(JsonPosition { line: p.line, character: p.character });
    JsonRange { start: position(r.start), end: position(r.end) }
}

/// A definition as Go's encoding/json writes it. Empty members are left out.
pub fn definition_json(d: &pb::Definition) -> Option<Value> {
    let mut out = serde_json::Map::new();
    let def: Vec<Value> = d.def.iter().map(|b| Value::String(STANDARD.encode(b))).collect();
    put(&mut out, "def", Value::Array(def));
    let metadata = d.metadata.iter().map(|(k, m)| (k.clone(), metadata_json(m)));
    put(&mut out, "metadata", Value::Object(metadata.collect()));
    if let Some(source) = &d.source {
        out.insert("Source".to_string(), source_map_json(source));
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

/// Sets a member unless it is empty.
fn put(out: &mut serde_json::Map<String, Value>, key: &str, value: Value) {
    if !kiln_go::json::is_empty(&value) {
        out.insert(key.to_string(), value);
    }
}

pub(crate) fn metadata_json(m: &pb::OpMetadata) -> Value {
    let mut out = serde_json::Map::new();
    put(&mut out, "ignore_cache", m.ignore_cache.into());
    put(&mut out, "description", serde_json::json!(m.description));
    if let Some(e) = &m.export_cache {
        let mut value = serde_json::Map::new();
        put(&mut value, "Value", e.value.into());
        out.insert("export_cache".to_string(), value.into());
    }
    put(&mut out, "caps", serde_json::json!(m.caps));
    if let Some(g) = &m.progress_group {
        let mut group = serde_json::Map::new();
        put(&mut group, "id", g.id.clone().into());
        put(&mut group, "name", g.name.clone().into());
        put(&mut group, "weak", g.weak.into());
        out.insert("progress_group".to_string(), group.into());
    }
    out.into()
}

fn source_map_json(s: &pb::Source) -> Value {
    let range = |r: &pb::Range| serde_json::to_value(json_range(&Range::from_pb(r))).unwrap_or_default();
    let location = |l: &pb::Location| {
        let mut out = serde_json::Map::new();
        put(&mut out, "sourceIndex", l.source_index.into());
        put(&mut out, "ranges", l.ranges.iter().map(range).collect());
        Value::Object(out)
    };
    let locations = |l: &pb::Locations| {
        let mut out = serde_json::Map::new();
        put(&mut out, "locations", l.locations.iter().map(location).collect());
        Value::Object(out)
    };
    let mut out = serde_json::Map::new();
    let by_vertex: serde_json::Map<_, _> =
        s.locations.iter().map(|(k, l)| (k.clone(), locations(l))).collect();
    put(&mut out, "locations", by_vertex.into());
    // A file of the files of a definition says nothing more: it is left out here.
    out.into()
}

fn definition_from(v: &Value) -> Option<Box<pb::Definition>> {
    let list = v.get("def")?.as_array()?;
    let def: Option<Vec<Vec<u8>>> = list.iter().map(|b| STANDARD.decode(b.as_str()?).ok()).collect();
    Some(Box::new(pb::Definition { def: def?, ..Default::default() }))
}

/// Reads a detail; what is not known or does not fit is kept as it came.
pub fn decode_detail(type_url: &str, value: &[u8]) -> Detail {
    let known = type_url.strip_prefix(PREFIX).and_then(|n| n.strip_suffix("+json"));
    let found = known.and_then(|name| decode_known(name, value));
    found.unwrap_or_else(|| Detail::Unknown { type_url: type_url.to_string(), value: value.to_vec() })
}

fn decode_known(name: &str, value: &[u8]) -> Option<Detail> {
    fn from<T: for<'de> Deserialize<'de>>(v: &[u8]) -> Option<T> {
        serde_json::from_slice(v).ok()
    }
    Some(match name {
        "errdefs.Vertex" => Detail::Vertex(from::<Vertex>(value)?.digest.parse().ok()?),
        "errdefs.Source" => decode_source(from(value)?)?,
        "errdefs.Solve" => {
            let s: Solve = from(value)?;
            let file = s.file.map(|f| SolveSubject::File(f.get()));
            let subject = file.or(s.cache.map(|c| SolveSubject::Cache(c.get())));
            let (input_ids, mount_ids) = (s.input_ids, s.mount_ids);
            Detail::Solve { input_ids, mount_ids, op: s.op, subject, description: s.description }
        }
        "errdefs.Frontend" => {
            let f: Frontend = from(value)?;
            Detail::Frontend { name: f.name, source: f.source }
        }
        "errdefs.FrontendCap" => Detail::FrontendCap(from::<Named>(value)?.name),
        "errdefs.Subrequest" => Detail::Subrequest(from::<Named>(value)?.name),
        "errdefs.CompatibilityFeature" => {
            let c: Compatibility = from(value)?;
            Detail::CompatibilityFeature { version: c.version.unwrap_or(0), feature: c.feature }
        }
        "policysession.DecisionResponse" => {
            let messages = from::<Decision>(value)?.messages;
            Detail::PolicyDenied(messages.into_iter().map(|m| m.message).collect())
        }
        "gatewayapi.ExitMessage" => Detail::ExitCode(from::<Exit>(value)?.code.unwrap_or(0)),
        _ => return None,
    })
}

fn decode_source(s: Source) -> Option<Detail> {
    let info = match s.info {
        None => None,
        Some(i) => Some(SourceInfo {
            filename: i.filename,
            data: STANDARD.decode(i.data).ok()?,
            definition: i.definition.as_ref().and_then(definition_from),
            language: i.language,
        }),
    };
    let position = |p: Option<JsonPosition>| {
        p.map_or(Position::default(), |p| Position { line: p.line, character: p.character })
    };
    let range = |r: JsonRange| Range { start: position(r.start), end: position(r.end) };
    Some(Detail::Source { info, ranges: s.ranges.into_iter().map(range).collect() })
}
