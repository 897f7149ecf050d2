//! What a node decides: its level, its demands on its inputs, the tasks it wants.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use kiln_digest::Digest;

use super::node::{Exec, Input, Load, Node, NodeId, Output, Ready, Via, Wants};
use super::{Level, Scheduler};
use crate::index::{CacheIndex, KeyId, Link};
use crate::ops::{Dep, Error, Ops};

/// What a node sees of one input.
struct Seen<'a, O: Ops> {
    level: Level,
    /// Keys of the result, when it is there.
    done: Option<&'a [KeyId]>,
    failed: Option<&'a Arc<Error<O::Error>>>,
}

/// What matters of one input for the plan of one output.
struct InputState {
    level: Level,
    matched: bool,
    /// The content is not known yet, but could be.
    content_open: bool,
}

impl InputState {
    /// No further key can come from it, short of its own execution.
    fn exhausted(&self, dep: &Dep) -> bool {
        if dep.content { !self.content_open } else { self.level >= Level::Slow }
    }

    /// More could be learned of it that might lead to a key.
    fn drivable(&self, dep: &Dep) -> bool {
        if dep.content { self.content_open } else { self.level < Level::Complete }
    }
}

impl<O: Ops> Scheduler<O> {
    /// Decides. The order is: failures of inputs, lookups, own level, demands and tasks.
    pub(super) fn step(&mut self, id: NodeId) {
        // Taken out, so that its inputs can be looked at meanwhile; nothing is its own input.
        let Some(mut node) = self.nodes.remove(&id) else { return };
        node.queued = false;
        if node.failed.is_none()
            && let Some(error) = self.failed_input(&node)
        {
            self.fail(id, &mut node, error);
        }
        let changed = if node.failed.is_none() { self.advance(&mut node) } else { false };
        let (asks, wants) = self.plan(&node);
        let mut doomed = false;
        for (input, ask) in node.inputs.iter_mut().zip(asks) {
            doomed |= self.ask(input, ask);
        }
        node.wants = wants;
        self.answer(&mut node);
        if changed {
            self.wake_consumers(&node);
        }
        self.nodes.insert(id, node);
        if doomed {
            self.wake(id);
        }
        self.decided.push_back(id);
    }

    fn see(&self, input: &Input) -> Seen<'_, O> {
        let node = self.nodes.get(&input.node);
        let output = node.and_then(|n| n.outputs.get(&input.output));
        Seen {
            level: output.map_or(Level::None, |o| o.level),
            done: output.and_then(|o| o.done.as_ref()).map(|d| &d.keys[..]),
            failed: node.and_then(|n| n.failed.as_ref()),
        }
    }

    fn failed_input(&self, node: &Node<O>) -> Option<Arc<Error<O::Error>>> {
        let asked = node.inputs.iter().filter(|i| i.asked > Level::None);
        asked.filter_map(|i| self.see(i).failed.cloned()).next()
    }

    /// Changes the demand on an input. Whether that input has failed already: it will not say so again.
    fn ask(&mut self, input: &mut Input, level: Level) -> bool {
        if input.asked == level {
            return false;
        }
        let from = std::mem::replace(&mut input.asked, level);
        let Some(below) = self.nodes.get_mut(&input.node) else { return false };
        below.output_mut(input.output).demand.change(from, level);
        let failed = below.failed.is_some();
        self.wake(input.node);
        failed && level > Level::None
    }

    /// Looks up new keys and raises levels. Whether something that consumers see has changed.
    fn advance(&mut self, node: &mut Node<O>) -> bool {
        let mut changed = false;
        let mut outputs = std::mem::take(&mut node.outputs);
        for (index, output) in &mut outputs {
            if output.demanded() == Level::None {
                continue;
            }
            let keys = output.keys.len();
            if !node.ignores_cache() && node.map.is_known() {
                self.look_up(node, *index, output);
            }
            let level = self.level(node, output).max(output.level);
            changed |= level != output.level || keys != output.keys.len();
            output.level = level;
        }
        node.outputs = outputs;
        changed
    }

    /// Looks up the keys of the inputs that were not looked up yet.
    pub(super) fn look_up(&mut self, node: &Node<O>, index: u32, output: &mut Output<O>) {
        let before = output.keys.len();
        if node.is_root() {
            for page in node.map.pages.iter().skip(output.pages_seen) {
                if let Some(key) = self.index.find_root(page, index).filter(|k| !output.keys.contains(k)) {
                    output.keys.push(key);
                }
            }
            output.pages_seen = node.map.pages.len();
        }
        for (i, input) in node.inputs.iter().enumerate() {
            self.look_up_input(node, index, output, i, input);
        }
        if output.keys.len() != before {
            refresh_records(&self.index, output);
        }
    }

    fn look_up_input(&mut self, node: &Node<O>, index: u32, output: &mut Output<O>, i: usize, input: &Input) {
        let (Some(digest), dep) = (node.map.pages.first(), node.dep(i)) else { return };
        let link =
            |selector: Option<Digest>| Link { input: i as u32, output: index, digest: *digest, selector };
        let below = self.nodes.get(&input.node).and_then(|n| n.outputs.get(&input.output));
        let Some(below) = below else { return };
        let seen = std::mem::replace(&mut output.candidates[i].seen, below.keys.len());
        let mut found = Vec::new();
        for key in below.keys.get(seen..).unwrap_or_default() {
            found.extend(self.index.follow(*key, &link(dep.selector)).map(|k| (k, Via::Definition)));
        }
        if let Ready::Done(Some(content)) = &input.ready
            && !std::mem::replace(&mut output.candidates[i].content_seen, true)
            && let Some(key) = self.index.find_content(content)
        {
            let targets: Vec<_> = self.index.follow(key, &link(None)).collect();
            // The definition is known to give this content: next time the definition alone will do.
            let definitions = below.done.as_ref().map_or(&[][..], |d| &d.keys);
            for (from, to) in definitions.iter().flat_map(|f| targets.iter().map(move |t| (*f, *t))) {
                self.index.add_link(from, link(dep.selector), to);
            }
            found.extend(targets.into_iter().map(|k| (k, Via::Content)));
        }
        for (key, via) in found {
            if let Entry::Vacant(slot) = output.candidates[i].keys.entry(key) {
                slot.insert(via);
                *output.hits.entry(key).or_default() += 1;
                if output.is_matched(&key) && !output.keys.contains(&key) {
                    output.keys.push(key);
                }
            }
        }
    }

    fn input_states(&self, node: &Node<O>, output: &Output<O>) -> Vec<InputState> {
        let state = |(i, input): (usize, &Input)| InputState {
            level: self.see(input).level,
            matched: !output.candidates[i].keys.is_empty(),
            content_open: node.dep(i).content && !matches!(input.ready, Ready::Done(_)),
        };
        node.inputs.iter().enumerate().map(state).collect()
    }

    /// What is known of the output, short of its result.
    fn level(&self, node: &Node<O>, output: &Output<O>) -> Level {
        if node.ignores_cache() {
            // It offers no key, and that is known from the start.
            return Level::Slow;
        }
        if !node.map.is_known() {
            return Level::None;
        }
        if node.is_root() {
            let all = node.map.last || !output.records.is_empty();
            return if all { Level::Slow } else { Level::Fast };
        }
        let states = self.input_states(node, output);
        let inputs = || states.iter().zip(&node.map.deps);
        let hopeless = inputs().any(|(s, d)| s.exhausted(d) && !s.matched);
        if hopeless || inputs().all(|(s, d)| s.exhausted(d)) || is_closed(output, &states) {
            return Level::Slow;
        }
        let fast = states.iter().all(|s| s.level >= Level::Fast);
        let no_fast_key = states.iter().any(|s| s.level >= Level::Fast && !s.matched);
        if fast || no_fast_key { Level::Fast } else { Level::None }
    }

    /// What is demanded of each input, and which tasks are wanted.
    fn plan(&self, node: &Node<O>) -> (Vec<Level>, Wants) {
        let mut asks = vec![Level::None; node.inputs.len()];
        let mut wants = Wants { inputs: vec![false; node.inputs.len()], ..Wants::default() };
        if node.failed.is_some() {
            return (asks, wants);
        }
        for (index, output) in &node.outputs {
            self.plan_output(node, *index, output, &mut asks, &mut wants);
        }
        wants.exec |= !node.followers.is_empty() && matches!(node.exec, Exec::Running(_));
        for (i, input) in node.inputs.iter().enumerate() {
            let dep = node.dep(i);
            let useful = dep.content || dep.prepare;
            let open = matches!(input.ready, Ready::Not(_));
            wants.inputs[i] = useful && open && asks[i] == Level::Complete && self.see(input).done.is_some();
        }
        (asks, wants)
    }

    fn plan_output(
        &self,
        node: &Node<O>,
        index: u32,
        output: &Output<O>,
        asks: &mut [Level],
        wants: &mut Wants,
    ) {
        let demand = output.demanded();
        let under_way = matches!(node.exec, Exec::Running(_) | Exec::Following { .. } | Exec::Done(_));
        if demand == Level::Complete && under_way {
            wants.exec = true;
        } else if demand == Level::Complete
            && (!output.records.is_empty() || matches!(output.load, Load::Running { .. }))
        {
            wants.loads.insert(index);
        } else if demand > output.level {
            let more_pages = node.is_root() && demand > Level::Fast && !node.map.last;
            wants.map |= !node.map.is_known() || more_pages;
            self.plan_inputs(node, output, demand, asks);
            wants.exec |= demand == Level::Complete && self.is_executable(node);
        }
    }

    /// How far each input has to be driven.
    ///
    /// Every input is asked for its fast keys. An input that matches nothing is driven on, alone, up to its content.
    /// Only when each input matches something by itself, but they do not agree or more keys are wanted, the others
    /// follow. When one input matches nothing for good, the results of all are needed.
    ///
    /// As long as the output is below the demand, some input is asked for more than its level, or its preparation is
    /// wanted, or the operation itself: each branch below either drives an input or falls through to the next.
    fn plan_inputs(&self, node: &Node<O>, output: &Output<O>, demand: Level, asks: &mut [Level]) {
        if node.ignores_cache() {
            asks.fill(Level::Complete);
            return;
        }
        let states = self.input_states(node, output);
        let known = node.map.is_known();
        let inputs = || states.iter().zip((0..states.len()).map(|i| node.dep(i)));
        let hopeless = known && inputs().any(|(s, d)| s.exhausted(&d) && !s.matched);
        let waiting = !known || inputs().any(|(s, d)| !s.matched && s.drivable(&d));
        let exhausted = known && inputs().all(|(s, d)| s.exhausted(&d));
        for ((state, dep), ask) in inputs().zip(asks) {
            let level = if hopeless {
                Level::Complete
            } else if state.level < Level::Fast || !known {
                Level::Fast
            } else if (state.matched && waiting) || demand < Level::Slow {
                state.level
            } else if state.level < Level::Slow {
                Level::Slow
            } else if (dep.content && state.content_open) || (exhausted && demand == Level::Complete) {
                Level::Complete
            } else {
                state.level
            };
            *ask = (*ask).max(level);
        }
    }

    /// Everything that the operation needs is there.
    fn is_executable(&self, node: &Node<O>) -> bool {
        let ready = |(i, input): (usize, &Input)| {
            let dep = node.dep(i);
            let prepared = !(dep.content || dep.prepare) || matches!(input.ready, Ready::Done(_));
            prepared && self.see(input).done.is_some()
        };
        node.map.last && node.inputs.iter().enumerate().all(ready)
    }
}

/// The output has results to load, and no key that is still open could come from the inputs that need not be
/// evaluated for it.
fn is_closed<O: Ops>(output: &Output<O>, states: &[InputState]) -> bool {
    let settled = states.iter().all(|s| s.level >= Level::Slow || s.matched);
    if output.records.is_empty() || !settled {
        return false;
    }
    let pending = |s: &InputState| s.content_open && s.level >= Level::Slow;
    let mut open = states.iter().zip(&output.candidates).filter(|(s, _)| !pending(s)).map(|(_, c)| &c.keys);
    let Some(first) = open.next() else { return false };
    let rest: Vec<_> = open.collect();
    !first.keys().any(|k| !output.is_matched(k) && rest.iter().all(|keys| keys.contains_key(k)))
}

/// Collects what can be loaded, newest first.
pub(super) fn refresh_records<O: Ops>(index: &CacheIndex, output: &mut Output<O>) {
    let all = output.keys.iter().flat_map(|k| index.records(*k).iter().map(|r| (*k, r.clone())));
    output.records = all.filter(|(k, r)| !output.tried.contains(&(*k, r.id.clone()))).collect();
    output.records.sort_by_key(|(_, record)| std::cmp::Reverse(record.created_at));
}
