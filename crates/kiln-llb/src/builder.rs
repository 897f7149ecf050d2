//! Makes graphs, with the bytes that the Go client's `llb` package makes.
//!
//! Vertices are collected in a [`GraphBuilder`] and named by [`Output`]s; nothing is encoded before
//! [`GraphBuilder::marshal`], so that the platform and a source that is known late can still be filled in.

mod env;
mod exec;
mod file;
mod marshal;
mod source;

pub use env::EnvList;
pub use exec::{ExecSpec, MountSpec, MountWhat, SecretSpec, SshSpec};
pub use file::{ActionSpec, CopySpec, Owner, OwnerId};
pub use marshal::{MarshalError, MarshalOptions};
pub use source::{GitSpec, HttpSpec, LocalSpec, OciLayoutSpec};

use crate::{Definition, Location, OpMetadata, ProgressGroup, Range, SourceInfo, Vertex};
use kiln_digest::Digest;
use kiln_oci::Platform;
use std::collections::HashMap;
use std::sync::Arc;

/// A result of a vertex in a [`GraphBuilder`]. `Option<Output>` is a filesystem: `None` is scratch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Output {
    node: usize,
    slot: Slot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Slot {
    /// The result with this number.
    Index(usize),
    /// What an exec leaves at its root; the number depends on the other mounts.
    Root,
}

/// What a vertex has besides its operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Constraints {
    /// Instead of the platform of the whole graph.
    pub platform: Option<Platform>,
    /// Not part of the digest.
    pub metadata: OpMetadata,
    /// Where it was written: files of [`GraphBuilder::add_source_info`].
    pub locations: Vec<Location>,
}

impl Constraints {
    /// Sets the display name. Credentials of addresses in it are masked: names are shown and kept.
    pub fn named(mut self, name: impl AsRef<str>) -> Self {
        let name = crate::mask_credentials(name.as_ref()).into_owned();
        self.metadata.description.insert("llb.customname".to_string(), name);
        self
    }

    /// Adds a place in a file.
    pub fn at(mut self, source_index: usize, ranges: &[Range]) -> Self {
        self.locations.push(Location { source_index, ranges: ranges.to_vec() });
        self
    }

    /// Shows the vertex as part of a group.
    pub fn grouped(mut self, mut group: ProgressGroup) -> Self {
        group.name = crate::mask_credentials(&group.name).into_owned();
        self.metadata.progress_group = Some(group);
        self
    }

    fn need(&mut self, cap: &str) {
        self.metadata.caps.insert(cap.to_string(), true);
    }
}

#[derive(Debug)]
struct Node {
    kind: NodeKind,
    constraints: Constraints,
}

#[derive(Debug)]
enum NodeKind {
    Source {
        identifier: String,
        attrs: std::collections::BTreeMap<String, String>,
    },
    Exec(Box<ExecSpec>),
    File {
        base: Option<Output>,
        dir: String,
        actions: Vec<ActionSpec>,
    },
    Merge(Vec<Output>),
    Diff {
        lower: Option<Output>,
        upper: Option<Output>,
    },
    Passthrough {
        id: String,
        inputs: Vec<Output>,
    },
    /// A vertex of a received definition.
    Ready {
        vertex: Arc<Vertex>,
        inputs: Vec<Output>,
    },
    /// Stands for another output; the outer `None` is "not yet known".
    Deferred(Option<Option<Output>>),
}

/// A graph in the making.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    nodes: Vec<Node>,
    ready: HashMap<Digest, usize>,
    infos: Vec<SourceInfo>,
}

impl GraphBuilder {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    fn push(&mut self, kind: NodeKind, constraints: Constraints) -> usize {
        self.nodes.push(Node { kind, constraints });
        self.nodes.len() - 1
    }

    /// Adds a file that locations may name; gives its index.
    pub fn add_source_info(&mut self, info: SourceInfo) -> usize {
        self.infos.push(info);
        self.infos.len() - 1
    }

    /// Stacks filesystems; scratch ones have no effect.
    pub fn merge(&mut self, inputs: &[Option<Output>], mut constraints: Constraints) -> Option<Output> {
        let inputs: Vec<Output> = inputs.iter().flatten().copied().collect();
        if inputs.len() < 2 {
            return inputs.first().copied();
        }
        constraints.need("mergeop");
        Some(Output { node: self.push(NodeKind::Merge(inputs), constraints), slot: Slot::Index(0) })
    }

    /// What has to be added to `lower` to get `upper`.
    pub fn diff(
        &mut self,
        lower: Option<Output>,
        upper: Option<Output>,
        mut constraints: Constraints,
    ) -> Option<Output> {
        upper?;
        constraints.need("diffop");
        Some(Output { node: self.push(NodeKind::Diff { lower, upper }, constraints), slot: Slot::Index(0) })
    }

    /// `base` as it is, once all of `deps` are done.
    pub fn requires(&mut self, id: &str, base: Output, deps: &[Option<Output>]) -> Output {
        let mut constraints = Constraints::default();
        constraints.need("passthroughop");
        let inputs = std::iter::once(base).chain(deps.iter().flatten().copied()).collect();
        let kind = NodeKind::Passthrough { id: id.to_string(), inputs };
        Output { node: self.push(kind, constraints), slot: Slot::Index(0) }
    }

    /// Changes files of `base`; relative paths are below `dir`.
    pub fn file(
        &mut self,
        base: Option<Output>,
        dir: &str,
        actions: Vec<ActionSpec>,
        mut constraints: Constraints,
    ) -> Output {
        constraints.need("file.base");
        let kind = NodeKind::File { base, dir: dir.to_string(), actions };
        Output { node: self.push(kind, constraints), slot: Slot::Index(0) }
    }

    /// Runs a process; gives its root afterwards.
    pub fn exec(&mut self, spec: ExecSpec, mut constraints: Constraints) -> Option<Output> {
        exec::add_caps(&spec, &mut constraints);
        let (readonly, root) = (spec.readonly_root, spec.root);
        let node = self.push(NodeKind::Exec(Box::new(spec)), constraints);
        if readonly { root } else { Some(Output { node, slot: Slot::Root }) }
    }

    /// An output that is filled in later, with [`GraphBuilder::resolve`].
    pub fn deferred(&mut self) -> Output {
        let node = self.push(NodeKind::Deferred(None), Constraints::default());
        Output { node, slot: Slot::Index(0) }
    }

    /// Says what a deferred output stands for. Other outputs are left alone.
    pub fn resolve(&mut self, deferred: Output, target: Option<Output>) {
        if let Some(Node { kind: kind @ NodeKind::Deferred(_), .. }) = self.nodes.get_mut(deferred.node) {
            *kind = NodeKind::Deferred(Some(target));
        }
    }

    /// Brings in a received definition; its bytes stay as they are. `None` for scratch.
    pub fn definition(&mut self, def: &Definition) -> Option<Output> {
        let shift = self.infos.len();
        if let Some(s) = def.source() {
            self.infos.extend(s.infos.iter().cloned());
        }
        for v in def.vertices() {
            if self.ready.contains_key(&v.digest) {
                continue;
            }
            let inputs = v.inputs.iter().filter_map(|i| {
                let node = *self.ready.get(&i.digest)?;
                Some(Output { node, slot: Slot::Index(i.index) })
            });
            let inputs = inputs.collect();
            let known = def.source().and_then(|s| s.locations.get(&v.digest.to_string()));
            let moved =
                |l: &Location| Location { source_index: l.source_index + shift, ranges: l.ranges.clone() };
            let locations = known.into_iter().flatten().map(moved).collect();
            let constraints = Constraints { platform: None, metadata: v.metadata.clone(), locations };
            let node = self.push(NodeKind::Ready { vertex: v.clone(), inputs }, constraints);
            self.ready.insert(v.digest, node);
        }
        let root = def.root()?;
        Some(Output { node: *self.ready.get(&root.digest)?, slot: Slot::Index(root.index) })
    }
}
