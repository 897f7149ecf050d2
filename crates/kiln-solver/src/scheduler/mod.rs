//! The state machine: events in, actions out.
//!
//! # How it works
//!
//! Each *node* is an active vertex, each of its *outputs* has a [`Level`]: what is known of it. Who needs an output
//! puts a *demand* on it, also a level. A node whose demand is above its level decides from what it can see (its own
//! state and the levels and keys of its inputs) which tasks it wants and what it demands of its inputs (`step.rs`).
//! When something changes, those who look at it decide again; when all have decided, wanted tasks are started and
//! tasks that nobody wants are cancelled (`run.rs`). Nothing is remembered about requests, so nothing can be lost
//! when they come and go: the decision of a node is a function of what is true now.
//!
//! # Why it ends
//!
//! Levels only rise and key sets only grow while a node lives. A node with a demand above its level either has a task
//! running, or demands of an input more than that input's level (shown in `step.rs`); inputs are acyclic, so somewhere
//! below a task is running. Two vertices with equal keys run once: the second follows the first only while the first
//! one's operation is executing, when it waits for nothing.

mod end;
mod event;
mod load;
mod node;
mod run;
mod show;
mod step;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::SystemTime;

use kiln_digest::Digest;

use crate::index::{CacheIndex, KeyId};
use crate::ops::Ops;
use crate::shared::Subscriber;
pub use event::{
    Action, BuildId, Built, CacheKeyInfo, Event, Fault, JobKey, Note, Outputs, Owner, Report, Task, TaskId,
    Work,
};
use node::{Node, NodeId};

/// What is known of an output, or demanded of it (spec section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Level {
    /// Nothing.
    #[default]
    None,
    /// All keys that follow from definitions.
    Fast,
    /// Also the keys that follow from the content of inputs.
    Slow,
    /// The result.
    Complete,
}

/// What a task is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Map,
    Input(usize),
    Exec,
    Load(u32),
}

struct JobState {
    subscriber: Subscriber,
    nodes: Vec<NodeId>,
    /// Vertices that this job was told to be cached because something above them started.
    implied: HashSet<NodeId>,
}

struct Wait {
    node: NodeId,
    output: u32,
    owner: Owner,
}

/// See the module.
pub struct Scheduler<O: Ops> {
    index: CacheIndex,
    jobs: HashMap<JobKey, JobState>,
    builds: BTreeMap<BuildId, Wait>,
    nodes: HashMap<NodeId, Box<Node<O>>>,
    /// Active vertices by digest: usually one, more when some run without cache.
    variants: HashMap<Digest, Vec<NodeId>>,
    tasks: HashMap<TaskId, (NodeId, Purpose)>,
    /// Who runs, or has run, the operation of a key.
    running: HashMap<KeyId, Vec<NodeId>>,
    /// To decide anew.
    queue: VecDeque<NodeId>,
    /// Have decided; their tasks are to be brought in line.
    decided: VecDeque<NodeId>,
    /// May have lost the last one who held them.
    loose: Vec<NodeId>,
    next_node: u64,
    next_task: u64,
    now: SystemTime,
    actions: Vec<Action<O>>,
    steps: u64,
}

impl<O: Ops> Scheduler<O> {
    /// A scheduler over what earlier processes knew.
    pub fn new(index: CacheIndex) -> Self {
        Self {
            index,
            jobs: HashMap::new(),
            builds: BTreeMap::new(),
            nodes: HashMap::new(),
            variants: HashMap::new(),
            tasks: HashMap::new(),
            running: HashMap::new(),
            queue: VecDeque::new(),
            decided: VecDeque::new(),
            loose: Vec::new(),
            next_node: 0,
            next_task: 0,
            now: SystemTime::UNIX_EPOCH,
            actions: Vec::new(),
            steps: 0,
        }
    }

    /// Takes one event, which happened at `now`, and says what to do.
    pub fn handle(&mut self, now: SystemTime, event: Event<O>) -> Vec<Action<O>> {
        self.now = now;
        match event {
            Event::JobStarted { job, id, observer } => self.job_started(job, id, observer),
            Event::JobEnded { job } => self.job_ended(job),
            Event::Build { build, owner, graph, edge } => self.build(build, owner, &graph, edge),
            Event::Abandoned { build } => self.abandoned(build),
            Event::Began { task } => self.began(task),
            Event::Ended { task, report } => self.ended(task, report),
            Event::Forget { results } => results.iter().for_each(|r| self.index.forget(r)),
        }
        self.settle();
        let changes = self.index.take_changes();
        if !changes.is_empty() {
            self.actions.push(Action::Journal(changes));
        }
        std::mem::take(&mut self.actions)
    }

    /// The cache index, to look at.
    pub fn index(&self) -> &CacheIndex {
        &self.index
    }

    /// How many vertices are active; 0 when no job is left.
    pub fn active(&self) -> usize {
        self.nodes.len()
    }

    /// How many decisions were made so far: the measure of the scheduler's own work.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Lets everyone decide who has a reason to, until nothing changes any more.
    fn settle(&mut self) {
        let begin = self.steps;
        loop {
            if let Some(id) = self.queue.pop_front() {
                self.steps += 1;
                debug_assert!(
                    self.steps - begin < 10_000 + 1_000 * self.nodes.len() as u64,
                    "the scheduler runs in circles"
                );
                self.step(id);
            } else if let Some(id) = self.decided.pop_front() {
                self.reconcile(id);
            } else if let Some(id) = self.loose.pop() {
                self.free_if_unheld(id);
            } else {
                return;
            }
        }
    }

    /// Has the node decide anew.
    fn wake(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id)
            && !std::mem::replace(&mut node.queued, true)
        {
            self.queue.push_back(id);
        }
    }

    /// Has all that look at the node decide anew.
    fn wake_consumers(&mut self, node: &Node<O>) {
        for (consumer, input) in &node.consumers {
            let watching = |n: &Node<O>| n.inputs.get(*input as usize).is_some_and(|i| i.asked > Level::None);
            if self.nodes.get(consumer).is_some_and(|n| watching(n)) {
                self.wake(*consumer);
            }
        }
    }
}
