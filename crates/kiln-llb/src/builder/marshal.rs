//! From nodes to a definition.

use super::{Constraints, GraphBuilder, Node, NodeKind, Output, Slot, exec, file};
use crate::op::*;
use crate::{DecodeError, Definition, Input, Location, OpMetadata, SourceMap, Vertex};
use kiln_digest::Digest;
use kiln_oci::Platform;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What is said once for a whole graph.
#[derive(Clone, Debug, Default)]
pub struct MarshalOptions {
    /// For vertices that name none.
    pub platform: Platform,
    /// Told apart client directories without a session.
    pub local_unique_id: String,
}

/// Why a graph cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MarshalError {
    /// A deferred output was never resolved.
    #[error("a source of the graph was never filled in")]
    Unresolved,
    /// A deferred output leads to itself.
    #[error("the graph has a cycle")]
    Cycle,
    /// The result is not a valid definition.
    #[error(transparent)]
    Invalid(#[from] DecodeError),
}

impl GraphBuilder {
    /// Writes the part of the graph that `root` needs.
    pub fn marshal(&self, root: Option<Output>, opt: &MarshalOptions) -> Result<Definition, MarshalError> {
        let Some(root) = self.target(root)? else {
            return Ok(Definition::default());
        };
        let mut m =
            Marshal { graph: self, opt, done: HashMap::new(), vertices: Vec::new(), at: HashMap::new() };
        m.run(root.node)?;
        let root = m.input(root)?;
        let Marshal { vertices, .. } = m;
        let mut locations: BTreeMap<String, Vec<Location>> = BTreeMap::new();
        let mut shared = Vec::with_capacity(vertices.len());
        for (v, places) in vertices {
            locations.insert(v.digest.to_string(), places);
            shared.push(Arc::new(v));
        }
        let source = self.source_map(locations);
        Ok(Definition::from_vertices(shared, Some(root), Some(source))?)
    }

    /// Only the files that are named, in the order of their index.
    fn source_map(&self, mut locations: BTreeMap<String, Vec<Location>>) -> SourceMap {
        let used: std::collections::BTreeSet<usize> =
            locations.values().flatten().map(|l| l.source_index).filter(|i| *i < self.infos.len()).collect();
        let new_index: HashMap<usize, usize> =
            used.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        for list in locations.values_mut() {
            list.retain_mut(|l| match new_index.get(&l.source_index) {
                Some(new) => {
                    l.source_index = *new;
                    true
                }
                None => false,
            });
        }
        SourceMap { infos: used.iter().map(|i| self.infos[*i].clone()).collect(), locations }
    }

    /// Follows deferred outputs.
    fn target(&self, mut out: Option<Output>) -> Result<Option<Output>, MarshalError> {
        for _ in 0..=self.nodes.len() {
            match out.map(|o| (o, &self.nodes[o.node].kind)) {
                Some((_, NodeKind::Deferred(next))) => out = next.ok_or(MarshalError::Unresolved)?,
                _ => return Ok(out),
            }
        }
        Err(MarshalError::Cycle)
    }

    fn inputs(&self, node: &Node) -> Result<Vec<Output>, MarshalError> {
        let list: Vec<Option<Output>> = match &node.kind {
            NodeKind::Source { .. } | NodeKind::Deferred(_) => Vec::new(),
            NodeKind::Exec(spec) => exec::sorted_mounts(spec).into_iter().map(|m| m.source).collect(),
            NodeKind::File { base, actions, .. } => {
                file::inputs(*base, actions).into_iter().map(Some).collect()
            }
            NodeKind::Merge(inputs)
            | NodeKind::Passthrough { inputs, .. }
            | NodeKind::Ready { inputs, .. } => inputs.iter().copied().map(Some).collect(),
            NodeKind::Diff { lower, upper } => vec![*lower, *upper],
        };
        let targets = list.into_iter().map(|o| self.target(o));
        Ok(targets.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }
}

struct Marshal<'a> {
    graph: &'a GraphBuilder,
    opt: &'a MarshalOptions,
    done: HashMap<usize, Digest>,
    vertices: Vec<(Vertex, Vec<Location>)>,
    at: HashMap<Digest, usize>,
}

impl Marshal<'_> {
    /// Depth first, inputs before users, without recursion: chains can be long.
    fn run(&mut self, root: usize) -> Result<(), MarshalError> {
        let mut stack = vec![(root, self.graph.inputs(&self.graph.nodes[root])?, 0)];
        let mut open = vec![false; self.graph.nodes.len()];
        open[root] = true;
        while let Some((node, inputs, next)) = stack.pop() {
            let Some(input) = inputs.get(next).map(|i| i.node) else {
                self.write(node)?;
                open[node] = false;
                continue;
            };
            stack.push((node, inputs, next + 1));
            if self.done.contains_key(&input) {
                continue;
            }
            if open[input] {
                return Err(MarshalError::Cycle);
            }
            open[input] = true;
            stack.push((input, self.graph.inputs(&self.graph.nodes[input])?, 0));
        }
        Ok(())
    }

    fn input(&self, out: Output) -> Result<Input, MarshalError> {
        let digest = *self.done.get(&out.node).ok_or(MarshalError::Cycle)?;
        let index = match (out.slot, &self.graph.nodes[out.node].kind) {
            (Slot::Index(i), _) => i,
            (Slot::Root, NodeKind::Exec(spec)) => exec::root_output(spec),
            (Slot::Root, _) => 0,
        };
        Ok(Input { digest, index })
    }

    fn write(&mut self, id: usize) -> Result<(), MarshalError> {
        let Node { kind, constraints } = &self.graph.nodes[id];
        let mut inputs = Inputs { marshal: self, list: Vec::new(), error: None };
        let op = match kind {
            NodeKind::Deferred(_) => return Ok(()),
            NodeKind::Ready { vertex, .. } => {
                let vertex = Vertex::clone(vertex);
                return self.add(id, vertex, constraints);
            }
            NodeKind::Source { identifier, attrs } => Op::Source(self.source(identifier, attrs)),
            NodeKind::Exec(spec) => Op::Exec(exec::op(spec, |o| inputs.index(o))),
            NodeKind::File { base, dir, actions } => {
                Op::File(file::op(*base, dir, actions, |o| inputs.index(o)))
            }
            NodeKind::Merge(list) => {
                Op::Merge(MergeOp { inputs: list.iter().map(|o| inputs.append(*o)).collect() })
            }
            NodeKind::Diff { lower, upper } => {
                let lower = lower.and_then(|o| inputs.append(o));
                Op::Diff(DiffOp { lower, upper: upper.and_then(|o| inputs.append(o)) })
            }
            NodeKind::Passthrough { id, inputs: list } => {
                for o in list {
                    inputs.append(*o);
                }
                Op::Passthrough(PassthroughOp { id: id.clone(), outputs: vec![0] })
            }
        };
        let Inputs { list, error, .. } = inputs;
        if let Some(error) = error {
            return Err(error);
        }
        let platform =
            has_platform(&op).then(|| constraints.platform.as_ref().unwrap_or(&self.opt.platform).clone());
        let mut constraints = constraints.clone();
        if let Op::Source(s) = &op
            && s.attrs.contains_key(attr::LOCAL_UNIQUE)
        {
            constraints.need("source.local.unique");
        }
        let vertex = Vertex::new(op, list, platform, constraints.metadata.clone());
        self.add(id, vertex, &constraints)
    }

    fn source(&self, identifier: &str, attrs: &BTreeMap<String, String>) -> SourceOp {
        let mut attrs = attrs.clone();
        if identifier.starts_with("local://") && !attrs.contains_key(attr::LOCAL_SESSION) {
            attrs.insert(attr::LOCAL_UNIQUE.to_string(), self.opt.local_unique_id.clone());
        }
        SourceOp { identifier: identifier.to_string(), attrs }
    }

    fn add(&mut self, id: usize, vertex: Vertex, constraints: &Constraints) -> Result<(), MarshalError> {
        self.done.insert(id, vertex.digest);
        match self.at.get(&vertex.digest) {
            Some(i) => {
                let (known, places) = &mut self.vertices[*i];
                merge_metadata(&mut known.metadata, vertex.metadata);
                places.extend(constraints.locations.iter().cloned());
            }
            None => {
                self.at.insert(vertex.digest, self.vertices.len());
                self.vertices.push((vertex, constraints.locations.clone()));
            }
        }
        Ok(())
    }
}

fn has_platform(op: &Op) -> bool {
    match op {
        Op::Exec(_) => true,
        Op::Source(s) => {
            s.identifier.starts_with("docker-image://") || s.identifier.starts_with("oci-layout://")
        }
        _ => false,
    }
}

fn merge_metadata(into: &mut OpMetadata, other: OpMetadata) {
    into.ignore_cache |= other.ignore_cache;
    into.description.extend(other.description);
    into.export_cache = other.export_cache.or(into.export_cache);
    into.caps.extend(other.caps);
    if other.progress_group.is_some() {
        into.progress_group = other.progress_group;
    }
    if other.linux_resources.is_some() {
        into.linux_resources = other.linux_resources;
    }
}

/// Numbers the inputs of one vertex.
struct Inputs<'a, 'b> {
    marshal: &'a Marshal<'b>,
    list: Vec<Input>,
    error: Option<MarshalError>,
}

impl Inputs<'_, '_> {
    fn lookup(&mut self, out: Option<Output>) -> Option<Input> {
        let found = self.marshal.graph.target(out).and_then(|o| o.map(|o| self.marshal.input(o)).transpose());
        found.unwrap_or_else(|e| {
            self.error = Some(e);
            None
        })
    }

    /// The number of an input; equal ones share it.
    fn index(&mut self, out: Option<Output>) -> Option<usize> {
        let input = self.lookup(out)?;
        Some(self.list.iter().position(|i| *i == input).unwrap_or_else(|| {
            self.list.push(input);
            self.list.len() - 1
        }))
    }

    /// A new number, even for an equal one.
    fn append(&mut self, out: Output) -> Option<usize> {
        let input = self.lookup(Some(out))?;
        self.list.push(input);
        Some(self.list.len() - 1)
    }
}
