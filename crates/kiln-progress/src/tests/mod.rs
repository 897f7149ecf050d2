//! Tests by renderer.

mod model;
mod plain;
mod screen;
mod tty;

use crate::{
    Display, DisplayOptions, LogChunk, Mode, ProgressGroup, StatusUpdate, Update, VertexUpdate, Warning,
};
use jiff::{SignedDuration, Timestamp};
use kiln_digest::Digest;

/// A moment, milliseconds after an arbitrary one.
pub(crate) fn at(ms: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_767_323_045) + SignedDuration::from_millis(ms)
}

pub(crate) fn digest(name: &str) -> Digest {
    Digest::sha256(name)
}

/// A vertex whose digest is that of its name.
pub(crate) fn vertex(name: &str, started: Option<i64>, completed: Option<i64>) -> VertexUpdate {
    VertexUpdate {
        digest: digest(name),
        inputs: vec![],
        name: name.into(),
        started: started.map(at),
        completed: completed.map(at),
        cached: false,
        error: String::new(),
        group: None,
    }
}

pub(crate) fn member(v: VertexUpdate, weak: bool) -> VertexUpdate {
    VertexUpdate { group: Some(ProgressGroup { id: "g".into(), name: "LINK COPY".into(), weak }), ..v }
}

pub(crate) fn vertexes(list: Vec<VertexUpdate>) -> Update {
    Update { vertexes: list, ..Update::default() }
}

pub(crate) fn log(name: &str, text: &str, ms: i64) -> Update {
    let chunk = LogChunk { vertex: digest(name), stream: 1, data: text.into(), timestamp: at(ms) };
    Update { logs: vec![chunk], ..Update::default() }
}

pub(crate) fn status(name: &str, id: &str, amount: (i64, i64), ms: i64, completed: Option<i64>) -> Update {
    let status = StatusUpdate {
        id: id.into(),
        vertex: digest(name),
        name: String::new(),
        current: amount.0,
        total: amount.1,
        timestamp: at(ms),
        started: Some(at(0)),
        completed: completed.map(at),
    };
    Update { statuses: vec![status], ..Update::default() }
}

pub(crate) fn warning(name: &str, short: &str) -> Update {
    let warning = Warning {
        vertex: digest(name),
        level: 1,
        short: short.into(),
        detail: vec![],
        url: String::new(),
        source: None,
        ranges: vec![],
    };
    Update { warnings: vec![warning], ..Update::default() }
}

/// Shows updates that come at given milliseconds; the daemon's clock is the local one.
pub(crate) fn show(mode: Mode, options: DisplayOptions, updates: Vec<(i64, Update)>) -> String {
    let mut out = Vec::new();
    let mut display = Display::new(mode, mode == Mode::Tty, &mut out, options).unwrap();
    let end = updates.last().map_or(0, |(ms, _)| *ms);
    for (ms, update) in updates {
        display.update(update, at(ms)).unwrap();
    }
    display.finish(at(end)).unwrap();
    String::from_utf8(out).unwrap()
}
