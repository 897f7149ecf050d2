//! What one build says while it runs: kept for late subscribers, sent on to those who follow.
//!
//! Whoever says something waits for nobody, and however much is said, little of it is in memory.

mod follow;
mod said;

pub use follow::Follower;

use jiff::Timestamp;
use kiln_digest::Digest;
use kiln_progress::{LogChunk, ProgressGroup, StatusUpdate, Update, VertexUpdate, Warning};
use said::Said;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// How much output of a step is kept and sent (spec llb-and-solver.md section 6).
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// Bytes per step; `None` is unlimited.
    pub max_size: Option<u64>,
    /// Bytes per second and step; `None` is unlimited.
    pub max_speed: Option<u64>,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { max_size: Some(2 << 20), max_speed: Some(200 << 10) }
    }
}

impl LogLimits {
    /// From the values of `BUILDKIT_STEP_LOG_MAX_SIZE` and `BUILDKIT_STEP_LOG_MAX_SPEED`; -1 is unlimited, what is
    /// no number is ignored.
    pub fn from_values(size: Option<&str>, speed: Option<&str>) -> Self {
        let read = |value: Option<&str>, default| match value.and_then(|v| v.parse::<i64>().ok()) {
            None => default,
            Some(n) => u64::try_from(n).ok(),
        };
        let default = Self::default();
        Self { max_size: read(size, default.max_size), max_speed: read(speed, default.max_speed) }
    }
}

/// The progress of one build. Clones are the same hub.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// A follower remembers how many batches it has seen.
    said: Said,
    closed: bool,
    groups: HashMap<Digest, ProgressGroup>,
}

impl Hub {
    /// Nothing said yet. What becomes too much for memory goes to a file in `dir` that has no name and ends with the hub.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let state = State { said: Said::new(dir.into()), closed: false, groups: HashMap::new() };
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the groups of vertices, so that every later message of them carries it.
    pub fn set_groups(&self, groups: impl IntoIterator<Item = (Digest, ProgressGroup)>) {
        self.state().groups.extend(groups);
    }

    /// Says `update` to all followers.
    pub fn say(&self, mut update: Update) {
        if update.is_empty() {
            return;
        }
        let mut state = self.state();
        if state.closed {
            return;
        }
        for vertex in &mut update.vertexes {
            if vertex.group.is_none() {
                vertex.group = state.groups.get(&vertex.digest).cloned();
            }
        }
        state.said.push(update);
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// Says the state of one vertex.
    pub fn vertex(&self, vertex: VertexUpdate) {
        self.say(Update { vertexes: vec![vertex], ..Update::default() });
    }

    /// Says a counter.
    pub fn status(&self, status: StatusUpdate) {
        self.say(Update { statuses: vec![status], ..Update::default() });
    }

    /// Says a piece of output.
    pub fn log(&self, log: LogChunk) {
        self.say(Update { logs: vec![log], ..Update::default() });
    }

    /// Says a warning.
    pub fn warning(&self, warning: Warning) {
        self.say(Update { warnings: vec![warning], ..Update::default() });
    }

    /// Nothing more will be said; followers end after what was said.
    pub fn close(&self) {
        self.state().closed = true;
        self.0.changed.notify_waiters();
    }

    /// Follows from the beginning.
    pub fn follow(&self) -> Follower {
        Follower::new(self.clone())
    }
}

/// A vertex that is no part of the graph: exports, metadata lookups (spec: "synthetic", random digest).
#[derive(Debug)]
pub(crate) struct Synthetic {
    hub: Hub,
    vertex: VertexUpdate,
}

impl Synthetic {
    /// Starts one.
    pub(crate) fn start(hub: &Hub, name: &str) -> Self {
        let digest = Digest::sha256(rand::random::<[u8; 32]>());
        let vertex = VertexUpdate {
            digest,
            inputs: Vec::new(),
            name: name.to_string(),
            started: Some(Timestamp::now()),
            completed: None,
            cached: false,
            error: String::new(),
            group: None,
        };
        hub.vertex(vertex.clone());
        Self { hub: hub.clone(), vertex }
    }

    /// Its random digest.
    pub(crate) fn digest(&self) -> Digest {
        self.vertex.digest
    }

    /// Completes it; `error` is its text when it failed.
    pub(crate) fn finish(mut self, error: Option<&str>) {
        self.vertex.completed = Some(Timestamp::now());
        self.vertex.error = error.unwrap_or_default().to_string();
        self.hub.vertex(self.vertex.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn late_followers_get_all_and_end() {
        let hub = Hub::new(std::env::temp_dir());
        let s = Synthetic::start(&hub, "exporting");
        let mut early = hub.follow();
        assert_eq!(early.next().await.unwrap().vertexes.len(), 1);
        s.finish(Some("no"));
        hub.close();
        let mut late = hub.follow();
        let all = late.next().await.unwrap();
        assert_eq!(all.vertexes.len(), 2);
        assert_eq!(all.vertexes[1].error, "no");
        assert!(late.next().await.is_none());
        assert_eq!(early.next().await.unwrap().vertexes.len(), 1);
        assert!(early.next().await.is_none());
    }

    #[test]
    fn limits_are_read_as_buildkit_reads_them() {
        let l = LogLimits::from_values(Some("-1"), Some("100"));
        assert_eq!((l.max_size, l.max_speed), (None, Some(100)));
        assert_eq!(LogLimits::from_values(Some("x"), None).max_size, Some(2 << 20));
    }
}
