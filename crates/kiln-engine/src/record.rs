//! What the history learns of a build.

use crate::hub::{Follower, Hub};
use crate::{Engine, SolveInput, SolveRequest, SolveResponse};
use base64::Engine as _;
use kiln_history::{Exporter, History, Image, Outcome, Recording, Start};
use kiln_llb::errdefs::BuildError;
use std::collections::BTreeMap;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

/// The recording of a build that runs. Dropped without [`end`](Self::end), the build counts as canceled.
pub(crate) struct Record(Option<Task>);

struct Task {
    outcome: oneshot::Sender<Outcome>,
    task: JoinHandle<()>,
}

impl Record {
    /// Records from now on what `hub` says, unless the build is one of those that are not shown.
    pub(crate) fn begin(engine: &Engine, request: &SolveRequest, hub: &Hub) -> Self {
        if request.internal {
            return Self(None);
        }
        let recording = engine.history().begin(start(request));
        let (outcome, receiver) = oneshot::channel();
        Self(Some(Task { outcome, task: tokio::spawn(keep(recording, hub.follow(), receiver)) }))
    }

    /// The build is over and its hub is closed. Returns when the record is written.
    /// `said` is what the frontend said of its result, if it came to one.
    pub(crate) async fn end(
        self,
        done: &Result<SolveResponse, BuildError>,
        said: Option<BTreeMap<String, String>>,
    ) {
        let Some(Task { outcome, task }) = self.0 else { return };
        // Both fail only when the runtime shuts down.
        let _ = outcome.send(came_of(done, said.unwrap_or_default()));
        let _ = task.await;
    }
}

/// Goes on also when nobody waits for the build any more: a build that its client gave up has a record, too.
async fn keep(mut recording: Recording, mut follower: Follower, outcome: oneshot::Receiver<Outcome>) {
    while let Some(update) = follower.next().await {
        let written = spawn_blocking(move || {
            recording.write(update);
            recording
        });
        match written.await {
            Ok(back) => recording = back,
            Err(_) => return,
        }
    }
    let canceled = || Outcome { error: Some(BuildError::canceled()), ..Outcome::default() };
    let outcome = outcome.await.unwrap_or_else(|_| canceled());
    if let Ok(Err(error)) = spawn_blocking(move || recording.finish(outcome)).await {
        tracing::warn!(%error, "write build record");
    }
}

fn start(request: &SolveRequest) -> Start {
    let (frontend, attrs) = match &request.input {
        SolveInput::Frontend(f) => (f.name.clone(), &f.opts),
        SolveInput::Definition(_) | SolveInput::Client { .. } => (String::new(), &request.attrs),
    };
    let exporters = request.exporters.iter();
    Start {
        reference: request.id.clone(),
        frontend,
        frontend_attrs: attrs.clone(),
        exporters: exporters.map(|e| Exporter { kind: e.kind.clone(), attrs: e.attrs.clone() }).collect(),
    }
}

fn came_of(done: &Result<SolveResponse, BuildError>, said: BTreeMap<String, String>) -> Outcome {
    match done {
        Ok(response) => {
            let mut all = said;
            all.extend(response.exporter_response.clone());
            Outcome { error: None, response: all, images: response.images.clone() }
        }
        Err(error) => Outcome { error: Some(error.clone()), response: said, ..Outcome::default() },
    }
}

/// The image that an exporter says it made.
pub(crate) fn image(keys: &BTreeMap<String, String>) -> Option<Image> {
    let json =
        base64::engine::general_purpose::STANDARD.decode(keys.get("containerimage.descriptor")?).ok()?;
    let d: kiln_oci::Descriptor = serde_json::from_slice(&json).ok()?;
    Some(Image { media_type: d.media_type, digest: d.digest, size: d.size, annotations: d.annotations })
}

/// What a frontend said of its result, as text.
pub(crate) fn said(metadata: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, String> {
    metadata.iter().map(|(k, v)| (k.clone(), String::from_utf8_lossy(v).into_owned())).collect()
}

/// Looks every few minutes which records have outlived their limits, as long as the engine lives.
pub(crate) fn expire(engine: &Engine) {
    const PAUSE: std::time::Duration = std::time::Duration::from_secs(120);
    let weak = std::sync::Arc::downgrade(&engine.0);
    tokio::spawn(engine.0.closing.clone().run_until_cancelled_owned(async move {
        loop {
            tokio::time::sleep(PAUSE).await;
            let Some(history) = weak.upgrade().map(|inner| inner.history.clone()) else { return };
            if let Ok(Err(error)) = spawn_blocking(move || history.expire()).await {
                tracing::warn!(%error, "remove old build records");
            }
        }
    }));
}

impl Engine {
    /// The records of builds.
    pub fn history(&self) -> &History {
        &self.0.history
    }

    /// The blobs, for those who read what records name.
    pub fn content(&self) -> &kiln_content::ContentStore {
        &self.0.content
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_frontend_said_outlives_a_failure() {
        let said = BTreeMap::from([("frontend.key".to_string(), "value".to_string())]);
        let failed = came_of(&Err(BuildError::msg("no space")), said.clone());
        assert_eq!((failed.error.unwrap().message, failed.response), ("no space".into(), said.clone()));
        let keys = BTreeMap::from([("image.name".to_string(), "n".to_string())]);
        let done = came_of(&Ok(SolveResponse { exporter_response: keys, ..SolveResponse::default() }), said);
        assert_eq!(done.response.len(), 2);
    }
}
