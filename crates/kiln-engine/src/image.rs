//! Image configs for frontends, and the progress of exporters.

use crate::Engine;
use crate::hub::Hub;
use jiff::Timestamp;
use kiln_digest::Digest;
use kiln_frontend::{ResolveOpt, ResolvedImage};
use kiln_llb::errdefs::{BuildError, Code};
use kiln_oci::Reference;
use kiln_progress::StatusUpdate;
use kiln_source::Layout;
use kiln_source::image::{ImageId, Origin};
use kiln_worker::{session_context, source_error};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

impl Engine {
    /// Finds an image and its config, with the credentials of `session`.
    pub(crate) async fn resolve_image(
        &self,
        reference: &str,
        opt: &ResolveOpt,
        session: &str,
    ) -> Result<ResolvedImage, BuildError> {
        let name = Reference::parse_normalized(reference).map_err(|e| {
            BuildError::new(Code::InvalidArgument, format!("failed to parse image name {reference:?}: {e}"))
        })?;
        let platform = opt
            .platform
            .clone()
            .or_else(|| self.0.platforms.first().cloned())
            .unwrap_or_else(kiln_oci::Platform::host);
        let mut id = ImageId::new(name.with_default_tag(), platform);
        if let Some(store) = &opt.oci_layout {
            let layout = Layout { session: store.session_id.clone(), store: store.store_id.clone() };
            id.origin = Origin::Layout(layout);
        }
        id.mode = opt.mode;
        let context = session_context(&self.0.sessions, session);
        let found = self.0.sources.images().resolve(&id, &context).await;
        let found = found.map_err(|e| {
            source_error(&e).context(format!("failed to resolve source metadata for {}", id.reference))
        })?;
        Ok(ResolvedImage {
            reference: id.reference.to_string(),
            digest: found.root.digest,
            config: found.config_bytes,
        })
    }
}

/// Counters below the vertex of an exporter.
pub(crate) struct HubProgress {
    hub: Hub,
    vertex: Digest,
    started: Mutex<HashMap<String, Timestamp>>,
}

impl HubProgress {
    pub(crate) fn new(hub: &Hub, vertex: Digest) -> Self {
        Self { hub: hub.clone(), vertex, started: Mutex::default() }
    }
}

impl kiln_export::Progress for HubProgress {
    fn status(&self, id: &str, current: u64, total: u64, done: bool) {
        let now = Timestamp::now();
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let started =
            *self.started.lock().unwrap_or_else(PoisonError::into_inner).entry(id.to_string()).or_insert(now);
        self.hub.status(StatusUpdate {
            id: id.to_string(),
            vertex: self.vertex,
            name: String::new(),
            total: number(total),
            current: number(current),
            timestamp: now,
            started: Some(started),
            completed: done.then_some(now),
        });
    }
}

/// Layers that an export had to bring, shown below its vertex.
impl kiln_source::Progress for HubProgress {
    fn status(&self, s: kiln_source::Status) {
        kiln_export::Progress::status(self, &s.id, s.current, s.total, s.completed.is_some());
    }

    fn log(&self, _: kiln_source::LogStream, _: &[u8]) {}
}
