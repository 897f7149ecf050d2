//! The state of one active vertex.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use kiln_digest::Digest;

use super::{BuildId, JobKey, Level, Outputs, TaskId};
use crate::graph::{ResultId, Vertex};
use crate::index::{KeyId, Record};
use crate::observe::{Nearest, VertexInfo};
use crate::ops::{Dep, Error, Ops};
use crate::shared::Shared;

/// Names a node; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NodeId(pub(super) u64);

/// Where a piece of work stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Idle,
    Running(TaskId),
    /// Cancelled, but not ended yet. It is not started again before it has ended.
    Stopping,
}

pub(super) struct Node<O: Ops> {
    pub(super) vertex: Arc<Vertex<O::Op>>,
    pub(super) info: Arc<VertexInfo>,
    pub(super) shared: Arc<Shared>,
    /// How deep in nested builds.
    pub(super) depth: u32,

    // Who holds it. It is freed when nobody does.
    pub(super) jobs: BTreeSet<JobKey>,
    pub(super) parents: BTreeSet<NodeId>,
    pub(super) followers: BTreeSet<NodeId>,
    /// With the position of this node among their inputs.
    pub(super) consumers: BTreeSet<(NodeId, u32)>,

    /// Vertices of nested builds of this one's operation.
    pub(super) children: BTreeSet<NodeId>,
    pub(super) inputs: Vec<Input>,
    pub(super) outputs: BTreeMap<u32, Output<O>>,
    pub(super) map: Map,
    pub(super) exec: Exec<O>,
    pub(super) failed: Option<Arc<Error<O::Error>>>,
    pub(super) show: Show,
    pub(super) wants: Wants,
    /// It will decide anew.
    pub(super) queued: bool,
    /// It has to decide anew once it is back in its place.
    pub(super) rethink: bool,
}

/// Another node as input.
pub(super) struct Input {
    pub(super) node: NodeId,
    pub(super) output: u32,
    /// The demand that this node puts on it.
    pub(super) asked: Level,
    pub(super) ready: Ready,
}

/// Preparation of an input whose result is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    Not(Slot),
    /// With the digest of its content, if the operation uses that.
    Done(Option<Digest>),
}

/// The cache key of the operation itself.
pub(super) struct Map {
    pub(super) pages: Vec<Digest>,
    pub(super) deps: Vec<Dep>,
    pub(super) last: bool,
    pub(super) slot: Slot,
}

impl Map {
    pub(super) fn is_known(&self) -> bool {
        !self.pages.is_empty()
    }
}

/// The operation itself.
pub(super) enum Exec<O: Ops> {
    Idle,
    Running(Run),
    /// Cancelled, but not ended yet.
    Stopping(Run),
    /// Another vertex with the same key is running it.
    Following {
        leader: NodeId,
        keys: Vec<KeyId>,
        since: SystemTime,
    },
    Done(Finished<O>),
}

/// An operation under way.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) task: TaskId,
    /// Under which it is registered as running.
    pub(super) keys: Vec<KeyId>,
    pub(super) began: SystemTime,
    pub(super) nearest: Nearest,
}

/// An operation that came to results.
pub(super) struct Finished<O: Ops> {
    pub(super) results: Outputs<O>,
    pub(super) at: SystemTime,
    pub(super) keys: Vec<KeyId>,
}

impl<O: Ops> Clone for Finished<O> {
    fn clone(&self) -> Self {
        Self { results: self.results.clone(), at: self.at, keys: self.keys.clone() }
    }
}

/// One output.
pub(super) struct Output<O: Ops> {
    pub(super) level: Level,
    pub(super) demand: Demand,
    pub(super) waiters: Vec<BuildId>,
    /// Keys that consumers may look up: those that the index knows.
    pub(super) keys: Vec<KeyId>,
    /// How many pages of an operation without inputs were looked up.
    pub(super) pages_seen: usize,
    /// Per input, which keys of this output it leads to.
    pub(super) candidates: Vec<Candidates>,
    /// For each candidate, of how many inputs it is one.
    pub(super) hits: HashMap<KeyId, usize>,
    /// Results that can be loaded, best first.
    pub(super) records: Vec<(KeyId, Record)>,
    /// Results that could not be.
    pub(super) tried: HashSet<(KeyId, ResultId)>,
    pub(super) load: Load,
    pub(super) done: Option<Done<O>>,
}

/// A result being loaded.
pub(super) enum Load {
    Idle,
    Running {
        task: TaskId,
        key: KeyId,
        record: Record,
        began: SystemTime,
    },
    /// Cancelled, but not ended yet.
    Stopping,
}

pub(super) struct Done<O: Ops> {
    pub(super) result: O::Result,
    pub(super) id: ResultId,
    /// Not necessarily offered to consumers for lookups: a vertex that ignores the cache has keys, too.
    pub(super) keys: Vec<KeyId>,
    pub(super) cached: bool,
}

/// The keys of an output that one input leads to.
#[derive(Default)]
pub(super) struct Candidates {
    pub(super) keys: HashMap<KeyId, Via>,
    /// How many keys of the input were looked up.
    pub(super) seen: usize,
    pub(super) content_seen: bool,
}

/// How an input led to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    Definition,
    Content,
}

/// How many demand which level.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demand {
    fast: u32,
    slow: u32,
    complete: u32,
}

impl Demand {
    pub(super) fn change(&mut self, from: Level, to: Level) {
        if let Some(n) = self.count(from) {
            *n = n.saturating_sub(1);
        }
        if let Some(n) = self.count(to) {
            *n += 1;
        }
    }

    fn count(&mut self, level: Level) -> Option<&mut u32> {
        match level {
            Level::None => None,
            Level::Fast => Some(&mut self.fast),
            Level::Slow => Some(&mut self.slow),
            Level::Complete => Some(&mut self.complete),
        }
    }

    pub(super) fn level(&self) -> Level {
        match (self.fast, self.slow, self.complete) {
            (_, _, 1..) => Level::Complete,
            (_, 1.., _) => Level::Slow,
            (1.., _, _) => Level::Fast,
            _ => Level::None,
        }
    }
}

/// How the vertex is shown.
#[derive(Clone, Debug)]
pub(super) enum Show {
    Never,
    Started { at: SystemTime, cached: bool },
    Completed { started: SystemTime, at: SystemTime, cached: bool, error: Option<String> },
}

/// Tasks that the node wants to run, as last decided.
#[derive(Clone, Debug, Default)]
pub(super) struct Wants {
    pub(super) map: bool,
    pub(super) inputs: Vec<bool>,
    pub(super) exec: bool,
    pub(super) loads: BTreeSet<u32>,
}

impl<O: Ops> Node<O> {
    pub(super) fn is_held(&self) -> bool {
        !(self.jobs.is_empty()
            && self.parents.is_empty()
            && self.followers.is_empty()
            && self.consumers.is_empty())
    }

    pub(super) fn is_root(&self) -> bool {
        self.inputs.is_empty()
    }

    pub(super) fn ignores_cache(&self) -> bool {
        self.vertex.ignore_cache
    }

    /// The output, made known if it is not.
    pub(super) fn output_mut(&mut self, index: u32) -> &mut Output<O> {
        let inputs = self.inputs.len();
        self.outputs.entry(index).or_insert_with(|| Output {
            level: Level::None,
            demand: Demand::default(),
            waiters: Vec::new(),
            keys: Vec::new(),
            pages_seen: 0,
            candidates: (0..inputs).map(|_| Candidates::default()).collect(),
            hits: HashMap::new(),
            records: Vec::new(),
            tried: HashSet::new(),
            load: Load::Idle,
            done: None,
        })
    }

    /// The dependency rules of an input; the default as long as they are not known.
    pub(super) fn dep(&self, input: usize) -> Dep {
        self.map.deps.get(input).cloned().unwrap_or_default()
    }
}

impl<O: Ops> Output<O> {
    /// The keys that all inputs lead to.
    pub(super) fn is_matched(&self, key: &KeyId) -> bool {
        self.hits.get(key) == Some(&self.candidates.len())
    }

    pub(super) fn demanded(&self) -> Level {
        if self.done.is_some() { Level::None } else { self.demand.level() }
    }
}
