//! Progress, errors, records to their wire form.

use kiln_engine::GcRule;
use kiln_history::timestamp;
use kiln_proto::google::protobuf::Timestamp;
use kiln_proto::{control, worker};
use kiln_snapshot::UsageRecord;
use std::time::{Duration, SystemTime};

pub(crate) use kiln_gateway::error_status;
pub(crate) use kiln_history::status_response;

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

/// A device.
pub(crate) fn device(d: &kiln_cdi::Device) -> worker::CdiDevice {
    worker::CdiDevice {
        name: d.name.clone(),
        auto_allow: d.auto_allowed,
        annotations: d.annotations.clone().into_iter().collect(),
        // None is made when it is asked for.
        on_demand: false,
    }
}
