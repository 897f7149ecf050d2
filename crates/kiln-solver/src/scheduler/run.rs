//! Tasks: started when wanted, cancelled when not.

use std::time::SystemTime;

use kiln_digest::Digest;

use super::node::{Exec, Finished, Load, Node, NodeId, Output, Ready, Run, Slot};
use super::step::refresh_records;
use super::{Action, Level, Purpose, Scheduler, Task, TaskId, Work};
use crate::index::{InputIdentity, KeyId};
use crate::observe::Outcome;
use crate::ops::Ops;

/// What to do about a slot.
enum Turn {
    Start,
    Stop(TaskId),
    Leave,
}

fn turn(wanted: bool, slot: Slot) -> Turn {
    match (wanted, slot) {
        (true, Slot::Idle) => Turn::Start,
        (false, Slot::Running(task)) => Turn::Stop(task),
        _ => Turn::Leave,
    }
}

impl<O: Ops> Scheduler<O> {
    /// Works on a node while the others stay within reach.
    pub(super) fn with(&mut self, id: NodeId, work: impl FnOnce(&mut Self, &mut Node<O>)) {
        if let Some(mut node) = self.nodes.remove(&id) {
            work(self, &mut node);
            let rethink = std::mem::take(&mut node.rethink);
            self.nodes.insert(id, node);
            if rethink {
                self.wake(id);
            }
        }
    }

    /// Brings the tasks of a node in line with what it wants.
    pub(super) fn reconcile(&mut self, id: NodeId) {
        self.with(id, |s, node| {
            s.reconcile_map(id, node);
            for i in 0..node.inputs.len() {
                s.reconcile_input(id, node, i);
            }
            let outputs: Vec<u32> = node.outputs.keys().copied().collect();
            for output in outputs {
                s.reconcile_load(id, node, output);
            }
            s.reconcile_exec(id, node);
        });
    }

    fn reconcile_map(&mut self, id: NodeId, node: &mut Node<O>) {
        match turn(node.wants.map, node.map.slot) {
            Turn::Start => {
                let page = node.map.pages.len();
                node.map.slot = Slot::Running(self.start(id, node, Purpose::Map, Work::CacheMap { page }));
                if node.is_root() {
                    self.show_start(node, self.now, false);
                }
            }
            Turn::Stop(task) => {
                node.map.slot = Slot::Stopping;
                self.cancel(node, task);
            }
            Turn::Leave => {}
        }
    }

    fn reconcile_input(&mut self, id: NodeId, node: &mut Node<O>, i: usize) {
        let Ready::Not(slot) = node.inputs[i].ready else { return };
        let wanted = node.wants.inputs.get(i).copied().unwrap_or_default();
        match turn(wanted, slot) {
            Turn::Start => {
                let Some(result) = self.input_result(node, i) else { return };
                let dep = node.dep(i);
                let work = Work::Input { input: i, result, prepare: dep.prepare, content: dep.content };
                let task = self.start(id, node, Purpose::Input(i), work);
                node.inputs[i].ready = Ready::Not(Slot::Running(task));
            }
            Turn::Stop(task) => {
                node.inputs[i].ready = Ready::Not(Slot::Stopping);
                self.actions.push(Action::Cancel(task));
            }
            Turn::Leave => {}
        }
    }

    fn reconcile_load(&mut self, id: NodeId, node: &mut Node<O>, index: u32) {
        let wanted = node.wants.loads.contains(&index);
        let Some(output) = node.outputs.get_mut(&index) else { return };
        match &output.load {
            Load::Idle if wanted => {
                let Some((key, record)) = output.records.first().cloned() else { return };
                let work = Work::Load { record: record.id.clone() };
                let task = self.start(id, node, Purpose::Load(index), work);
                node.output_mut(index).load = Load::Running { task, key, record, began: self.now };
            }
            Load::Running { task, .. } if !wanted => {
                let task = *task;
                output.load = Load::Stopping;
                self.actions.push(Action::Cancel(task));
            }
            _ => {}
        }
    }

    fn reconcile_exec(&mut self, id: NodeId, node: &mut Node<O>) {
        match (&node.exec, node.wants.exec) {
            (Exec::Idle, true) => self.execute(id, node),
            (Exec::Done(_), true) => self.commit_all(id, node),
            (Exec::Running(run), false) => {
                let run = run.clone();
                self.cancel(node, run.task);
                node.exec = Exec::Stopping(run);
            }
            (Exec::Following { .. }, false) => {
                self.leave_exec(id, node);
                self.show_canceled(node);
            }
            _ => {}
        }
    }

    fn start(&mut self, id: NodeId, node: &Node<O>, purpose: Purpose, work: Work<O>) -> TaskId {
        let task = TaskId(self.next_task);
        self.next_task += 1;
        self.tasks.insert(task, (id, purpose));
        let inputs =
            node.inputs.iter().filter_map(|i| self.nodes.get(&i.node)).map(|n| n.shared.clone()).collect();
        self.actions.push(Action::Start(Box::new(Task {
            id: task,
            work,
            vertex: node.vertex.clone(),
            shown_as: node.info.digest,
            ignore_cache: node.ignores_cache(),
            shared: node.shared.clone(),
            inputs,
        })));
        task
    }

    fn cancel(&mut self, node: &mut Node<O>, task: TaskId) {
        self.actions.push(Action::Cancel(task));
        self.show_canceled(node);
    }

    fn input_result(&self, node: &Node<O>, i: usize) -> Option<O::Result> {
        let input = node.inputs.get(i)?;
        let output = self.nodes.get(&input.node)?.outputs.get(&input.output)?;
        output.done.as_ref().map(|d| d.result.clone())
    }

    fn identities(&self, node: &Node<O>) -> Vec<InputIdentity> {
        let identity = |(i, input): (usize, &super::node::Input)| {
            let below = self.nodes.get(&input.node).and_then(|n| n.outputs.get(&input.output));
            InputIdentity {
                keys: below.and_then(|o| o.done.as_ref()).map_or(Vec::new(), |d| d.keys.clone()),
                selector: node.dep(i).selector,
                content: match input.ready {
                    Ready::Done(content) => content,
                    Ready::Not(_) => None,
                },
            }
        };
        node.inputs.iter().enumerate().map(identity).collect()
    }

    /// The keys of an output whose inputs are all there.
    pub(super) fn own_keys(&mut self, node: &Node<O>, output: u32) -> Vec<KeyId> {
        if node.is_root() {
            return node.map.pages.iter().map(|p| self.index.intern_root(p, output)).collect();
        }
        let Some(op) = node.map.pages.first().copied() else { return Vec::new() };
        let inputs = self.identities(node);
        vec![self.index.reserve(op, output, &inputs)]
    }

    /// Runs the operation, or joins another vertex that runs the same.
    fn execute(&mut self, id: NodeId, node: &mut Node<O>) {
        let keys = self.own_keys(node, 0);
        if let Some(leader) = self.leader(id, node, &keys) {
            self.register(id, &keys);
            return self.join(id, node, leader, keys);
        }
        if !node.ignores_cache() && self.look_up_again(node) {
            // Somebody came to a result after this vertex had looked.
            keys.iter().for_each(|k| self.release(*k));
            node.rethink = true;
            return;
        }
        let results: Option<Vec<_>> = (0..node.inputs.len()).map(|i| self.input_result(node, i)).collect();
        let Some(inputs) = results else { return };
        self.register(id, &keys);
        let first = node.outputs.values().find(|o| o.demanded() == Level::Complete);
        let nearest = first.map_or(crate::observe::Nearest::Nothing, |o| self.nearest(node, o));
        let task = self.start(id, node, Purpose::Exec, Work::Exec { inputs });
        node.exec = Exec::Running(Run { task, keys, began: self.now, nearest });
    }

    fn register(&mut self, id: NodeId, keys: &[KeyId]) {
        for key in keys {
            self.running.entry(*key).or_default().push(id);
        }
    }

    /// Another vertex whose operation has the same key and may stand for this one's. One that used the cache does not
    /// stand for one that must not. One that waits for nested builds is not joined: they may come to wait for this.
    fn leader(&self, id: NodeId, node: &Node<O>, keys: &[KeyId]) -> Option<NodeId> {
        let all = keys.iter().filter_map(|k| self.running.get(k)).flatten().copied();
        all.filter(|l| *l != id).find(|l| {
            self.nodes.get(l).is_some_and(|leader| {
                let there = match leader.exec {
                    Exec::Running(_) => leader.children.is_empty(),
                    Exec::Done(_) => true,
                    Exec::Idle | Exec::Stopping(_) | Exec::Following { .. } => false,
                };
                there && (leader.ignores_cache() || !node.ignores_cache())
            })
        })
    }

    fn join(&mut self, id: NodeId, node: &mut Node<O>, leader: NodeId, keys: Vec<KeyId>) {
        let Some(other) = self.nodes.get_mut(&leader) else { return };
        match &other.exec {
            Exec::Done(finished) => {
                let finished = Finished { keys, ..finished.clone() };
                let digest = other.vertex.digest;
                self.take_over(id, node, finished, digest, self.now, true);
            }
            _ => {
                other.followers.insert(id);
                other.shared.add_follower(&node.shared);
                node.exec = Exec::Following { leader, keys, since: self.now };
                self.show_start(node, self.now, false);
            }
        }
    }

    /// The results of another vertex become this one's.
    pub(super) fn take_over(
        &mut self,
        id: NodeId,
        node: &mut Node<O>,
        finished: Finished<O>,
        leader: Digest,
        since: SystemTime,
        cached: bool,
    ) {
        self.show_end(node, since, cached, None);
        node.exec = Exec::Done(finished);
        self.commit_all(id, node);
        let outputs: Vec<u32> = node.outputs.keys().copied().collect();
        for output in outputs {
            self.decide(node, output, Outcome::Shared(leader), since);
        }
    }

    /// Looks everything up anew, since others may have saved results meanwhile. Whether there is something to load.
    fn look_up_again(&mut self, node: &mut Node<O>) -> bool {
        let mut outputs = std::mem::take(&mut node.outputs);
        let mut found = false;
        let without = |o: &Output<O>| o.demanded() == Level::Complete && o.records.is_empty();
        for (index, output) in outputs.iter_mut().filter(|(_, o)| without(o)) {
            output.pages_seen = 0;
            for candidates in &mut output.candidates {
                candidates.seen = 0;
                candidates.content_seen = false;
            }
            self.look_up(node, *index, output);
            refresh_records(&self.index, output);
            found |= !output.records.is_empty();
        }
        node.outputs = outputs;
        found
    }

    /// Forgets that this node runs, ran or follows its operation.
    pub(super) fn leave_exec(&mut self, id: NodeId, node: &mut Node<O>) {
        let keys = match std::mem::replace(&mut node.exec, Exec::Idle) {
            Exec::Idle => return,
            Exec::Running(run) | Exec::Stopping(run) => run.keys,
            Exec::Done(finished) => finished.keys,
            Exec::Following { leader, keys, .. } => {
                if let Some(other) = self.nodes.get_mut(&leader) {
                    other.followers.remove(&id);
                    other.shared.remove_follower(&node.shared);
                    self.loose.push(leader);
                    self.wake(leader);
                }
                keys
            }
        };
        for key in keys {
            if let Some(nodes) = self.running.get_mut(&key) {
                nodes.retain(|n| *n != id);
                if nodes.is_empty() {
                    self.running.remove(&key);
                }
            }
            self.release(key);
        }
    }

    /// Drops a key that came to nothing, unless somebody is still at work on it.
    fn release(&mut self, key: KeyId) {
        if !self.running.contains_key(&key) {
            self.index.release(key);
        }
    }
}
