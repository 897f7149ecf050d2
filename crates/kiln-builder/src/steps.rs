//! What is done on this side, told as the progress of a build.

use jiff::Timestamp;
use kiln_digest::Digest;
use kiln_progress::{LogChunk, StatusUpdate, Update, VertexUpdate};
use tokio::sync::mpsc::Sender;

use crate::Error;

/// Takes the progress. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Steps(Sender<Update>);

/// A piece of work that is shown.
#[derive(Clone, Debug)]
pub struct Vertex {
    to: Sender<Update>,
    digest: Digest,
}

impl Steps {
    /// Progress goes to `to`; whether somebody listens does not matter.
    pub fn new(to: Sender<Update>) -> Self {
        Self(to)
    }

    /// Does something as a step of its own.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn vertex<T, F>(&self, name: &str, work: impl FnOnce(Vertex) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let digest = Digest::sha256(rand::random::<[u8; 32]>());
        let started = Some(Timestamp::now());
        let vertex = VertexUpdate {
            digest,
            inputs: Vec::new(),
            name: name.to_owned(),
            started,
            completed: None,
            cached: false,
            error: String::new(),
            group: None,
        };
        self.say(vertex.clone()).await;
        let result = work(Vertex { to: self.0.clone(), digest }).await;
        let error = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
        self.say(VertexUpdate { completed: Some(Timestamp::now()), error, ..vertex }).await;
        result
    }

    async fn say(&self, vertex: VertexUpdate) {
        let _ = self.0.send(Update { vertexes: vec![vertex], ..Update::default() }).await;
    }
}

impl Vertex {
    /// Does a part of the work under a name.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn step<T>(&self, id: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let now = Timestamp::now();
        let status = StatusUpdate {
            id: id.to_owned(),
            vertex: self.digest,
            name: String::new(),
            total: 0,
            current: 0,
            timestamp: now,
            started: Some(now),
            completed: None,
        };
        self.say(status.clone()).await;
        let result = work.await;
        let now = Timestamp::now();
        self.say(StatusUpdate { timestamp: now, completed: Some(now), ..status }).await;
        result
    }

    /// Output of the work: stream 1 or 2.
    pub async fn log(&self, stream: i32, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let timestamp = Timestamp::now();
        let chunk = LogChunk { vertex: self.digest, stream, data: data.to_vec(), timestamp };
        let _ = self.to.send(Update { logs: vec![chunk], ..Update::default() }).await;
    }

    async fn say(&self, status: StatusUpdate) {
        let _ = self.to.send(Update { statuses: vec![status], ..Update::default() }).await;
    }
}
