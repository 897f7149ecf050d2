//! `buildctl debug dump-llb`: a graph as JSON lines, or as a drawing for graphviz.

mod dot;
mod json;
mod ops;

use super::print;
use crate::build::graph::read;
use crate::cli::Values;
use crate::error::Error;
use json::Object;
use kiln_digest::Digest;
use kiln_go::json::escape_html;
use kiln_proto::extra::{OpExtra, OpMetadataExtra};
use kiln_proto::pb;
use prost::Message as _;
use std::collections::HashMap;
use std::fs::File;

/// An operation of a graph.
struct Entry {
    digest: String,
    op: pb::Op,
    extra: OpExtra,
}

/// What the published type of a definition lacks.
#[derive(Clone, PartialEq, prost::Message)]
struct DefinitionExtra {
    #[prost(map = "string, message", tag = "2")]
    metadata: HashMap<String, OpMetadataExtra>,
}

pub(super) fn run(values: &Values, args: &[String]) -> Result<(), Error> {
    let bytes = match args.first().map(String::as_str) {
        None | Some("" | "-") => read(std::io::stdin().lock())?,
        Some(path) => read(File::open(path).map_err(Error::file("open", path))?)?,
    };
    let definition = pb::Definition::decode(&bytes[..]).map_err(|e| e.to_string())?;
    let extra = DefinitionExtra::decode(&bytes[..]).unwrap_or_default();
    let entries = entries(&definition)?;
    match values.is("dot") {
        true => print(&dot::text(&entries)),
        false => entries.iter().try_for_each(|e| print(&line(e, &definition, &extra))),
    }
}

fn entries(definition: &pb::Definition) -> Result<Vec<Entry>, Error> {
    let entry = |bytes: &Vec<u8>| {
        let op = pb::Op::decode(&bytes[..]).map_err(|e| format!("failed to parse op: {e}"))?;
        let extra = OpExtra::decode(&bytes[..]).unwrap_or_default();
        Ok(Entry { digest: Digest::sha256(bytes).to_string(), op, extra })
    };
    definition.def.iter().map(entry).collect()
}

/// One line of JSON.
fn line(entry: &Entry, definition: &pb::Definition, extra: &DefinitionExtra) -> String {
    let metadata = definition.metadata.get(&entry.digest).cloned().unwrap_or_default();
    let resources = extra.metadata.get(&entry.digest).and_then(|m| m.linux_resources.as_ref());
    let object = Object::default()
        .with("Op", ops::op(entry))
        .with("Digest", entry.digest.as_str())
        .with("OpMetadata", ops::metadata(&metadata, resources));
    format!("{}\n", escape_html(&object.value().to_string()))
}

#[cfg(test)]
mod tests;
