//! Layers on demand: fetched from the repository that their descriptor names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use kiln_content::ContentStore;
use kiln_digest::Digest;
use kiln_oci::{Descriptor, Reference, annotation};
use kiln_registry::{Access, Registry};
use kiln_snapshot::{LayerEvent, LayerProgress, LayerProvider};

use crate::{Progress, Status};

/// Fetches layers with the rights of one build. Works from descriptors alone, so also after a restart.
#[derive(Clone, Debug)]
pub struct RegistryLayers {
    registry: Registry,
    content: ContentStore,
    access: Access,
}

impl RegistryLayers {
    /// Layers go into `content`.
    pub fn new(registry: Registry, content: ContentStore, access: Access) -> Self {
        Self { registry, content, access }
    }
}

#[async_trait]
impl LayerProvider for RegistryLayers {
    async fn fetch(
        &self,
        descriptor: &Descriptor,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut last = None;
        for reference in repositories(descriptor) {
            let repository = self.registry.pull(&reference, self.access.clone())?;
            match repository.fetch(descriptor, &self.content, progress).await {
                Ok(()) => return Ok(()),
                Err(e) => last = Some(e),
            }
        }
        match last {
            Some(e) => Err(e.into()),
            None => Err(format!("{} has no known repository", descriptor.digest).into()),
        }
    }
}

/// The repositories in a descriptor's annotations.
fn repositories(descriptor: &Descriptor) -> Vec<Reference> {
    let sources = descriptor.annotations.iter().filter_map(|(key, paths)| {
        let domain = key.strip_prefix(annotation::DISTRIBUTION_SOURCE)?;
        Some(paths.split(',').map(move |path| format!("{domain}/{path}")))
    });
    sources.flatten().filter_map(|name| Reference::parse_normalized(&name).ok()).collect()
}

/// Shows layers as lines of progress: `sha256:...` while downloading, `extracting sha256:...` after it.
pub struct LayerStatuses {
    progress: Arc<dyn Progress>,
    started: Mutex<HashMap<(Digest, bool), SystemTime>>,
}

impl LayerStatuses {
    /// Lines go to `progress`.
    pub fn new(progress: Arc<dyn Progress>) -> Self {
        Self { progress, started: Mutex::default() }
    }

    fn send(&self, d: &Descriptor, extracting: bool, action: &str, current: u64, done: bool) {
        let now = SystemTime::now();
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let started = *started.entry((d.digest, extracting)).or_insert(now);
        let id = if extracting { format!("extracting {}", d.digest) } else { d.digest.to_string() };
        let total = if extracting { 0 } else { d.size };
        let completed = done.then_some(now);
        self.progress.status(Status { id, action: action.to_string(), current, total, started, completed });
    }
}

impl std::fmt::Debug for LayerStatuses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LayerStatuses")
    }
}

impl LayerProgress for LayerStatuses {
    fn layer(&self, d: &Descriptor, event: LayerEvent) {
        match event {
            LayerEvent::Downloading { current, .. } => self.send(d, false, "downloading", current, false),
            LayerEvent::Downloaded => self.send(d, false, "done", d.size, true),
            LayerEvent::Extracting => self.send(d, true, "extract", 0, false),
            LayerEvent::Extracted => self.send(d, true, "done", 0, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_from_annotations() {
        let key = format!("{}ghcr.io", annotation::DISTRIBUTION_SOURCE);
        let d =
            Descriptor::of("t", b"x").with_annotation(&key, "a/b,c,BAD ONE").with_annotation("other", "x");
        let names: Vec<_> = repositories(&d).iter().map(Reference::to_string).collect();
        assert_eq!(names, ["ghcr.io/a/b", "ghcr.io/c"]);
    }
}
