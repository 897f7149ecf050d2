//! Kinds of details.

use crate::{Range, SourceInfo};
use kiln_digest::Digest;
use std::collections::BTreeMap;

/// One detail of an error.
#[derive(Clone, Debug, PartialEq)]
pub enum Detail {
    /// Which vertex failed.
    Vertex(Digest),
    /// Where that was written.
    Source {
        /// The file.
        info: Option<SourceInfo>,
        /// The places.
        ranges: Vec<Range>,
    },
    /// What can be looked at after a failed step; the ids name results that a container can be made of.
    Solve {
        /// Results of the inputs.
        input_ids: Vec<String>,
        /// Results of the mounts.
        mount_ids: Vec<String>,
        /// The operation as protojson.
        op: Option<Box<serde_json::Value>>,
        /// What part of it failed.
        subject: Option<SolveSubject>,
        /// Description of the vertex.
        description: BTreeMap<String, String>,
    },
    /// Which frontend failed.
    Frontend {
        /// `dockerfile.v0` or `gateway.v0`.
        name: String,
        /// Its image.
        source: String,
    },
    /// A capability that the frontend lacks.
    FrontendCap(String),
    /// A request that the frontend does not know.
    Subrequest(String),
    /// A feature that the asked-for version lacks.
    CompatibilityFeature {
        /// Version.
        version: i64,
        /// Feature.
        feature: String,
    },
    /// What the client's policy says about a source that it denies.
    PolicyDenied(Vec<String>),
    /// The exit code of a process.
    ExitCode(u32),
    /// Anything else, as it came.
    Unknown {
        /// Bare type name.
        type_url: String,
        /// Payload.
        value: Vec<u8>,
    },
}

/// What part of an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SolveSubject {
    /// A file action.
    File(i64),
    /// The content digest of an input.
    Cache(i64),
}
