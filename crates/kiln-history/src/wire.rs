//! Progress in its wire form.

use kiln_progress::{
    LineRange, LogChunk, ProgressGroup, SourceFile, StatusUpdate, Update, VertexUpdate, Warning,
};
use kiln_proto::google::protobuf::Timestamp;
use kiln_proto::{control, pb};

/// A status message.
pub fn status_response(update: Update) -> control::StatusResponse {
    control::StatusResponse {
        vertexes: update.vertexes.into_iter().map(vertex).collect(),
        statuses: update.statuses.into_iter().map(status).collect(),
        logs: update.logs.into_iter().map(log).collect(),
        warnings: update.warnings.into_iter().map(warning).collect(),
    }
}

/// Seconds and nanoseconds since 1970.
pub fn timestamp(t: jiff::Timestamp) -> Timestamp {
    Timestamp { seconds: t.as_second(), nanos: t.subsec_nanosecond() }
}

fn vertex(v: VertexUpdate) -> control::Vertex {
    control::Vertex {
        digest: v.digest.to_string(),
        inputs: v.inputs.iter().map(ToString::to_string).collect(),
        name: v.name,
        cached: v.cached,
        started: v.started.map(timestamp),
        completed: v.completed.map(timestamp),
        error: v.error,
        progress_group: v.group.map(|ProgressGroup { id, name, weak }| pb::ProgressGroup { id, name, weak }),
    }
}

fn status(s: StatusUpdate) -> control::VertexStatus {
    control::VertexStatus {
        id: s.id,
        vertex: s.vertex.to_string(),
        name: s.name,
        current: s.current,
        total: s.total,
        timestamp: Some(timestamp(s.timestamp)),
        started: s.started.map(timestamp),
        completed: s.completed.map(timestamp),
    }
}

fn log(l: LogChunk) -> control::VertexLog {
    control::VertexLog {
        vertex: l.vertex.to_string(),
        timestamp: Some(timestamp(l.timestamp)),
        stream: i64::from(l.stream),
        msg: l.data,
    }
}

fn warning(w: Warning) -> control::VertexWarning {
    control::VertexWarning {
        vertex: w.vertex.to_string(),
        level: i64::from(w.level),
        short: w.short,
        detail: w.detail,
        url: w.url,
        info: w.source.map(|SourceFile { filename, data, language }| pb::SourceInfo {
            filename,
            data,
            definition: None,
            language,
        }),
        ranges: w.ranges.into_iter().map(range).collect(),
    }
}

fn range(r: LineRange) -> pb::Range {
    let at = |line| Some(pb::Position { line, character: 0 });
    pb::Range { start: at(r.start), end: at(r.end) }
}
