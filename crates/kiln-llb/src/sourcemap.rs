//! Where in which file a vertex was written (pb.Source).

use kiln_digest::Digest;
use kiln_proto::pb;
use std::collections::{BTreeMap, HashMap};

/// Files, and for each vertex digest the places in them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceMap {
    /// The files.
    pub infos: Vec<SourceInfo>,
    /// By vertex digest (text).
    pub locations: BTreeMap<String, Vec<Location>>,
}

/// A file that vertices were made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceInfo {
    /// As the user named it.
    pub filename: String,
    /// Its content.
    pub data: Vec<u8>,
    /// How to get it: an encoded pb.Definition, not looked into.
    pub definition: Option<Box<pb::Definition>>,
    /// Such as `Dockerfile`.
    pub language: String,
}

/// Places in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// Index into [`SourceMap::infos`].
    pub source_index: usize,
    /// Places.
    pub ranges: Vec<Range>,
}

/// A piece of a file, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Range {
    /// First place.
    pub start: Position,
    /// Last place.
    pub end: Position,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// From 1.
    pub line: i32,
    /// From 0; 0 also when unknown.
    pub character: i32,
}

impl SourceMap {
    /// From the wire; locations that name no file are dropped.
    pub fn from_pb(s: &pb::Source) -> Self {
        let infos: Vec<_> = s.infos.iter().map(SourceInfo::from_pb).collect();
        let location = |l: &pb::Location| {
            let source_index = usize::try_from(l.source_index).ok().filter(|i| *i < infos.len())?;
            Some(Location { source_index, ranges: l.ranges.iter().map(Range::from_pb).collect() })
        };
        let locations = s.locations.iter();
        let locations =
            locations.map(|(d, l)| (d.clone(), l.locations.iter().filter_map(location).collect())).collect();
        SourceMap { infos, locations }
    }

    /// For the wire.
    pub fn to_pb(&self) -> pb::Source {
        let location = |l: &Location| pb::Location {
            source_index: i32::try_from(l.source_index).unwrap_or(i32::MAX),
            ranges: l.ranges.iter().map(Range::to_pb).collect(),
        };
        let locations = self.locations.iter();
        pb::Source {
            infos: self.infos.iter().map(SourceInfo::to_pb).collect(),
            locations: locations
                .map(|(d, l)| (d.clone(), pb::Locations { locations: l.iter().map(location).collect() }))
                .collect(),
        }
    }

    /// The same places under the new names of vertices.
    pub(crate) fn renamed(&self, names: &HashMap<Digest, Digest>) -> SourceMap {
        let mut out = SourceMap { infos: self.infos.clone(), locations: BTreeMap::new() };
        for (vertex, places) in &self.locations {
            let new = vertex.parse().ok().and_then(|old: Digest| names.get(&old));
            let name = new.map_or_else(|| vertex.clone(), Digest::to_string);
            out.locations.entry(name).or_default().extend(places.iter().cloned());
        }
        out
    }

    /// The places of a vertex, each with its file.
    pub fn of(&self, vertex: &kiln_digest::Digest) -> Vec<(&SourceInfo, &[Range])> {
        let found = self.locations.get(&vertex.to_string());
        let found = found.into_iter().flatten();
        found.filter_map(|l| Some((self.infos.get(l.source_index)?, l.ranges.as_slice()))).collect()
    }
}

impl SourceInfo {
    /// From the wire.
    pub fn from_pb(i: &pb::SourceInfo) -> Self {
        SourceInfo {
            filename: i.filename.clone(),
            data: i.data.clone(),
            definition: i.definition.clone().map(Box::new),
            language: i.language.clone(),
        }
    }

    /// For the wire.
    pub fn to_pb(&self) -> pb::SourceInfo {
        pb::SourceInfo {
            filename: self.filename.clone(),
            data: self.data.clone(),
            definition: self.definition.as_deref().cloned(),
            language: self.language.clone(),
        }
    }
}

impl Range {
    /// From the wire; missing ends are zero.
    pub fn from_pb(r: &pb::Range) -> Self {
        let at = |p: &Option<pb::Position>| {
            p.as_ref().map_or(Position::default(), |p| Position { line: p.line, character: p.character })
        };
        Range { start: at(&r.start), end: at(&r.end) }
    }

    /// For the wire.
    pub fn to_pb(&self) -> pb::Range {
        let at = |p: Position| Some(pb::Position { line: p.line, character: p.character });
        pb::Range { start: at(self.start), end: at(self.end) }
    }
}
