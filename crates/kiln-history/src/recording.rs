//! The recording of one build.

use crate::history::History;
use crate::sink::{Sink, blob};
use crate::trace::{self, Trace};
use crate::{HistoryError, attrs, failure, images, log};
use kiln_digest::Digest;
use kiln_llb::errdefs::BuildError;
use kiln_llb::mask_credentials;
use kiln_progress::Update;
use kiln_proto::control::{self, BuildHistoryRecord, BuildResultInfo, Descriptor};
use kiln_proto::google::rpc;
use prost::Message;
use std::collections::{BTreeMap, HashMap};

/// What is asked of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Its name.
    pub reference: String,
    /// Its frontend; empty when there is none.
    pub frontend: String,
    /// What the frontend is told; credentials are left out of the record.
    pub frontend_attrs: BTreeMap<String, String>,
    /// What is done with the result.
    pub exporters: Vec<Exporter>,
}

/// An exporter of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exporter {
    /// Such as `image`.
    pub kind: String,
    /// What it is told.
    pub attrs: BTreeMap<String, String>,
}

impl Start {
    pub(crate) fn into_record(self) -> BuildHistoryRecord {
        let exporter = |e: Exporter| control::Exporter {
            r#type: e.kind,
            attrs: e.attrs.into_iter().map(|(k, v)| (k, mask_credentials(&v).into_owned())).collect(),
        };
        let attr = |(k, v): (String, String)| {
            let v = attrs::recorded(&k, &v);
            (k, v)
        };
        BuildHistoryRecord {
            r#ref: self.reference,
            frontend: self.frontend,
            frontend_attrs: self.frontend_attrs.into_iter().map(attr).collect(),
            exporters: self.exporters.into_iter().map(exporter).collect(),
            created_at: Some(crate::timestamp(jiff::Timestamp::now())),
            ..Default::default()
        }
    }
}

/// What came of a build.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Why it failed.
    pub error: Option<BuildError>,
    /// What the frontend said of the result, and the exporters of theirs.
    pub response: BTreeMap<String, String>,
    /// Images, by the place of their exporter.
    pub images: BTreeMap<usize, Image>,
}

/// An image that an exporter made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Of the manifest or index.
    pub media_type: String,
    /// Of the manifest or index.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Notes.
    pub annotations: BTreeMap<String, String>,
}

/// What was seen of a vertex.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    cached: bool,
    completed: bool,
}

/// Records one build. What it is told goes to disk at once. Dropped without [`finish`](Self::finish) it leaves nothing.
pub struct Recording {
    history: History,
    record: BuildHistoryRecord,
    log: Sink,
    spans: Sink,
    trace: Trace,
    vertices: HashMap<Digest, Seen>,
    warnings: usize,
    finished: bool,
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recording({})", self.record.r#ref)
    }
}

impl Recording {
    pub(crate) fn new(history: History, record: BuildHistoryRecord) -> Self {
        Self {
            history,
            record,
            log: Sink::Idle,
            spans: Sink::Idle,
            trace: Trace::new(),
            vertices: HashMap::new(),
            warnings: 0,
            finished: false,
        }
    }

    /// Writes what the build says. Blocks on the file system.
    pub fn write(&mut self, update: Update) {
        self.warnings += update.warnings.len();
        for vertex in &update.vertexes {
            let seen = self.vertices.entry(vertex.digest).or_default();
            seen.cached |= vertex.cached;
            seen.completed |= vertex.completed.is_some();
            if let Some(span) = self.trace.vertex(vertex) {
                self.spans.write(&self.history, &self.record.r#ref, |sink| sink.write(&span));
            }
        }
        let message = crate::status_response(update);
        self.log.write(&self.history, &self.record.r#ref, |sink| log::write(sink, message));
    }

    /// The build is over: writes its record. Blocks on the file system.
    ///
    /// # Errors
    /// If the record cannot be written.
    pub fn finish(mut self, outcome: Outcome) -> Result<(), HistoryError> {
        self.finished = true;
        let done = self.complete(outcome);
        match &done {
            Ok(()) => self.history.0.complete(std::mem::take(&mut self.record)),
            Err(_) => self.history.0.vanish(&self.record.r#ref),
        }
        done?;
        self.history.expire()
    }

    fn complete(&mut self, outcome: Outcome) -> Result<(), HistoryError> {
        let now = jiff::Timestamp::now();
        let history = self.history.clone();
        let store = &history.0.store;
        // Until the row is there, nothing else keeps the blobs.
        let _lease = store.content().lease();
        self.finish_trace(now, outcome.error.as_ref());
        let log = std::mem::replace(&mut self.log, Sink::Failed);
        let spans = std::mem::replace(&mut self.spans, Sink::Failed);
        let mut blobs = Vec::new();
        let record = &mut self.record;
        record.completed_at = Some(crate::timestamp(now));
        record.logs = log.finish(&self.history, &record.r#ref, log::MEDIA_TYPE, &mut blobs);
        record.trace = spans.finish(&self.history, &record.r#ref, trace::MEDIA_TYPE, &mut blobs);
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        record.num_total_steps = count(self.vertices.len());
        record.num_cached_steps = count(self.vertices.values().filter(|v| v.cached).count());
        record.num_completed_steps = count(self.vertices.values().filter(|v| v.completed).count());
        record.num_warnings = count(self.warnings);
        record.exporter_response = outcome.response.into_iter().collect();
        let images = outcome.images.into_iter().filter_map(|(index, image)| {
            let kept = images::blobs(store.content(), image.digest);
            let index = i64::try_from(index).ok()?;
            // What cannot be read by its digest is of no use to those who read the record.
            (!kept.is_empty()).then(|| {
                blobs.extend(kept);
                (index, descriptor(image))
            })
        });
        let images: BTreeMap<i64, Descriptor> = images.collect();
        record.result = (!images.is_empty()).then(|| BuildResultInfo {
            result_deprecated: images.values().next().cloned(),
            attestations: Vec::new(),
            results: images.into_iter().collect(),
        });
        if let Some(error) = outcome.error {
            let full = failure::status(&error);
            let data = full.encode_to_vec();
            let size = i64::try_from(data.len()).unwrap_or(i64::MAX);
            let digest = store.content().put(&data)?;
            blobs.push(digest);
            record.external_error = Some(blob(failure::MEDIA_TYPE, digest, size));
            record.error = Some(rpc::Status { details: Vec::new(), ..full });
        }
        attrs::clip(record);
        store.put(record, &blobs)
    }

    fn finish_trace(&mut self, now: jiff::Timestamp, error: Option<&BuildError>) {
        let start = self.record.created_at.as_ref();
        let start = start.and_then(|t| jiff::Timestamp::new(t.seconds, t.nanos).ok()).unwrap_or(now);
        let error = error.map(|e| mask_credentials(&e.message).into_owned()).unwrap_or_default();
        let span = self.trace.build(&self.record.r#ref, start, now, &error);
        self.spans.write(&self.history, &self.record.r#ref, |sink| sink.write(&span));
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.finished {
            self.history.0.vanish(&self.record.r#ref);
        }
    }
}

fn descriptor(image: Image) -> Descriptor {
    Descriptor {
        annotations: image.annotations.into_iter().collect(),
        ..blob(&image.media_type, image.digest, i64::try_from(image.size).unwrap_or(i64::MAX))
    }
}
