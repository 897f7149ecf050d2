//! The history as its callers see it.

mod blobs;
mod listening;
mod records;

use crate::{EventKind, History, Limits, Listener, Outcome, Query, Recording, Start};
use jiff::Timestamp;
use kiln_content::{ContentStore, Db};
use kiln_digest::Digest;
use kiln_progress::{LogChunk, Update, VertexUpdate};
use kiln_proto::control::BuildHistoryRecord;
use std::path::Path;
use std::time::Duration;

pub(crate) fn open_with(dir: &Path, limits: Limits) -> (ContentStore, History) {
    let db = Db::open(&dir.join("kiln.db")).unwrap();
    let content = ContentStore::open(dir, db).unwrap();
    (content.clone(), History::open(content, limits).unwrap())
}

pub(crate) fn open(dir: &Path) -> (ContentStore, History) {
    open_with(dir, Limits::default())
}

fn begin(history: &History, reference: &str) -> Recording {
    history.begin(Start { reference: reference.into(), ..Start::default() })
}

/// A vertex that ran, and what it printed.
fn ran(name: &str, output: &str) -> Update {
    let digest = Digest::sha256(name);
    let now = Timestamp::now();
    let vertex = VertexUpdate {
        digest,
        inputs: Vec::new(),
        name: name.into(),
        started: Some(now),
        completed: Some(now),
        cached: false,
        error: String::new(),
        group: None,
    };
    let log = LogChunk { vertex: digest, stream: 1, data: output.into(), timestamp: now };
    Update { vertexes: vec![vertex], logs: vec![log], ..Update::default() }
}

/// A build that is over.
pub(crate) fn build(history: &History, reference: &str) {
    let mut recording = begin(history, reference);
    recording.write(ran(reference, "hello"));
    recording.finish(Outcome::default()).unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The next event, which must come soon.
async fn next(listener: &mut Listener) -> Option<(EventKind, String)> {
    let event = tokio::time::timeout(Duration::from_secs(60), listener.next()).await.expect("an event");
    event.unwrap().map(|event| (event.kind, event.record.r#ref.clone()))
}

/// What there is now.
fn listed(history: &History, query: Query) -> Vec<String> {
    runtime().block_on(async {
        let mut listener = history.listen(&Query { early_exit: true, ..query }).unwrap();
        let mut all = Vec::new();
        while let Some((_, reference)) = next(&mut listener).await {
            all.push(reference);
        }
        all
    })
}

fn record(history: &History, reference: &str) -> BuildHistoryRecord {
    history.0.store.get(reference).unwrap().expect("a record")
}
