//! What tasks came to, and who learns of it.

use std::sync::Arc;
use std::time::SystemTime;

use kiln_digest::Digest;

use super::node::{Done, Exec, Finished, Load, Node, NodeId, Ready, Show, Slot, Via};
use super::show::via;
use super::step::refresh_records;
use super::{Action, Built, CacheKeyInfo, Fault, Level, Outputs, Purpose, Report, Scheduler, TaskId};
use crate::observe::Outcome;
use crate::ops::{CacheMap, Error, Ops};

impl<O: Ops> Scheduler<O> {
    pub(super) fn began(&mut self, task: TaskId) {
        let Some((id, Purpose::Exec)) = self.tasks.get(&task).copied() else { return };
        self.with(id, |s, node| {
            if let Exec::Running(run) = &mut node.exec {
                run.began = s.now;
                s.show_start(node, s.now, false);
            }
        });
    }

    pub(super) fn ended(&mut self, task: TaskId, report: Report<O>) {
        let Some((id, purpose)) = self.tasks.remove(&task) else { return };
        self.with(id, |s, node| match (purpose, report) {
            (Purpose::Map, Report::CacheMap(result)) => s.map_ended(id, node, result),
            (Purpose::Input(i), Report::Input(result)) => s.input_ended(id, node, i, result),
            (Purpose::Exec, Report::Exec(result)) => s.exec_ended(id, node, result),
            (Purpose::Load(output), Report::Load(result)) => s.load_ended(node, output, result),
            _ => {
                s.fault(id, node, Fault::Internal("a task reported something else than it was asked".into()))
            }
        });
        self.wake(id);
    }

    fn map_ended(&mut self, id: NodeId, node: &mut Node<O>, result: Result<CacheMap, Fault<O::Error>>) {
        let stopped = matches!(std::mem::replace(&mut node.map.slot, Slot::Idle), Slot::Stopping);
        let result = result.and_then(|map| check_map(node, map));
        match result {
            Ok(map) => {
                if node.is_root() && !stopped {
                    self.show_end(node, self.now, false, None);
                }
                node.map.pages.push(map.digest);
                node.map.deps = map.deps;
                node.map.last = map.last;
            }
            Err(_) if stopped => {}
            Err(fault) => self.fault(id, node, fault),
        }
    }

    fn input_ended(
        &mut self,
        id: NodeId,
        node: &mut Node<O>,
        i: usize,
        result: Result<Option<Digest>, Fault<O::Error>>,
    ) {
        let Some(input) = node.inputs.get_mut(i) else { return };
        let stopped = matches!(input.ready, Ready::Not(Slot::Stopping));
        input.ready = Ready::Not(Slot::Idle);
        match result {
            Ok(content) => input.ready = Ready::Done(content),
            Err(_) if stopped => {}
            Err(fault) => self.fault(id, node, fault),
        }
    }

    fn load_ended(
        &mut self,
        node: &mut Node<O>,
        index: u32,
        result: Result<Option<O::Result>, Fault<O::Error>>,
    ) {
        let output = node.output_mut(index);
        let Load::Running { key, record, began, .. } = std::mem::replace(&mut output.load, Load::Idle) else {
            return;
        };
        let Ok(Some(result)) = result else {
            output.tried.insert((key, record.id.clone()));
            if matches!(result, Ok(None)) {
                self.index.forget(&record.id);
            }
            refresh_records(&self.index, node.output_mut(index));
            return;
        };
        let outcome = match via(output, key) {
            Via::Definition => Outcome::HitFast(record.id.clone()),
            Via::Content => Outcome::HitContent(record.id.clone()),
        };
        output.done = Some(Done { result, id: record.id, keys: vec![key], cached: true });
        output.level = Level::Complete;
        self.show_end(node, began, true, None);
        self.decide(node, index, outcome, began);
        self.wake_consumers(node);
    }

    fn exec_ended(&mut self, id: NodeId, node: &mut Node<O>, result: Result<Outputs<O>, Fault<O::Error>>) {
        let (run, stopped) = match &node.exec {
            Exec::Running(run) => (run.clone(), false),
            Exec::Stopping(run) => (run.clone(), true),
            Exec::Idle | Exec::Following { .. } | Exec::Done(_) => return,
        };
        match result {
            Ok(results) => {
                self.show_end(node, run.began, false, None);
                let ignored = node.ignores_cache();
                let outcome = if ignored { Outcome::Ignored } else { Outcome::Miss(run.nearest) };
                let first = node.outputs.iter().find(|(_, o)| o.done.is_none()).map_or(0, |(i, _)| *i);
                self.decide(node, first, outcome, run.began);
                let finished = Finished { results, at: self.now, keys: run.keys };
                node.exec = Exec::Done(finished.clone());
                self.commit_all(id, node);
                self.hand_over(id, node, &finished);
            }
            // It had been cancelled, whatever it says; if it is wanted again meanwhile, it is started again.
            Err(_) if stopped => self.leave_exec(id, node),
            Err(fault) => {
                let error = self.show_fault(node, run.began, fault);
                self.fail(id, node, error);
            }
        }
    }

    /// Gives the results to those who follow.
    fn hand_over(&mut self, id: NodeId, node: &mut Node<O>, finished: &Finished<O>) {
        self.loose.push(id);
        for follower in std::mem::take(&mut node.followers) {
            let digest = node.vertex.digest;
            self.with(follower, |s, other| {
                node.shared.remove_follower(&other.shared);
                if let Exec::Following { keys, since, .. } = &other.exec {
                    let (keys, since) = (keys.clone(), *since);
                    s.take_over(follower, other, Finished { keys, ..finished.clone() }, digest, since, false);
                }
            });
            self.wake(follower);
        }
    }

    /// Saves the results of outputs that somebody has asked for, and makes them known.
    pub(super) fn commit_all(&mut self, id: NodeId, node: &mut Node<O>) {
        let open: Vec<u32> = node.outputs.iter().filter(|(_, o)| o.done.is_none()).map(|(i, _)| *i).collect();
        for index in open {
            let Exec::Done(finished) = &node.exec else { return };
            let at = finished.at;
            let Some((result, name)) = finished.results.get(index as usize).cloned() else {
                let n = finished.results.len();
                let text = format!("the operation gave {n} outputs, output {index} is needed");
                return self.fault(id, node, Fault::Internal(text));
            };
            let keys = self.own_keys(node, index);
            for key in &keys {
                self.index.save(*key, name.clone(), at);
            }
            let ignored = node.ignores_cache();
            let output = node.output_mut(index);
            if !ignored {
                let new: Vec<_> = keys.iter().copied().filter(|k| !output.keys.contains(k)).collect();
                output.keys.extend(new);
            }
            output.done = Some(Done { result, id: name, keys, cached: false });
            output.level = Level::Complete;
        }
        node.rethink = true;
        self.wake_consumers(node);
    }

    /// Shows the fault as the end of the vertex.
    fn show_fault(
        &mut self,
        node: &mut Node<O>,
        began: SystemTime,
        fault: Fault<O::Error>,
    ) -> Arc<Error<O::Error>> {
        let vertex = node.vertex.digest;
        let error = match fault {
            Fault::Op(error) => Error::Op { vertex, error },
            Fault::Internal(message) => Error::Internal { vertex, message },
            Fault::Dropped => Error::Canceled,
        };
        self.show_end(node, began, false, Some(error.to_string()));
        Arc::new(error)
    }

    fn fault(&mut self, id: NodeId, node: &mut Node<O>, fault: Fault<O::Error>) {
        let error = self.show_fault(node, self.now, fault);
        self.fail(id, node, error);
    }

    /// All who wait for the node fail with it.
    pub(super) fn fail(&mut self, id: NodeId, node: &mut Node<O>, error: Arc<Error<O::Error>>) {
        if !matches!(node.exec, Exec::Running(_) | Exec::Stopping(_)) || !self.is_task(node) {
            self.leave_exec(id, node);
        }
        self.loose.push(id);
        for follower in std::mem::take(&mut node.followers) {
            self.with(follower, |s, other| {
                node.shared.remove_follower(&other.shared);
                if matches!(other.show, Show::Started { .. }) {
                    s.show_end(other, s.now, false, Some(error.to_string()));
                }
                s.fail(follower, other, error.clone());
            });
            self.wake(follower);
        }
        node.failed = Some(error);
        self.wake_consumers(node);
    }

    /// Whether the operation of the node is still under way.
    fn is_task(&self, node: &Node<O>) -> bool {
        match &node.exec {
            Exec::Running(run) | Exec::Stopping(run) => self.tasks.contains_key(&run.task),
            Exec::Idle | Exec::Following { .. } | Exec::Done(_) => false,
        }
    }

    /// Answers those who wait for the node from outside.
    pub(super) fn answer(&mut self, node: &mut Node<O>) {
        for output in node.outputs.values_mut().filter(|o| !o.waiters.is_empty()) {
            let result = match (&node.failed, &output.done) {
                (Some(error), _) => Err(error.clone()),
                (None, Some(done)) => Ok(Built {
                    result: done.result.clone(),
                    id: done.id.clone(),
                    keys: CacheKeyInfo { keys: done.keys.clone(), cached: done.cached },
                }),
                (None, None) => continue,
            };
            for build in std::mem::take(&mut output.waiters) {
                output.demand.change(Level::Complete, Level::None);
                self.builds.remove(&build);
                self.actions.push(Action::Answer { build, result: result.clone() });
            }
        }
    }
}

fn check_map<O: Ops>(node: &Node<O>, map: CacheMap) -> Result<CacheMap, Fault<O::Error>> {
    let (have, need) = (map.deps.len(), node.inputs.len());
    if have != need {
        return Err(Fault::Internal(format!("the cache key describes {have} inputs, the vertex has {need}")));
    }
    if !map.last && need > 0 {
        return Err(Fault::Internal("only operations without inputs may have several cache keys".into()));
    }
    Ok(map)
}
