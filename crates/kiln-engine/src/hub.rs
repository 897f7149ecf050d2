//! What one build says while it runs: kept for late subscribers, sent on to those who follow.

use jiff::Timestamp;
use kiln_digest::Digest;
use kiln_progress::{LogChunk, ProgressGroup, StatusUpdate, Update, VertexUpdate, Warning};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

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

#[derive(Debug, Default)]
struct State {
    /// All that was said, in batches; a follower remembers how many it has seen.
    said: VecDeque<Arc<Update>>,
    closed: bool,
    groups: HashMap<Digest, ProgressGroup>,
}

impl Default for Hub {
    fn default() -> Self {
        Self::new()
    }
}

impl Hub {
    /// Nothing said yet.
    pub fn new() -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), changed: Notify::new() }))
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
        state.said.push_back(Arc::new(update));
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
        Follower { hub: self.clone(), seen: 0 }
    }
}

/// Reads a [`Hub`] from the beginning.
#[derive(Debug)]
pub struct Follower {
    hub: Hub,
    seen: usize,
}

/// Batches are joined up to about this many messages, so that no wire message becomes too large.
const MAX_BATCH: usize = 256;
/// Likewise for bytes of output.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// How long news are gathered before they are passed on.
const GATHER: Duration = Duration::from_millis(25);

impl Follower {
    /// The next news; `None` when the build has ended and all is read. What is said within a moment comes together, so
    /// that a reader shows states and not every change between them.
    pub async fn next(&mut self) -> Option<Update> {
        let hub = self.hub.clone();
        let mut gather: Option<Instant> = None;
        loop {
            let mut notified = std::pin::pin!(hub.0.changed.notified());
            // From here on nothing that is said is missed.
            notified.as_mut().enable();
            let (news, closed) = {
                let state = hub.state();
                (state.said.len() - self.seen, state.closed)
            };
            match (news, closed) {
                (0, true) => return None,
                (0, false) => notified.await,
                (n, false) if n < MAX_BATCH => {
                    let until = *gather.get_or_insert_with(|| Instant::now() + GATHER);
                    if tokio::time::timeout_at(until, notified).await.is_err() {
                        return Some(self.join());
                    }
                }
                _ => return Some(self.join()),
            }
        }
    }

    fn join(&mut self) -> Update {
        let batches: Vec<_> = self.hub.state().said.range(self.seen..).take(MAX_BATCH).cloned().collect();
        let mut out = Update::default();
        let mut bytes = 0;
        for batch in batches {
            self.seen += 1;
            bytes += batch.logs.iter().map(|l| l.data.len()).sum::<usize>();
            out.append(Update::clone(&batch));
            if bytes > MAX_BATCH_BYTES {
                break;
            }
        }
        out
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
        let hub = Hub::new();
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
