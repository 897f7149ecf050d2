//! Records from the wire.

use super::{BuildRecord, Descriptor, HistoryEvent, HistoryEventKind, RecordedExporter, RecordedResult};
use crate::convert::time;
use kiln_llb::errdefs::BuildError;
use kiln_proto::control::{self, BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord};
use kiln_proto::google::rpc;

/// An event; `None` for kinds that are not known here, and for one without a record.
pub(super) fn event(e: BuildHistoryEvent) -> Option<HistoryEvent> {
    let kind = match BuildHistoryEventType::try_from(e.r#type).ok()? {
        BuildHistoryEventType::Started => HistoryEventKind::Started,
        BuildHistoryEventType::Complete => HistoryEventKind::Complete,
        BuildHistoryEventType::Deleted => HistoryEventKind::Deleted,
    };
    Some(HistoryEvent { kind, record: record(e.record?) })
}

fn record(r: BuildHistoryRecord) -> BuildRecord {
    let exporter =
        |e: control::Exporter| RecordedExporter { kind: e.r#type, attrs: e.attrs.into_iter().collect() };
    BuildRecord {
        reference: r.r#ref,
        frontend: r.frontend,
        frontend_attrs: r.frontend_attrs.into_iter().collect(),
        exporters: r.exporters.into_iter().map(exporter).collect(),
        error: r.error.map(error),
        created_at: time(r.created_at),
        completed_at: time(r.completed_at),
        logs: r.logs.map(descriptor),
        exporter_response: r.exporter_response.into_iter().collect(),
        result: r.result.map(result),
        results: r.results.into_iter().map(|(k, v)| (k, result(v))).collect(),
        generation: r.generation,
        trace: r.trace.map(descriptor),
        pinned: r.pinned,
        cached_steps: r.num_cached_steps,
        total_steps: r.num_total_steps,
        completed_steps: r.num_completed_steps,
        external_error: r.external_error.map(descriptor),
        warnings: r.num_warnings,
    }
}

fn error(s: rpc::Status) -> BuildError {
    BuildError::from_wire(s.code, s.message, s.details.into_iter().map(|any| (any.type_url, any.value)))
}

fn descriptor(d: control::Descriptor) -> Descriptor {
    Descriptor {
        media_type: d.media_type,
        digest: d.digest,
        size: d.size,
        annotations: d.annotations.into_iter().collect(),
    }
}

fn result(r: control::BuildResultInfo) -> RecordedResult {
    RecordedResult {
        deprecated: r.result_deprecated.map(descriptor),
        attestations: r.attestations.into_iter().map(descriptor).collect(),
        images: r.results.into_iter().map(|(k, v)| (k, descriptor(v))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_keeps_its_parts() {
        let image = control::Descriptor { digest: "sha256:x".into(), size: 3, ..Default::default() };
        let info = control::BuildResultInfo { results: [(1, image)].into(), ..Default::default() };
        let record = BuildHistoryRecord {
            r#ref: "r".into(),
            error: Some(rpc::Status { code: 5, message: "no".into(), details: Vec::new() }),
            result: Some(info),
            num_total_steps: 4,
            ..Default::default()
        };
        let e = event(BuildHistoryEvent { r#type: 1, record: Some(record) }).unwrap();
        assert_eq!((e.kind, e.record.total_steps), (HistoryEventKind::Complete, 4));
        assert_eq!(e.record.error.unwrap().message, "no");
        assert_eq!(e.record.result.unwrap().images[&1].size, 3);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        assert!(event(BuildHistoryEvent { r#type: 9, record: Some(Default::default()) }).is_none());
        assert!(event(BuildHistoryEvent { r#type: 0, record: None }).is_none());
    }
}
