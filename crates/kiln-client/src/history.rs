//! The builds that were, and those that run: what the daemon remembers of them.

mod content;
mod wire;

pub use content::BlobInfo;

use std::collections::BTreeMap;

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use kiln_llb::errdefs::{BuildError, Code};
use kiln_progress::Update;
use kiln_proto::control::{BuildHistoryRequest, StatusRequest, UpdateBuildHistoryRequest};

use crate::Client;
use crate::convert;
use crate::error::build_error;

/// Which builds to tell of. The default is all there are, and then what happens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Only this build.
    pub reference: Option<String>,
    /// No builds that are over.
    pub active_only: bool,
    /// End after what there is; without it the stream goes on with what happens.
    pub early_exit: bool,
    /// Of the builds that are over those that match one of these: containerd's language over `ref`, `status`
    /// (`completed`, `error`, `canceled`) and `repository`, and comparisons of `startedAt`, `completedAt` (age or
    /// RFC 3339) and `duration`. Needs a daemon with the capability `history.filter`.
    pub filters: Vec<String>,
    /// At most so many builds that are over, the newest first; 0 is all, by reference.
    pub limit: i32,
}

/// What happened to a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryEventKind {
    /// It runs.
    Started,
    /// It is over, or its record changed since.
    Complete,
    /// Its record is gone; only the reference is known.
    Deleted,
}

/// An event of the history.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEvent {
    /// What happened.
    pub kind: HistoryEventKind,
    /// To what.
    pub record: BuildRecord,
}

/// What is known of a build.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BuildRecord {
    /// Its name.
    pub reference: String,
    /// The frontend; empty for a graph, and for a build that its client drove.
    pub frontend: String,
    /// What the frontend was told.
    pub frontend_attrs: BTreeMap<String, String>,
    /// What was done with the result.
    pub exporters: Vec<RecordedExporter>,
    /// Why it failed; its details are in the blob [`external_error`](Self::external_error).
    pub error: Option<BuildError>,
    /// When it began.
    pub created_at: Option<Timestamp>,
    /// When it was over.
    pub completed_at: Option<Timestamp>,
    /// Its progress.
    pub logs: Option<Descriptor>,
    /// What the exporters said.
    pub exporter_response: BTreeMap<String, String>,
    /// What came out.
    pub result: Option<RecordedResult>,
    /// What came out, by platform.
    pub results: BTreeMap<String, RecordedResult>,
    /// How often the record was changed after the build.
    pub generation: i32,
    /// Its trace.
    pub trace: Option<Descriptor>,
    /// Kept when old records go.
    pub pinned: bool,
    /// Steps taken from the cache.
    pub cached_steps: i32,
    /// Steps.
    pub total_steps: i32,
    /// Steps that are over.
    pub completed_steps: i32,
    /// A `google.rpc.Status` with the details of the error.
    pub external_error: Option<Descriptor>,
    /// Warnings.
    pub warnings: i32,
}

/// An exporter of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedExporter {
    /// Such as `image`.
    pub kind: String,
    /// What it was told.
    pub attrs: BTreeMap<String, String>,
}

/// A blob that belongs to a record; see [`Client::read_blob`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its name.
    pub digest: String,
    /// Bytes.
    pub size: i64,
    /// Notes.
    pub annotations: BTreeMap<String, String>,
}

/// What a build gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedResult {
    /// The image, from daemons that know only one.
    pub deprecated: Option<Descriptor>,
    /// What is attested of it.
    pub attestations: Vec<Descriptor>,
    /// The image of each exporter that makes one, by its place in the list of exporters.
    pub images: BTreeMap<i64, Descriptor>,
}

impl Client {
    /// Tells of the builds there are and, unless the query says otherwise, of what happens next. Dropping the stream
    /// ends it.
    pub async fn history(
        &self,
        query: &HistoryQuery,
    ) -> Result<impl Stream<Item = Result<HistoryEvent, BuildError>> + Send + use<>, BuildError> {
        let request = BuildHistoryRequest {
            active_only: query.active_only,
            r#ref: query.reference.clone().unwrap_or_default(),
            early_exit: query.early_exit,
            filter: query.filters.clone(),
            limit: query.limit,
        };
        let stream = self.control().listen_build_history(request).await.map_err(build_error)?.into_inner();
        Ok(stream.filter_map(|event| async {
            match event {
                Ok(event) => wire::event(event).map(Ok),
                Err(e) => Some(Err(build_error(e))),
            }
        }))
    }

    /// The record of one build as it is now.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub async fn build_record(&self, reference: &str) -> Result<BuildRecord, BuildError> {
        let query = HistoryQuery {
            reference: Some(reference.to_string()),
            early_exit: true,
            ..HistoryQuery::default()
        };
        let mut events = Box::pin(self.history(&query).await?);
        let missing = || BuildError::new(Code::NotFound, format!("ref {reference} not found"));
        Ok(events.next().await.transpose()?.ok_or_else(missing)?.record)
    }

    /// Keeps a record when old ones go, or no longer.
    pub async fn pin_build(&self, reference: &str, pinned: bool) -> Result<(), BuildError> {
        self.update_history(UpdateBuildHistoryRequest { pinned, ..named(reference) }).await
    }

    /// Removes a record and what it keeps.
    pub async fn delete_build(&self, reference: &str) -> Result<(), BuildError> {
        self.update_history(UpdateBuildHistoryRequest { delete: true, ..named(reference) }).await
    }

    /// Waits until nothing will be added to the record of a build that is over.
    pub async fn finalize_build(&self, reference: &str) -> Result<(), BuildError> {
        self.update_history(UpdateBuildHistoryRequest { finalize: true, ..named(reference) }).await
    }

    async fn update_history(&self, request: UpdateBuildHistoryRequest) -> Result<(), BuildError> {
        self.control().update_build_history(request).await.map(drop).map_err(build_error)
    }

    /// The progress of a build from its beginning, of one that is over or of one that runs.
    pub async fn build_logs(
        &self,
        reference: &str,
    ) -> Result<impl Stream<Item = Result<Update, BuildError>> + Send + use<>, BuildError> {
        let request = StatusRequest { r#ref: reference.to_string() };
        let stream = self.control().status(request).await.map_err(build_error)?.into_inner();
        Ok(stream.map(|status| status.map(convert::update).map_err(build_error)))
    }
}

fn named(reference: &str) -> UpdateBuildHistoryRequest {
    UpdateBuildHistoryRequest { r#ref: reference.to_string(), ..Default::default() }
}
