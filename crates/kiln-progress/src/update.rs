//! What a build says of itself while it runs.
//!
//! The serde form is that of `--progress rawjson` (spec daemon-and-cli.md section 3): names and omissions are BuildKit's.

use jiff::Timestamp;
use kiln_digest::Digest;
use serde::{Deserialize, Serialize};

/// A batch of news. Parts may be empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// Vertices that were loaded, started or completed; each replaces what was said of it before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vertexes: Vec<VertexUpdate>,
    /// Counters below vertices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<StatusUpdate>,
    /// Output of steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<LogChunk>,
    /// Warnings of frontends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

impl Update {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.vertexes.is_empty()
            && self.statuses.is_empty()
            && self.logs.is_empty()
            && self.warnings.is_empty()
    }

    /// Adds what `other` says after what this says.
    pub fn append(&mut self, mut other: Update) {
        self.vertexes.append(&mut other.vertexes);
        self.statuses.append(&mut other.statuses);
        self.logs.append(&mut other.logs);
        self.warnings.append(&mut other.warnings);
    }
}

/// The state of a vertex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VertexUpdate {
    /// Its digest.
    pub digest: Digest,
    /// Digests of the vertices it depends on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Digest>,
    /// Display name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// When it was (last) started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When it was (last) completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<Timestamp>,
    /// The result came from the cache.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
    /// Why it failed; empty when it did not. A text that ends in `context canceled` is a cancellation.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Vertices of one group are shown as one.
    #[serde(default, rename = "progressGroup", skip_serializing_if = "Option::is_none")]
    pub group: Option<ProgressGroup>,
}

/// A group of vertices that is shown as one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressGroup {
    /// Same id, same group.
    pub id: String,
    /// Shown name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Members that do not show the group on their own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub weak: bool,
}

/// A counter below a vertex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusUpdate {
    /// What is counted; unique below the vertex.
    pub id: String,
    /// The vertex.
    pub vertex: Digest,
    /// Display name, when it differs from the id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Target of the counter, 0 when not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub total: i64,
    /// Counter, usually bytes.
    pub current: i64,
    /// When this was said.
    pub timestamp: Timestamp,
    /// When counting began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<Timestamp>,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// Output of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    /// The vertex.
    pub vertex: Digest,
    /// 1 is stdout, 2 is stderr.
    #[serde(default, skip_serializing_if = "is_zero_i32")]
    pub stream: i32,
    /// Raw bytes; lines may be split anywhere.
    #[serde(with = "base64_bytes")]
    pub data: Vec<u8>,
    /// When it came.
    pub timestamp: Timestamp,
}

fn is_zero_i32(n: &i32) -> bool {
    *n == 0
}

/// A warning of a frontend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Warning {
    /// The vertex it belongs to.
    pub vertex: Digest,
    /// 1 for build checks.
    #[serde(default, skip_serializing_if = "is_zero_i32")]
    pub level: i32,
    /// One line.
    #[serde(default, with = "base64_bytes", skip_serializing_if = "Vec::is_empty")]
    pub short: Vec<u8>,
    /// Explanation, line by line.
    #[serde(default, with = "base64_lines", skip_serializing_if = "Vec::is_empty")]
    pub detail: Vec<Vec<u8>>,
    /// Where to read more.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// The file it is about.
    #[serde(default, rename = "sourceInfo", skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceFile>,
    /// The lines it is about.
    #[serde(default, rename = "range", skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<LineRange>,
}

/// A source file that messages point into.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Name as the user gave it.
    pub filename: String,
    /// Content.
    #[serde(with = "base64_bytes")]
    pub data: Vec<u8>,
    /// Such as `Dockerfile`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub language: String,
}

/// Lines `start` to `end`, counted from 1, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RangeForm", into = "RangeForm")]
pub struct LineRange {
    /// First line.
    pub start: i32,
    /// Last line.
    pub end: i32,
}

/// A range as BuildKit writes it: places have columns too, which nobody shows.
#[derive(Serialize, Deserialize)]
struct RangeForm {
    #[serde(default)]
    start: PlaceForm,
    #[serde(default)]
    end: PlaceForm,
}

#[derive(Default, Serialize, Deserialize)]
struct PlaceForm {
    #[serde(default)]
    line: i32,
}

impl From<RangeForm> for LineRange {
    fn from(r: RangeForm) -> Self {
        Self { start: r.start.line, end: r.end.line }
    }
}

impl From<LineRange> for RangeForm {
    fn from(r: LineRange) -> Self {
        Self { start: PlaceForm { line: r.start }, end: PlaceForm { line: r.end } }
    }
}

mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(data: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(data))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(d)?).map_err(D::Error::custom)
    }
}

mod base64_lines {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(lines: &[Vec<u8>], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(lines.iter().map(|line| STANDARD.encode(line)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Vec<u8>>, D::Error> {
        let lines = Vec::<String>::deserialize(d)?;
        lines.iter().map(|line| STANDARD.decode(line).map_err(D::Error::custom)).collect()
    }
}
