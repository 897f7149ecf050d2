//! Jobs and builds: who holds which vertices.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kiln_digest::Digest;

use super::node::{Exec, Input, Load, Map, Node, NodeId, Ready, Show, Slot, Wants};
use super::{Action, BuildId, JobKey, JobState, Level, Owner, Scheduler, Wait};
use crate::graph::{Edge, Graph, GraphError, JobId, Vertex};
use crate::observe::{Observer, VertexInfo};
use crate::ops::{Error, Ops};
use crate::shared::{Shared, Subscriber};

/// Nested builds deeper than this are taken for endless.
const MAX_DEPTH: u32 = 32;

impl<O: Ops> Scheduler<O> {
    pub(super) fn job_started(&mut self, job: JobKey, id: JobId, observer: Arc<dyn Observer>) {
        let subscriber = Subscriber { id, observer };
        self.jobs.insert(job, JobState { subscriber, nodes: Vec::new(), implied: HashSet::new() });
    }

    pub(super) fn job_ended(&mut self, job: JobKey) {
        let of_job: Vec<BuildId> =
            self.builds.iter().filter(|(_, w)| w.owner == Owner::Job(job)).map(|(b, _)| *b).collect();
        for build in of_job {
            self.abandoned(build);
            self.actions.push(Action::Answer { build, result: Err(Arc::new(Error::Canceled)) });
        }
        // What only this job waited for is cancelled while it can still be told.
        self.settle();
        let Some(state) = self.jobs.remove(&job) else { return };
        for id in state.nodes {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.jobs.remove(&job);
                node.shared.unsubscribe(job);
                let (shown, digest) = (node.show.clone(), node.info.digest);
                self.loose.push(id);
                self.show_left(&state.subscriber, digest, &shown);
            }
        }
    }

    pub(super) fn abandoned(&mut self, build: BuildId) {
        let Some(wait) = self.builds.remove(&build) else { return };
        if let Some(node) = self.nodes.get_mut(&wait.node) {
            let output = node.output_mut(wait.output);
            output.waiters.retain(|b| *b != build);
            output.demand.change(Level::Complete, Level::None);
            self.wake(wait.node);
        }
    }

    pub(super) fn build(&mut self, build: BuildId, owner: Owner, graph: &Graph<O::Op>, edge: Edge) {
        if let Err(error) = self.try_build(build, owner, graph, edge) {
            self.actions.push(Action::Answer { build, result: Err(Arc::new(error)) });
        }
    }

    fn try_build(
        &mut self,
        build: BuildId,
        owner: Owner,
        graph: &Graph<O::Op>,
        edge: Edge,
    ) -> Result<(), Error<O::Error>> {
        let parent = match owner {
            Owner::Job(job) => self.jobs.get(&job).map(|_| None),
            Owner::Task(task) => self.tasks.get(&task).map(|(node, _)| Some(*node)),
        };
        let parent = parent.ok_or(Error::Canceled)?;
        let depth = parent.and_then(|p| self.nodes.get(&p)).map_or(0, |n| n.depth + 1);
        let nodes = self.load(graph, edge.digest, depth)?;
        let held = match (owner, parent) {
            (Owner::Job(job), _) => {
                self.hold_by_job(job, &nodes);
                Ok(())
            }
            (Owner::Task(_), Some(parent)) => self.hold_by_parent(parent, depth, &nodes),
            (Owner::Task(_), None) => Err(Error::Canceled),
        };
        self.loose.extend(&nodes);
        held?;
        // A failure is kept only for those who waited when it happened.
        for id in &nodes {
            if self.nodes.get_mut(id).is_some_and(|n| n.failed.take().is_some()) {
                self.wake(*id);
            }
        }
        let Some(root) = nodes.last().copied() else { return Err(Error::Canceled) };
        if let Some(node) = self.nodes.get_mut(&root) {
            let output = node.output_mut(edge.index);
            output.waiters.push(build);
            output.demand.change(Level::None, Level::Complete);
        }
        self.builds.insert(build, Wait { node: root, output: edge.index, owner });
        self.wake(root);
        Ok(())
    }

    /// The active vertices for the part of the graph that leads to `root`, inputs first, the root last.
    fn load(&mut self, graph: &Graph<O::Op>, root: Digest, depth: u32) -> Result<Vec<NodeId>, GraphError> {
        graph.get(&root).ok_or(GraphError::UnknownRoot(root))?;
        let mut needed = HashSet::from([root]);
        let mut wanted = Vec::new();
        for vertex in graph.vertices().iter().rev() {
            if needed.contains(&vertex.digest) {
                needed.extend(vertex.inputs.iter().map(|i| i.digest));
                wanted.push(vertex);
            }
        }
        let mut resolved: HashMap<Digest, NodeId> = HashMap::with_capacity(wanted.len());
        let mut out = Vec::with_capacity(wanted.len());
        for vertex in wanted.into_iter().rev() {
            let inputs: Vec<_> =
                vertex.inputs.iter().filter_map(|i| Some((*resolved.get(&i.digest)?, i.index))).collect();
            let id = match self.variant(vertex, &inputs) {
                Some(id) => id,
                None => self.insert_node(vertex, &inputs, depth),
            };
            resolved.insert(vertex.digest, id);
            out.push(id);
        }
        Ok(out)
    }

    /// An active vertex that serves. One that runs without cache serves those who would use it, but not the other way
    /// round; it is preferred, since its result is newer (spec section 1).
    fn variant(&self, vertex: &Vertex<O::Op>, inputs: &[(NodeId, u32)]) -> Option<NodeId> {
        let same = |node: &Node<O>| {
            node.inputs.len() == inputs.len()
                && node
                    .inputs
                    .iter()
                    .zip(inputs)
                    .all(|(a, (node, output))| a.node == *node && a.output == *output)
        };
        let all = self.variants.get(&vertex.digest)?;
        let fits = all.iter().filter_map(|id| self.nodes.get(id).map(|n| (*id, n))).filter(|(_, n)| same(n));
        let mut normal = None;
        for (id, node) in fits {
            if node.ignores_cache() {
                return Some(id);
            }
            normal = normal.or((!vertex.ignore_cache).then_some(id));
        }
        normal
    }

    fn insert_node(&mut self, vertex: &Arc<Vertex<O::Op>>, inputs: &[(NodeId, u32)], depth: u32) -> NodeId {
        let id = NodeId(self.next_node);
        self.next_node += 1;
        let twins = self.variants.entry(vertex.digest).or_default();
        let digest = if twins.is_empty() {
            vertex.digest
        } else {
            Digest::sha256(format!("{}-ignorecache", vertex.digest))
        };
        twins.push(id);
        let mut shown_inputs: Vec<Digest> = Vec::with_capacity(inputs.len());
        for (i, (input, _)) in inputs.iter().enumerate() {
            if let Some(below) = self.nodes.get_mut(input) {
                below.consumers.insert((id, i as u32));
                shown_inputs.push(below.info.digest);
            }
        }
        let info =
            VertexInfo { digest, original: vertex.digest, name: vertex.name.clone(), inputs: shown_inputs };
        let input = |(node, output): &(NodeId, u32)| Input {
            node: *node,
            output: *output,
            asked: Level::None,
            ready: Ready::Not(Slot::Idle),
        };
        let node = Node {
            vertex: vertex.clone(),
            info: Arc::new(info),
            shared: Shared::new(digest),
            depth,
            jobs: Default::default(),
            parents: Default::default(),
            followers: Default::default(),
            consumers: Default::default(),
            children: Default::default(),
            inputs: inputs.iter().map(input).collect(),
            outputs: Default::default(),
            map: Map { pages: Vec::new(), deps: Vec::new(), last: false, slot: Slot::Idle },
            exec: Exec::Idle,
            failed: None,
            show: Show::Never,
            wants: Wants::default(),
            queued: false,
            rethink: false,
        };
        self.nodes.insert(id, Box::new(node));
        id
    }

    fn hold_by_job(&mut self, job: JobKey, nodes: &[NodeId]) {
        let Some(state) = self.jobs.get_mut(&job) else { return };
        let subscriber = state.subscriber.clone();
        let mut news = Vec::new();
        for id in nodes {
            let Some(node) = self.nodes.get_mut(id) else { continue };
            if !node.jobs.insert(job) {
                continue;
            }
            state.nodes.push(*id);
            let known = node.shared.subscribers().contains_key(&job);
            node.shared.subscribe(job, subscriber.clone());
            if !known {
                news.push(*id);
            }
        }
        self.show_loaded(&[subscriber], &news);
    }

    fn hold_by_parent(
        &mut self,
        parent: NodeId,
        depth: u32,
        nodes: &[NodeId],
    ) -> Result<(), Error<O::Error>> {
        let Some(node) = self.nodes.get(&parent) else { return Err(Error::Canceled) };
        let (digest, above) = (node.vertex.digest, node.shared.clone());
        if depth > MAX_DEPTH || self.waits_for_any(parent, nodes) {
            return Err(Error::Recursive(digest));
        }
        let watching = above.subscribers();
        for id in nodes {
            let Some(node) = self.nodes.get_mut(id) else { continue };
            if !node.parents.insert(parent) {
                continue;
            }
            let known = node.shared.subscribers();
            node.shared.add_parent(&above);
            let news: Vec<_> =
                watching.iter().filter(|(k, _)| !known.contains_key(k)).map(|(_, s)| s.clone()).collect();
            self.show_loaded(&news, &[*id]);
            if let Some(above) = self.nodes.get_mut(&parent) {
                above.children.insert(*id);
            }
        }
        Ok(())
    }

    /// Whether one of `nodes` waits for the operation of `parent`, or for one that started it: a nested build of them
    /// would never end. Inputs of `nodes` are among `nodes`.
    fn waits_for_any(&self, parent: NodeId, nodes: &[NodeId]) -> bool {
        let nodes: HashSet<&NodeId> = nodes.iter().collect();
        let mut open = vec![parent];
        let mut seen = HashSet::new();
        while let Some(id) = open.pop() {
            let Some(node) = self.nodes.get(&id).filter(|_| seen.insert(id)) else { continue };
            if nodes.contains(&id) || node.followers.iter().any(|f| nodes.contains(f)) {
                return true;
            }
            open.extend(&node.parents);
        }
        false
    }

    /// Frees what nobody holds, from the top down.
    pub(super) fn free_if_unheld(&mut self, id: NodeId) {
        if self.nodes.get(&id).is_none_or(|n| n.is_held()) {
            return;
        }
        let Some(mut node) = self.nodes.remove(&id) else { return };
        self.cancel_all(id, &mut node);
        for (i, input) in node.inputs.iter().enumerate() {
            if let Some(below) = self.nodes.get_mut(&input.node) {
                below.consumers.remove(&(id, i as u32));
                below.output_mut(input.output).demand.change(input.asked, Level::None);
                self.loose.push(input.node);
                self.wake(input.node);
            }
        }
        for child in &node.children {
            if let Some(below) = self.nodes.get_mut(child) {
                below.parents.remove(&id);
                below.shared.remove_parent(&node.shared);
                self.loose.push(*child);
            }
        }
        for build in node.outputs.values().flat_map(|o| &o.waiters) {
            if self.builds.remove(build).is_some() {
                self.actions.push(Action::Answer { build: *build, result: Err(Arc::new(Error::Canceled)) });
            }
        }
        if let Some(twins) = self.variants.get_mut(&node.vertex.digest) {
            twins.retain(|n| *n != id);
            if twins.is_empty() {
                self.variants.remove(&node.vertex.digest);
            }
        }
    }

    /// Stops everything that runs for a node that goes away.
    fn cancel_all(&mut self, id: NodeId, node: &mut Node<O>) {
        let slots = node.inputs.iter().filter_map(|i| match i.ready {
            Ready::Not(slot) => Some(slot),
            Ready::Done(_) => None,
        });
        let mut running: Vec<_> = slots
            .chain([node.map.slot])
            .filter_map(|s| match s {
                Slot::Running(task) => Some(task),
                Slot::Idle | Slot::Stopping => None,
            })
            .collect();
        for output in node.outputs.values() {
            if let Load::Running { task, .. } = &output.load {
                running.push(*task);
            }
        }
        if let Exec::Running(run) = &node.exec {
            running.push(run.task);
        }
        self.actions.extend(running.into_iter().map(Action::Cancel));
        self.leave_exec(id, node);
    }
}
