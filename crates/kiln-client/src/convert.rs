//! Progress and records from the wire.

use jiff::Timestamp;
use kiln_digest::Digest;
use kiln_progress::{
    LineRange, LogChunk, ProgressGroup, SourceFile, StatusUpdate, Update, VertexUpdate, Warning,
};
use kiln_proto::control::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};
use kiln_proto::google::protobuf::Timestamp as WireTime;
use kiln_proto::pb::{Range, SourceInfo};

/// A time; one that no calendar has is dropped.
pub(crate) fn time(wire: Option<WireTime>) -> Option<Timestamp> {
    wire.and_then(|t| Timestamp::new(t.seconds, t.nanos).ok())
}

/// Names of vertices are only compared; one that is no digest still gets a stable name.
fn digest(text: &str) -> Digest {
    text.parse().unwrap_or_else(|_| Digest::sha256(text))
}

fn number(n: i64) -> i32 {
    i32::try_from(n).unwrap_or(if n < 0 { i32::MIN } else { i32::MAX })
}

/// What a status message says.
pub(crate) fn update(status: StatusResponse) -> Update {
    Update {
        vertexes: status.vertexes.into_iter().map(vertex).collect(),
        statuses: status.statuses.into_iter().map(counter).collect(),
        logs: status.logs.into_iter().map(log).collect(),
        warnings: status.warnings.into_iter().map(warning).collect(),
    }
}

fn vertex(v: Vertex) -> VertexUpdate {
    VertexUpdate {
        digest: digest(&v.digest),
        inputs: v.inputs.iter().map(|i| digest(i)).collect(),
        name: v.name,
        started: time(v.started),
        completed: time(v.completed),
        cached: v.cached,
        error: v.error,
        group: v.progress_group.map(|g| ProgressGroup { id: g.id, name: g.name, weak: g.weak }),
    }
}

fn counter(s: VertexStatus) -> StatusUpdate {
    StatusUpdate {
        vertex: digest(&s.vertex),
        id: s.id,
        name: s.name,
        total: s.total,
        current: s.current,
        timestamp: time(s.timestamp).unwrap_or_default(),
        started: time(s.started),
        completed: time(s.completed),
    }
}

fn log(l: VertexLog) -> LogChunk {
    LogChunk {
        vertex: digest(&l.vertex),
        stream: number(l.stream),
        data: l.msg,
        timestamp: time(l.timestamp).unwrap_or_default(),
    }
}

fn warning(w: VertexWarning) -> Warning {
    let source = |i: SourceInfo| SourceFile { filename: i.filename, data: i.data, language: i.language };
    let range = |r: Range| {
        let line = |p: Option<kiln_proto::pb::Position>| p.map(|p| p.line);
        let start = line(r.start).unwrap_or_default();
        LineRange { start, end: line(r.end).unwrap_or(start) }
    };
    Warning {
        vertex: digest(&w.vertex),
        level: number(w.level),
        short: w.short,
        detail: w.detail,
        url: w.url,
        source: w.info.map(source),
        ranges: w.ranges.into_iter().map(range).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_digests_that_make_no_sense_do_no_harm() {
        assert_eq!(time(Some(WireTime { seconds: 1, nanos: 5 })), Timestamp::new(1, 5).ok());
        assert_eq!(time(Some(WireTime { seconds: i64::MAX, nanos: 0 })), None);
        let v = vertex(Vertex { digest: "odd".into(), ..Default::default() });
        assert_eq!(v.digest, Digest::sha256("odd"));
        assert_eq!(number(i64::MAX), i32::MAX);
    }

    #[test]
    fn a_status_keeps_its_parts() {
        let d = Digest::sha256("x");
        let u = update(StatusResponse {
            vertexes: vec![Vertex {
                digest: d.to_string(),
                name: "[1/2] RUN".into(),
                cached: true,
                ..Default::default()
            }],
            statuses: vec![VertexStatus {
                id: "extract".into(),
                vertex: d.to_string(),
                current: 5,
                ..Default::default()
            }],
            logs: vec![VertexLog {
                vertex: d.to_string(),
                stream: 2,
                msg: b"hi".to_vec(),
                ..Default::default()
            }],
            warnings: vec![VertexWarning {
                vertex: d.to_string(),
                short: b"w".to_vec(),
                ..Default::default()
            }],
        });
        assert_eq!((u.vertexes[0].digest, u.vertexes[0].cached), (d, true));
        assert_eq!(
            (u.statuses[0].current, u.logs[0].stream, u.warnings[0].short.as_slice()),
            (5, 2, &b"w"[..])
        );
    }
}
