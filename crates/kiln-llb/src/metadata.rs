//! Metadata of a vertex: never part of its digest or its cache key (pb.OpMetadata).

use kiln_proto::extra;
use kiln_proto::pb;
use std::collections::BTreeMap;

/// Limits of a step's cgroup. Zero and empty mean not set.
pub type LinuxResources = extra::LinuxResources;

/// What is known of a vertex besides its operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpMetadata {
    /// Do not look for a cached result.
    pub ignore_cache: bool,
    /// Free texts; `llb.customname` is the display name.
    pub description: BTreeMap<String, String>,
    /// Whether the result is offered to exported caches; `None` leaves it to the mode.
    pub export_cache: Option<bool>,
    /// Capabilities that the daemon must have.
    pub caps: BTreeMap<String, bool>,
    /// Vertices of one group are shown as one.
    pub progress_group: Option<ProgressGroup>,
    /// Limits of the step.
    pub linux_resources: Option<LinuxResources>,
}

/// A group of vertices that is shown as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgressGroup {
    /// Same id, same group.
    pub id: String,
    /// Shown name.
    pub name: String,
    /// Members that do not show the group on their own.
    pub weak: bool,
}

impl OpMetadata {
    /// From the wire. `linux_resources` is not in the published message and must be set from the raw bytes.
    pub fn from_pb(m: &pb::OpMetadata) -> Self {
        let progress_group = m.progress_group.as_ref();
        OpMetadata {
            ignore_cache: m.ignore_cache,
            description: m.description.clone(),
            export_cache: m.export_cache.as_ref().map(|e| e.value),
            caps: m.caps.clone(),
            progress_group: progress_group.map(|g| ProgressGroup {
                id: g.id.clone(),
                name: g.name.clone(),
                weak: g.weak,
            }),
            linux_resources: None,
        }
    }

    /// For the wire.
    pub fn to_pb(&self) -> pb::OpMetadata {
        let progress_group = self.progress_group.as_ref();
        pb::OpMetadata {
            ignore_cache: self.ignore_cache,
            description: self.description.clone(),
            export_cache: self.export_cache.map(|value| pb::ExportCache { value }),
            caps: self.caps.clone(),
            progress_group: progress_group.map(|g| pb::ProgressGroup {
                id: g.id.clone(),
                name: g.name.clone(),
                weak: g.weak,
            }),
        }
    }
}
