//! `buildctl debug histories`, `debug ctl` and `prune-histories`.

use super::{format, print, print_formatted};
use crate::cli::Values;
use crate::connect::Daemon;
use crate::error::{Call, Error};
use crate::text::local_time;
use futures::StreamExt as _;
use jiff::Timestamp;
use kiln_cli::tabs::Tabs;
use kiln_cli::template::{Nil, Struct, Value};
use kiln_client::{BuildRecord, Descriptor, HistoryEvent, HistoryEventKind, HistoryQuery};

const CALL: Call<'_> = Call::Stream("");

/// Everything there is, and no more.
fn query() -> HistoryQuery {
    HistoryQuery { early_exit: true, ..HistoryQuery::default() }
}

pub(super) async fn list(values: &Values, daemon: &Daemon) -> Result<(), Error> {
    let template = format(values)?;
    let client = daemon.client(CALL).await?;
    let mut events = Box::pin(client.history(&query()).await.map_err(Error::of_stream)?);
    let mut lines = String::from("TYPE\tREF\tCREATED\tCOMPLETED\tGENERATION\tPINNED\n");
    while let Some(event) = events.next().await {
        let event = event.map_err(Error::of_stream)?;
        match &template {
            Some(template) => print_formatted(template, &value(&event))?,
            None => {
                let pinned = if event.record.pinned { "*" } else { "" };
                lines.push_str(&format!("{}\t{pinned}\n", row(&event)));
                // As they come: somebody may watch.
                print(&Tabs::USAGE.format(&lines))?;
                lines.clear();
            }
        }
    }
    if template.is_none() { print(&Tabs::USAGE.format(&lines)) } else { Ok(()) }
}

pub(super) async fn prune(values: &Values, daemon: &Daemon) -> Result<(), Error> {
    let template = format(values)?;
    let client = daemon.client(CALL).await?;
    let mut events = Box::pin(client.history(&query()).await.map_err(Error::of_stream)?);
    let mut lines = String::from("TYPE\tREF\tCREATED\tCOMPLETED\tGENERATION\n");
    let mut failures = Vec::new();
    while let Some(event) = events.next().await {
        let event = event.map_err(Error::of_stream)?;
        if event.record.pinned || event.record.reference.is_empty() {
            continue;
        }
        if let Err(error) = client.delete_build(&event.record.reference).await {
            failures.push(error.message);
            continue;
        }
        match &template {
            Some(template) => print_formatted(template, &value(&event))?,
            None => {
                lines.push_str(&format!("{}\n", row(&event)));
                print(&Tabs::USAGE.format(&lines))?;
                lines.clear();
            }
        }
    }
    if template.is_none() {
        print(&Tabs::USAGE.format(&lines))?;
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}

pub(super) async fn ctl(
    values: &Values,
    args: &[String],
    daemon: &impl Fn() -> Result<Daemon, Error>,
) -> Result<(), Error> {
    let reference = args.first().ok_or("build ref must be specified")?;
    let daemon = daemon()?;
    let call = Call::Unary("");
    match (values.is("pin"), values.is("unpin"), values.is("delete")) {
        (false, false, false) => Err("must specify one of --pin, --unpin, --delete".into()),
        (true, true, _) => Err("cannot specify both --pin and --unpin".into()),
        (true, _, true) | (_, true, true) => Err("cannot specify --delete with --pin or --unpin".into()),
        (_, _, true) => Ok(daemon.client(call).await?.delete_build(reference).await?),
        (pin, _, _) => Ok(daemon.client(call).await?.pin_build(reference, pin).await?),
    }
}

/// The name of an event on the wire.
pub(super) fn kind(kind: HistoryEventKind) -> &'static str {
    match kind {
        HistoryEventKind::Started => "STARTED",
        HistoryEventKind::Complete => "COMPLETE",
        HistoryEventKind::Deleted => "DELETED",
    }
}

fn row(event: &HistoryEvent) -> String {
    let at = |t: Option<Timestamp>| t.map(local_time).unwrap_or_default();
    let r = &event.record;
    let kind = kind(event.kind);
    format!("{kind}\t{}\t{}\t{}\t{}", r.reference, at(r.created_at), at(r.completed_at), r.generation)
}

/// An event for templates, as the message on the wire has it.
fn value(event: &HistoryEvent) -> Value {
    let number = match event.kind {
        HistoryEventKind::Started => 0,
        HistoryEventKind::Complete => 1,
        HistoryEventKind::Deleted => 2,
    };
    Struct::new("*moby_buildkit_v1.BuildHistoryEvent")
        .omit("Type", "type", number)
        .omit("Record", "record", record(&event.record))
        .into()
}

fn record(r: &BuildRecord) -> Value {
    let exporter = |e: &kiln_client::RecordedExporter| -> Value {
        Struct::new("*moby_buildkit_v1.Exporter")
            .omit("Type", "Type", e.kind.as_str())
            .omit("Attrs", "Attrs", &e.attrs)
            .into()
    };
    let error = r.error.as_ref().map(|e| -> Value {
        Struct::new("*status.Status")
            .omit("Code", "code", i64::from(e.code.number()))
            .omit("Message", "message", e.message.as_str())
            .into()
    });
    let results =
        r.results.iter().map(|(k, v)| (k.clone(), result(v))).collect::<std::collections::BTreeMap<_, _>>();
    let or_nil = |v: Option<Value>| v.unwrap_or(Value::Nil(Nil::Pointer));
    Struct::new("*moby_buildkit_v1.BuildHistoryRecord")
        .omit("Ref", "Ref", r.reference.as_str())
        .omit("Frontend", "Frontend", r.frontend.as_str())
        .omit("FrontendAttrs", "FrontendAttrs", &r.frontend_attrs)
        .omit("Exporters", "Exporters", r.exporters.iter().map(exporter).collect::<Vec<_>>())
        .omit("Error", "error", or_nil(error))
        .omit("CreatedAt", "CreatedAt", wire_time(r.created_at))
        .omit("CompletedAt", "CompletedAt", wire_time(r.completed_at))
        .omit("Logs", "logs", or_nil(r.logs.as_ref().map(descriptor)))
        .omit("ExporterResponse", "ExporterResponse", &r.exporter_response)
        .omit("Result", "Result", or_nil(r.result.as_ref().map(result)))
        .omit(
            "Results",
            "Results",
            if results.is_empty() { Value::Nil(Nil::Map) } else { Value::Map(results) },
        )
        .omit("Generation", "Generation", i64::from(r.generation))
        .omit("Trace", "trace", or_nil(r.trace.as_ref().map(descriptor)))
        .omit("Pinned", "pinned", r.pinned)
        .omit("NumCachedSteps", "numCachedSteps", i64::from(r.cached_steps))
        .omit("NumTotalSteps", "numTotalSteps", i64::from(r.total_steps))
        .omit("NumCompletedSteps", "numCompletedSteps", i64::from(r.completed_steps))
        .omit("ExternalError", "externalError", or_nil(r.external_error.as_ref().map(descriptor)))
        .omit("NumWarnings", "numWarnings", i64::from(r.warnings))
        .into()
}

fn wire_time(at: Option<Timestamp>) -> Value {
    let time = |t: Timestamp| -> Value {
        Struct::new("*timestamppb.Timestamp")
            .omit("Seconds", "seconds", t.as_second())
            .omit("Nanos", "nanos", i64::from(t.subsec_nanosecond()))
            .into()
    };
    at.map_or(Value::Nil(Nil::Pointer), time)
}

fn descriptor(d: &Descriptor) -> Value {
    Struct::new("*moby_buildkit_v1.Descriptor")
        .omit("MediaType", "media_type", d.media_type.as_str())
        .omit("Digest", "digest", d.digest.as_str())
        .omit("Size", "size", d.size)
        .omit("Annotations", "annotations", &d.annotations)
        .into()
}

fn result(r: &kiln_client::RecordedResult) -> Value {
    let images = r.images.iter().map(|(k, d)| (k.to_string(), descriptor(d)));
    let images: std::collections::BTreeMap<_, _> = images.collect();
    Struct::new("*moby_buildkit_v1.BuildResultInfo")
        .omit(
            "ResultDeprecated",
            "ResultDeprecated",
            r.deprecated.as_ref().map_or(Value::Nil(Nil::Pointer), descriptor),
        )
        .omit("Attestations", "Attestations", r.attestations.iter().map(descriptor).collect::<Vec<_>>())
        .omit("Results", "Results", if images.is_empty() { Value::Nil(Nil::Map) } else { Value::Map(images) })
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_as_a_row_and_as_json() {
        let record = BuildRecord {
            reference: "r".into(),
            frontend: "dockerfile.v0".into(),
            generation: 3,
            created_at: Timestamp::new(5, 7).ok(),
            ..BuildRecord::default()
        };
        let event = HistoryEvent { kind: HistoryEventKind::Complete, record };
        assert!(row(&event).starts_with("COMPLETE\tr\t1970-01-01T"));
        assert!(row(&event).ends_with("\t\t3"));
        assert_eq!(
            value(&event).json().to_string(),
            "{\"type\":1,\"record\":{\"Ref\":\"r\",\"Frontend\":\"dockerfile.v0\",\"CreatedAt\":{\"seconds\":5,\"nanos\":7},\"Generation\":3}}"
        );
    }
}
