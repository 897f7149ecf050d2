//! What the solver and the operations report, as progress of a build.

use crate::hub::{Hub, LogLimits};
use jiff::Timestamp;
use kiln_digest::Digest;
use kiln_progress::{LogChunk, StatusUpdate, VertexUpdate, Warning};
use kiln_solver::{Decision, Observer, OpProgress, Stream, VertexEvent, VertexInfo};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

/// Tells a hub.
pub(crate) struct HubObserver {
    hub: Hub,
    limits: LogLimits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    vertices: HashMap<Digest, Arc<VertexInfo>>,
    logs: HashMap<Digest, LogState>,
    steps: Steps,
}

/// How many steps a build had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Vertices.
    pub total: usize,
    /// Of these, taken from the cache.
    pub cached: usize,
    /// Of these, finished.
    pub completed: usize,
}

impl HubObserver {
    pub(crate) fn new(hub: Hub, limits: LogLimits) -> Arc<Self> {
        Arc::new(Self { hub, limits, state: Mutex::default() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn steps(&self) -> Steps {
        self.state().steps
    }

    fn update(&self, digest: &Digest) -> VertexUpdate {
        let info = self.state().vertices.get(digest).cloned();
        VertexUpdate {
            digest: *digest,
            inputs: info.as_ref().map(|i| i.inputs.clone()).unwrap_or_default(),
            name: info.map(|i| i.name.clone()).unwrap_or_default(),
            started: None,
            completed: None,
            cached: false,
            error: String::new(),
            group: None,
        }
    }
}

impl Observer for HubObserver {
    fn vertex(&self, event: &VertexEvent) {
        match event {
            VertexEvent::Loaded(info) => {
                let mut state = self.state();
                if state.vertices.insert(info.digest, info.clone()).is_none() {
                    state.steps.total += 1;
                }
                drop(state);
                self.hub.vertex(self.update(&info.digest));
            }
            VertexEvent::Started { vertex, at, cached } => {
                let update =
                    VertexUpdate { started: Some(time(*at)), cached: *cached, ..self.update(vertex) };
                self.hub.vertex(update);
            }
            VertexEvent::Completed { vertex, started, at, cached, error } => {
                if error.as_ref().is_some_and(|e| !e.ends_with("context canceled")) {
                    self.flush_tail(vertex);
                }
                let mut state = self.state();
                state.steps.completed += 1;
                state.steps.cached += usize::from(*cached);
                drop(state);
                self.hub.vertex(VertexUpdate {
                    started: Some(time(*started)),
                    completed: Some(time(*at)),
                    cached: *cached,
                    error: error.clone().unwrap_or_default(),
                    ..self.update(vertex)
                });
            }
        }
    }

    fn progress(&self, vertex: &Digest, progress: &OpProgress) {
        match progress {
            OpProgress::Status { id, action, current, total, at, started, completed } => {
                self.hub.status(StatusUpdate {
                    id: id.clone(),
                    vertex: *vertex,
                    name: action.clone(),
                    total: *total,
                    current: *current,
                    timestamp: time(*at),
                    started: started.map(time),
                    completed: completed.map(time),
                });
            }
            OpProgress::Log { stream, data, at } => self.log(vertex, *stream, data, *at),
            OpProgress::Warning { level, short, detail, url } => self.hub.warning(Warning {
                vertex: *vertex,
                level: i32::try_from(*level).unwrap_or(i32::MAX),
                short: short.clone().into_bytes(),
                detail: detail.iter().map(|d| d.clone().into_bytes()).collect(),
                url: url.clone(),
                source: None,
                ranges: Vec::new(),
            }),
        }
    }

    fn decision(&self, decision: &Arc<Decision>) {
        tracing::debug!(vertex = %decision.vertex, outcome = ?decision.outcome, took = ?decision.ran_for, "cache decision");
    }
}

/// Bytes kept of a clipped log, shown when the step fails.
const TAIL: usize = 16 << 10;

#[derive(Debug)]
struct LogState {
    begun: Instant,
    sent: u64,
    clipped: bool,
    tail: VecDeque<u8>,
}

impl HubObserver {
    fn log(&self, vertex: &Digest, stream: Stream, data: &[u8], at: SystemTime) {
        let (send, note) = self.clip(vertex, data);
        let chunk =
            |data: Vec<u8>| LogChunk { vertex: *vertex, stream: number(stream), data, timestamp: time(at) };
        if send > 0 {
            self.hub.log(chunk(data[..send].to_vec()));
        }
        if let Some(note) = note {
            self.hub.log(chunk(note.into_bytes()));
        }
    }

    /// How many of the bytes may be sent, and a note when the limit is reached now.
    fn clip(&self, vertex: &Digest, data: &[u8]) -> (usize, Option<String>) {
        let mut state = self.state();
        let fresh = || LogState { begun: Instant::now(), sent: 0, clipped: false, tail: VecDeque::new() };
        let log = state.logs.entry(*vertex).or_insert_with(fresh);
        let size_left = self.limits.max_size.map(|max| max.saturating_sub(log.sent));
        let speed_left = self.limits.max_speed.map(|max| {
            let allowed = max.saturating_mul(log.begun.elapsed().as_secs() + 1);
            allowed.saturating_sub(log.sent)
        });
        let left = size_left.unwrap_or(u64::MAX).min(speed_left.unwrap_or(u64::MAX));
        let send = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
        log.sent += send as u64;
        let rest = &data[send..];
        log.tail.extend(rest);
        let over = log.tail.len().saturating_sub(TAIL);
        log.tail.drain(..over);
        if rest.is_empty() || log.clipped {
            return (send, None);
        }
        log.clipped = true;
        let limit = match (size_left, self.limits.max_size, self.limits.max_speed) {
            (Some(l), Some(max), _) if l <= left => human(max),
            (_, _, Some(max)) => format!("{}/s", human(max)),
            (_, Some(max), _) => human(max),
            _ => String::new(),
        };
        (send, Some(format!("\n[output clipped, log limit {limit} reached]\n")))
    }

    /// The last bytes of a clipped log.
    fn flush_tail(&self, vertex: &Digest) {
        let tail: Vec<u8> = match self.state().logs.get_mut(vertex) {
            Some(log) => log.tail.drain(..).collect(),
            None => return,
        };
        if !tail.is_empty() {
            self.hub.log(LogChunk { vertex: *vertex, stream: 2, data: tail, timestamp: Timestamp::now() });
        }
    }
}

fn human(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 20 && b % (1 << 20) == 0 => format!("{}MiB", b >> 20),
        b if b >= 1 << 10 && b % (1 << 10) == 0 => format!("{}KiB", b >> 10),
        b => format!("{b}B"),
    }
}

fn number(stream: Stream) -> i32 {
    match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    }
}

/// Times before 1970 or beyond the year 9999 do not come from a clock; they become the nearest that can be shown.
pub(crate) fn time(t: SystemTime) -> Timestamp {
    Timestamp::try_from(t).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn logs_are_clipped_and_the_tail_comes_on_failure() {
        let hub = Hub::new(std::env::temp_dir());
        let limits = LogLimits { max_size: Some(1024), max_speed: None };
        let observer = HubObserver::new(hub.clone(), limits);
        let vertex = Digest::sha256("v");
        observer.progress(
            &vertex,
            &OpProgress::Log { stream: Stream::Stdout, data: vec![b'a'; 1000].into(), at: SystemTime::now() },
        );
        observer.progress(
            &vertex,
            &OpProgress::Log { stream: Stream::Stdout, data: vec![b'b'; 100].into(), at: SystemTime::now() },
        );
        observer.progress(
            &vertex,
            &OpProgress::Log {
                stream: Stream::Stdout,
                data: b"the reason".as_slice().into(),
                at: SystemTime::now(),
            },
        );
        let now = SystemTime::now();
        observer.vertex(&VertexEvent::Completed {
            vertex,
            started: now,
            at: now,
            cached: false,
            error: Some("exit code: 1".into()),
        });
        hub.close();
        let logs = hub.follow().next().await.unwrap().logs;
        let text: Vec<_> = logs.iter().map(|l| String::from_utf8_lossy(&l.data).into_owned()).collect();
        assert_eq!(text[1].len(), 24);
        assert_eq!(text[2], "\n[output clipped, log limit 1KiB reached]\n");
        assert!(text[3].ends_with("the reason"), "{text:?}");
    }
}
