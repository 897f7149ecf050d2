//! Progress, errors, records to their wire form.

use kiln_engine::GcRule;
use kiln_llb::errdefs::BuildError;
use kiln_oci::Platform;
use kiln_progress::{
    LineRange, LogChunk, ProgressGroup, SourceFile, StatusUpdate, Update, VertexUpdate, Warning,
};
use kiln_proto::google::protobuf::Timestamp;
use kiln_proto::google::rpc;
use kiln_proto::{control, pb, worker};
use kiln_snapshot::UsageRecord;
use prost::Message;
use std::time::{Duration, SystemTime};
use tonic::Status;

/// A status message.
pub(crate) fn status_response(update: Update) -> control::StatusResponse {
    control::StatusResponse {
        vertexes: update.vertexes.into_iter().map(vertex).collect(),
        statuses: update.statuses.into_iter().map(status).collect(),
        logs: update.logs.into_iter().map(log).collect(),
        warnings: update.warnings.into_iter().map(warning).collect(),
    }
}

/// Seconds and nanoseconds since 1970.
pub(crate) fn timestamp(t: jiff::Timestamp) -> Timestamp {
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

/// A gRPC status with the error's details (spec llb-and-solver.md section 8).
pub(crate) fn error_status(error: BuildError) -> Status {
    let code = error.code.number();
    let details = error
        .encode_details()
        .into_iter()
        .map(|(type_url, value)| kiln_proto::google::protobuf::Any { type_url, value });
    let full = rpc::Status { code, message: error.message.clone(), details: details.collect() };
    Status::with_details(code.into(), error.message, full.encode_to_vec().into())
}

/// One line of disk usage.
pub(crate) fn usage_record(r: &UsageRecord) -> control::UsageRecord {
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    #[allow(deprecated)] // `parent` is on the wire, empty
    control::UsageRecord {
        id: r.id.to_string(),
        mutable: r.mutable,
        in_use: r.in_use,
        size: count(r.size),
        parent: String::new(),
        created_at: Some(system_time(r.created_at)),
        last_used_at: r.last_used_at.map(system_time),
        usage_count: count(r.usage_count),
        description: r.description.clone(),
        record_type: r.kind.as_str().to_string(),
        shared: r.shared,
        parents: r.parents.iter().map(ToString::to_string).collect(),
    }
}

/// How long ago the record was last used (or made).
pub(crate) fn unused_for(r: &UsageRecord) -> Duration {
    let last = r.last_used_at.unwrap_or(r.created_at);
    SystemTime::now().duration_since(last).unwrap_or_default()
}

fn system_time(t: SystemTime) -> Timestamp {
    timestamp(jiff::Timestamp::try_from(t).unwrap_or(jiff::Timestamp::UNIX_EPOCH))
}

/// A platform.
pub(crate) fn platform(p: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: p.architecture.clone(),
        os: p.os.clone(),
        variant: p.variant.clone(),
        os_version: p.os_version.clone(),
        os_features: p.os_features.clone(),
    }
}

/// A rule of garbage collection.
pub(crate) fn gc_policy(p: &GcRule) -> worker::GcPolicy {
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    worker::GcPolicy {
        all: p.opts.all,
        keep_duration: i64::try_from(p.opts.keep_duration.as_nanos()).unwrap_or(i64::MAX),
        filters: p.filters.clone(),
        reserved_space: count(p.opts.reserved),
        max_used_space: count(p.opts.max_used),
        min_free_space: count(p.opts.min_free),
    }
}
