//! `moby.exporter.v1`: a client that says after the build what to export (spec wire.md section 4).

use std::collections::{BTreeMap, HashMap};

/// Asks which exporters there are.
pub const FIND_EXPORTERS: &str = "/moby.exporter.v1.Exporter/FindExporters";
/// Tells what came out.
pub const FINALIZE_EXPORT: &str = "/moby.exporter.v1.Exporter/FinalizeExport";

/// What the build gave.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FindExportersRequest {
    /// The result's metadata.
    #[prost(map = "string, bytes", tag = "1")]
    pub metadata: HashMap<String, Vec<u8>>,
    /// Names of the results in a map.
    #[prost(string, repeated, tag = "2")]
    pub refs: Vec<String>,
}

/// What to export.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FindExportersResponse {
    /// Each exporter.
    #[prost(message, repeated, tag = "1")]
    pub exporters: Vec<ExporterRequest>,
}

/// One exporter.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ExporterRequest {
    /// Such as `image`.
    #[prost(string, tag = "1")]
    pub r#type: String,
    /// Its attributes.
    #[prost(btree_map = "string, string", tag = "2")]
    pub attrs: BTreeMap<String, String>,
}

/// What all exporters said.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FinalizeExportRequest {
    /// Keys of the response.
    #[prost(btree_map = "string, string", tag = "1")]
    pub exporter_response: BTreeMap<String, String>,
}

/// Nothing.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct FinalizeExportResponse {}
