//! A result's files, made available and looked at.

use crate::build::Build;
use crate::image::HubProgress;
use kiln_digest::Digest;
use kiln_fs::Root;
use kiln_llb::errdefs::BuildError;
use kiln_source::image::{LayerStatuses, RegistryLayers};
use kiln_worker::{Ref, session_context};
use std::sync::Arc;

impl Build {
    /// Mounts a result and runs `look` on its files, on a thread for such work. Layers of an image that are not here
    /// yet are pulled, shown below `vertex`.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        result: Ref,
        vertex: Option<Digest>,
        look: impl FnOnce(&Root) -> Result<T, BuildError> + Send + 'static,
    ) -> Result<T, BuildError> {
        self.ensure(&result, vertex).await?;
        let snapshots = self.engine.snapshots().clone();
        blocking(move || {
            let mounted = match result.snapshot() {
                Some(snapshot) => snapshots.mount_view(snapshot),
                None => snapshots.mount_empty(),
            };
            look(mounted.map_err(|e| BuildError::msg(e.to_string()))?.root())
        })
        .await
    }

    /// Brings the layers of an image that are not here yet.
    pub(crate) async fn ensure(&self, result: &Ref, vertex: Option<Digest>) -> Result<(), BuildError> {
        let Some(snapshot) = result.snapshot().filter(|s| s.is_lazy()) else { return Ok(()) };
        let vertex = vertex.unwrap_or_else(|| Digest::sha256(snapshot.id().as_str()));
        let access = session_context(self.engine.sessions(), &self.session).access;
        let (registry, content) = (self.engine.registry().clone(), self.engine.snapshots().content().clone());
        let provider = RegistryLayers::new(registry, content, access);
        let statuses = LayerStatuses::new(Arc::new(HubProgress::new(&self.hub, vertex)));
        let ensured = self.engine.snapshots().ensure(snapshot, &provider, &statuses).await;
        ensured.map_err(|e| BuildError::msg(e.to_string()))
    }
}

/// Runs `work` on a thread for what takes time.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BuildError> + Send + 'static,
) -> Result<T, BuildError> {
    kiln_blocking::run(work).await.map_err(|e| BuildError::msg(e.to_string()))?
}
