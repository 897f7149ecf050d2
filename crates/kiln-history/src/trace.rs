//! The trace of a build: spans as indented JSON objects, one after another, in the form of OpenTelemetry's
//! `tracetest.SpanStub`, which is what clients of BuildKit read.

use jiff::Timestamp;
use kiln_progress::VertexUpdate;
use serde_json::{Value, json};

/// What clients of BuildKit know the trace by.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.buildkit.otlp.json.v0";

/// The trace of one build: a span for the build, and below it one for each run of a vertex.
pub(crate) struct Trace {
    trace: String,
    root: String,
    children: u32,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Self { trace: format!("{:032x}", rand::random::<u128>().max(1)), root: new_span_id(), children: 0 }
    }

    /// The span of a vertex that is over; `None` while it runs.
    pub(crate) fn vertex(&mut self, v: &VertexUpdate) -> Option<Vec<u8>> {
        let (start, end) = (v.started?, v.completed?);
        self.children += 1;
        let attributes = [
            ("vertex", json!({"Type": "STRING", "Value": v.digest.to_string()})),
            ("cached", json!({"Type": "BOOL", "Value": v.cached})),
        ];
        let span =
            Span { id: new_span_id(), parent: Some(&self.root), name: &v.name, start, end, error: &v.error };
        Some(self.encode(span, &attributes, 0))
    }

    /// The span of the build itself.
    pub(crate) fn build(&self, id: &str, start: Timestamp, end: Timestamp, error: &str) -> Vec<u8> {
        let attributes = [("build.ref", json!({"Type": "STRING", "Value": id}))];
        let span = Span { id: self.root.clone(), parent: None, name: "build", start, end, error };
        self.encode(span, &attributes, self.children)
    }

    fn encode(&self, s: Span<'_>, attributes: &[(&str, Value)], children: u32) -> Vec<u8> {
        const NO_TRACE: &str = "00000000000000000000000000000000";
        const NO_SPAN: &str = "0000000000000000";
        let (parent_trace, flags) = if s.parent.is_some() { (&*self.trace, "01") } else { (NO_TRACE, "00") };
        let scope =
            json!({"Name": "kiln", "Version": env!("CARGO_PKG_VERSION"), "SchemaURL": "", "Attributes": {}});
        let attributes: Vec<Value> = attributes.iter().map(|(k, v)| json!({"Key": k, "Value": v})).collect();
        let span = json!({
            "Name": s.name,
            "SpanContext": context(&self.trace, &s.id, "01"),
            "Parent": context(parent_trace, s.parent.unwrap_or(NO_SPAN), flags),
            "SpanKind": 1,
            "StartTime": s.start.to_string(),
            "EndTime": s.end.to_string(),
            "Attributes": attributes,
            "Events": null,
            "Links": null,
            // 1 is `Error` in OpenTelemetry's Go API, 0 is not set.
            "Status": {"Code": u8::from(!s.error.is_empty()), "Description": s.error},
            "DroppedAttributes": 0,
            "DroppedEvents": 0,
            "DroppedLinks": 0,
            "ChildSpanCount": children,
            "Resource": [{"Key": "service.name", "Value": {"Type": "STRING", "Value": "kiln"}}],
            "InstrumentationScope": scope,
            "InstrumentationLibrary": scope,
        });
        let mut out = format!("{span:#}").into_bytes();
        out.push(b'\n');
        out
    }
}

struct Span<'a> {
    id: String,
    parent: Option<&'a str>,
    name: &'a str,
    start: Timestamp,
    end: Timestamp,
    error: &'a str,
}

fn context(trace: &str, span: &str, flags: &str) -> Value {
    json!({"TraceID": trace, "SpanID": span, "TraceFlags": flags, "TraceState": "", "Remote": false})
}

fn new_span_id() -> String {
    format!("{:016x}", rand::random::<u64>().max(1))
}
