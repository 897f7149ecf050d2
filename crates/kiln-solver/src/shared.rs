//! The live link between a vertex and the jobs that wait for it.
//!
//! Written by the scheduler, read by operations on other threads. The locks are held only to copy small lists.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use kiln_digest::Digest;

use crate::graph::JobId;
use crate::observe::{Observer, OpProgress, Stream};
use crate::scheduler::JobKey;

/// One job that watches a vertex.
#[derive(Clone)]
pub(crate) struct Subscriber {
    pub(crate) id: JobId,
    pub(crate) observer: Arc<dyn Observer>,
}

/// What is shared of one vertex.
pub(crate) struct Shared {
    vertex: Digest,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    jobs: BTreeMap<JobKey, Subscriber>,
    /// Vertices whose operation started this one as a nested build: their jobs wait for this one too.
    parents: Vec<Arc<Shared>>,
    /// Vertices that take over the result of this one: they show its progress as theirs.
    followers: Vec<Arc<Shared>>,
}

impl Shared {
    pub(crate) fn new(vertex: Digest) -> Arc<Self> {
        Arc::new(Self { vertex, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the job was not yet there.
    pub(crate) fn subscribe(&self, job: JobKey, subscriber: Subscriber) -> bool {
        self.state().jobs.insert(job, subscriber).is_none()
    }

    pub(crate) fn unsubscribe(&self, job: JobKey) {
        self.state().jobs.remove(&job);
    }

    pub(crate) fn add_parent(&self, parent: &Arc<Shared>) {
        let mut state = self.state();
        if !state.parents.iter().any(|p| Arc::ptr_eq(p, parent)) {
            state.parents.push(parent.clone());
        }
    }

    pub(crate) fn remove_parent(&self, parent: &Arc<Shared>) {
        self.state().parents.retain(|p| !Arc::ptr_eq(p, parent));
    }

    pub(crate) fn add_follower(&self, follower: &Arc<Shared>) {
        self.state().followers.push(follower.clone());
    }

    pub(crate) fn remove_follower(&self, follower: &Arc<Shared>) {
        self.state().followers.retain(|f| !Arc::ptr_eq(f, follower));
    }

    /// The jobs that see this vertex as their own, in the order in which they came.
    pub(crate) fn subscribers(&self) -> BTreeMap<JobKey, Subscriber> {
        let state = self.state();
        if state.parents.is_empty() {
            return state.jobs.clone();
        }
        let mut all = state.jobs.clone();
        let mut open: Vec<Arc<Shared>> = state.parents.clone();
        drop(state);
        while let Some(parent) = open.pop() {
            let state = parent.state();
            all.extend(state.jobs.iter().map(|(k, s)| (*k, s.clone())));
            open.extend(state.parents.iter().cloned());
        }
        all
    }

    fn all_jobs(&self) -> BTreeMap<JobKey, JobId> {
        let mut all: BTreeMap<_, _> = self.subscribers().into_iter().map(|(k, s)| (k, s.id)).collect();
        let followers = self.state().followers.clone();
        for follower in followers {
            all.extend(follower.subscribers().into_iter().map(|(k, s)| (k, s.id)));
        }
        all
    }

    fn report(&self, progress: &OpProgress) {
        for subscriber in self.subscribers().values() {
            subscriber.observer.progress(&self.vertex, progress);
        }
        let followers = self.state().followers.clone();
        for follower in followers {
            for subscriber in follower.subscribers().values() {
                subscriber.observer.progress(&follower.vertex, progress);
            }
        }
    }
}

/// The jobs that wait for a vertex, at the moment of asking.
#[derive(Clone)]
pub struct JobSet(pub(crate) Arc<Shared>);

impl JobSet {
    /// Their ids, oldest job first. Empty only when the work is being cancelled.
    pub fn ids(&self) -> Vec<JobId> {
        let mut out: Vec<JobId> = Vec::new();
        for id in self.0.all_jobs().into_values() {
            if !out.contains(&id) {
                out.push(id);
            }
        }
        out
    }
}

/// Reports the progress of a vertex to all jobs that wait for it.
#[derive(Clone)]
pub struct VertexProgress(pub(crate) Arc<Shared>);

impl VertexProgress {
    /// Reports anything.
    pub fn report(&self, progress: &OpProgress) {
        self.0.report(progress);
    }

    /// The digest under which the vertex is shown.
    pub fn vertex(&self) -> Digest {
        self.0.vertex
    }

    /// Reports output of a process.
    pub fn log(&self, stream: Stream, data: &[u8]) {
        self.report(&OpProgress::Log { stream, data: data.into(), at: SystemTime::now() });
    }

    /// Reports a part of the work. `done` sets its completion.
    pub fn status(&self, id: &str, action: &str, current: i64, total: i64, started: SystemTime, done: bool) {
        let at = SystemTime::now();
        self.report(&OpProgress::Status {
            id: id.to_string(),
            action: action.to_string(),
            current,
            total,
            at,
            started: Some(started),
            completed: done.then_some(at),
        });
    }

    /// Reports a part of the work that has no measure, and runs it.
    pub async fn during<F: Future>(&self, id: &str, work: F) -> F::Output {
        let started = SystemTime::now();
        self.status(id, "", 0, 0, started, false);
        let out = work.await;
        self.status(id, "", 0, 0, started, true);
        out
    }

    /// The jobs that are told.
    pub fn jobs(&self) -> JobSet {
        JobSet(self.0.clone())
    }
}
