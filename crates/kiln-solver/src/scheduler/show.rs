//! What jobs are told (spec section 6).

use std::sync::Arc;
use std::time::SystemTime;

use kiln_digest::Digest;

use super::node::{Node, NodeId, Output, Ready, Show, Via};
use super::{Action, Note, Scheduler};
use crate::index::KeyId;
use crate::observe::{Decision, InputKeys, Nearest, Outcome, VertexEvent};
use crate::ops::Ops;
use crate::shared::Subscriber;

const CANCELED: &str = "context canceled";

impl<O: Ops> Scheduler<O> {
    fn tell(&mut self, to: &[Subscriber], note: Note) {
        if !to.is_empty() {
            let to = to.iter().map(|s| s.observer.clone()).collect();
            self.actions.push(Action::Tell { to, note });
        }
    }

    /// Vertices are new to these jobs: what they are, and what has happened to them already.
    pub(super) fn show_loaded(&mut self, to: &[Subscriber], nodes: &[NodeId]) {
        for id in nodes {
            let Some(node) = self.nodes.get(id) else { continue };
            let (info, show, children) = (node.info.clone(), node.show.clone(), node.children.clone());
            let vertex = info.digest;
            self.tell(to, Note::Vertex(VertexEvent::Loaded(info)));
            match show {
                Show::Never => {}
                Show::Started { at, cached } => {
                    self.tell(to, Note::Vertex(VertexEvent::Started { vertex, at, cached }));
                }
                Show::Completed { started, at, cached, error } => {
                    self.tell(
                        to,
                        Note::Vertex(VertexEvent::Completed { vertex, started, at, cached, error }),
                    );
                }
            }
            // Nested builds do not nest deep, so this does not either.
            let children: Vec<_> = children.into_iter().collect();
            self.show_loaded(to, &children);
        }
    }

    /// A job leaves a vertex on which work goes on for others: to that job it is cancelled.
    pub(super) fn show_left(&mut self, job: &Subscriber, vertex: Digest, shown: &Show) {
        if let Show::Started { at: started, cached } = *shown {
            let error = (!cached).then(|| CANCELED.to_string());
            let event = VertexEvent::Completed { vertex, started, at: self.now, cached, error };
            self.tell(std::slice::from_ref(job), Note::Vertex(event));
        }
    }

    /// Work on the vertex begins.
    pub(super) fn show_start(&mut self, node: &mut Node<O>, at: SystemTime, cached: bool) {
        let subscribers = node.shared.subscribers();
        for (key, subscriber) in &subscribers {
            let Some(job) = self.jobs.get_mut(key) else { continue };
            // A job knows what is implied once; what has an own history is left alone.
            let mut open: Vec<NodeId> = node.inputs.iter().rev().map(|i| i.node).collect();
            let mut implied = Vec::new();
            while let Some(id) = open.pop() {
                let Some(below) = self.nodes.get(&id).filter(|n| matches!(n.show, Show::Never)) else {
                    continue;
                };
                if job.implied.insert(id) {
                    implied.push(below.info.digest);
                    open.extend(below.inputs.iter().rev().map(|i| i.node));
                }
            }
            for vertex in implied {
                let event = VertexEvent::Completed { vertex, started: at, at, cached: true, error: None };
                self.tell(std::slice::from_ref(subscriber), Note::Vertex(event));
            }
        }
        node.show = Show::Started { at, cached };
        let to: Vec<_> = subscribers.into_values().collect();
        self.tell(&to, Note::Vertex(VertexEvent::Started { vertex: node.info.digest, at, cached }));
    }

    /// Work on the vertex ends. It had begun at `began`, which is shown now if it was not yet.
    pub(super) fn show_end(
        &mut self,
        node: &mut Node<O>,
        began: SystemTime,
        cached: bool,
        error: Option<String>,
    ) {
        if !matches!(node.show, Show::Started { .. }) {
            self.show_start(node, began, cached);
        }
        let Show::Started { at: started, .. } = node.show else { return };
        node.show = Show::Completed { started, at: self.now, cached, error: error.clone() };
        let to: Vec<_> = node.shared.subscribers().into_values().collect();
        let vertex = node.info.digest;
        self.tell(&to, Note::Vertex(VertexEvent::Completed { vertex, started, at: self.now, cached, error }));
    }

    /// Nobody needs the work any more.
    pub(super) fn show_canceled(&mut self, node: &mut Node<O>) {
        if let Show::Started { at, cached } = node.show {
            self.show_end(node, at, cached, Some(CANCELED.to_string()));
        }
    }

    pub(super) fn decide(&mut self, node: &Node<O>, output: u32, outcome: Outcome, began: SystemTime) {
        let inputs = node.inputs.iter().enumerate().map(|(i, input)| {
            let below = self.nodes.get(&input.node).and_then(|n| n.outputs.get(&input.output));
            InputKeys {
                keys: below.map_or(Vec::new(), |o| match &o.done {
                    Some(done) => done.keys.clone(),
                    None => o.keys.clone(),
                }),
                selector: node.dep(i).selector,
                content: match input.ready {
                    Ready::Done(content) => content,
                    Ready::Not(_) => None,
                },
            }
        });
        let decision = Arc::new(Decision {
            vertex: node.vertex.digest,
            output,
            op: node.map.pages.clone(),
            inputs: inputs.collect(),
            outcome,
            ran_for: self.now.duration_since(began).unwrap_or_default(),
        });
        let to: Vec<_> = node.shared.subscribers().into_values().collect();
        self.tell(&to, Note::Decision(decision));
    }

    /// What the nearest earlier run had in common with the one that has to be made.
    pub(super) fn nearest(&self, node: &Node<O>, output: &Output<O>) -> Nearest {
        if !output.keys.is_empty() {
            return Nearest::ResultGone;
        }
        // The order of a hash map must not show: the oldest key among those that match most.
        let best = output.hits.iter().max_by_key(|(key, count)| (**count, std::cmp::Reverse(**key)));
        if let Some((key, _)) = best {
            let inputs = output.candidates.iter().enumerate();
            let differing = inputs.filter(|(_, c)| !c.keys.contains_key(key)).map(|(i, _)| i).collect();
            return Nearest::Inputs { differing };
        }
        let known = node.inputs.iter().enumerate().any(|(i, input)| {
            let below = self.nodes.get(&input.node).and_then(|n| n.outputs.get(&input.output));
            below.is_some_and(|o| o.keys.iter().any(|k| self.index.is_input(*k, i as u32)))
        });
        if known { Nearest::Operation } else { Nearest::Nothing }
    }
}

/// How the inputs led to a key.
pub(super) fn via<O: Ops>(output: &Output<O>, key: KeyId) -> Via {
    let by_content = output.candidates.iter().any(|c| c.keys.get(&key) == Some(&Via::Content));
    if by_content { Via::Content } else { Via::Definition }
}
