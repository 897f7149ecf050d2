//! Exports of a build: all are made at the same time; pushes begin when all could be made.

use crate::hub::{Hub, Synthetic};
use crate::image::HubProgress;
use crate::{Engine, Inner, record};
use futures::FutureExt;
use futures::future::join_all;
use kiln_export::{ExportContext, ExportError, ExportInput, Exported, Exporter};
use kiln_llb::errdefs::BuildError;
use kiln_registry::Access;
use kiln_source::image::{LayerStatuses, RegistryLayers};
use kiln_worker::session_context;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What came of all exporters.
#[derive(Default)]
pub(crate) struct Exports {
    /// The keys of all responses, later exporters' over earlier ones'.
    pub(crate) response: BTreeMap<String, String>,
    /// The image of each exporter that made one, by its place.
    pub(crate) images: BTreeMap<usize, kiln_history::Image>,
}

/// One exporter at work.
struct Export<'a> {
    inner: &'a Inner,
    session: &'a str,
    exporter: &'a Exporter,
    index: usize,
    shown: Synthetic,
    access: Access,
    progress: Arc<HubProgress>,
    provider: RegistryLayers,
    layers: LayerStatuses,
}

impl<'a> Export<'a> {
    fn start(inner: &'a Inner, hub: &Hub, session: &'a str, index: usize, exporter: &'a Exporter) -> Self {
        let shown = Synthetic::start(hub, exporter.name());
        let access = session_context(&inner.sessions, session).access;
        let progress = Arc::new(HubProgress::new(hub, shown.digest()));
        let provider = RegistryLayers::new(inner.registry.clone(), inner.content.clone(), access.clone());
        let layers = LayerStatuses::new(progress.clone());
        Self { inner, session, exporter, index, shown, access, progress, provider, layers }
    }

    fn context(&self) -> ExportContext<'_> {
        ExportContext {
            snapshots: &self.inner.snapshots,
            content: &self.inner.content,
            sessions: &self.inner.sessions,
            session: self.session,
            registry: &self.inner.registry,
            access: self.access.clone(),
            provider: &self.provider,
            layers: &self.layers,
            progress: &*self.progress,
            records: &self.inner.records,
            index: self.index,
        }
    }

    async fn prepare(&self, input: &ExportInput) -> Result<Exported, ExportError> {
        kiln_export::prepare(self.exporter, input, &self.context()).await
    }
}

impl Engine {
    /// Exports `input` in every way asked for.
    pub(crate) async fn export(
        &self,
        hub: &Hub,
        session: &str,
        exporters: &[Exporter],
        input: &ExportInput,
    ) -> Result<Exports, BuildError> {
        let start = |(index, exporter)| Export::start(&self.0, hub, session, index, exporter);
        let exports: Vec<_> = exporters.iter().enumerate().map(start).collect();
        let prepared = join_all(exports.iter().map(|e| e.prepare(input).boxed())).await;
        let all_made = prepared.iter().all(Result::is_ok);
        let mut all = Exports::default();
        let mut failed = None;
        for (export, prepared) in exports.into_iter().zip(prepared) {
            let done = match prepared {
                Ok(exported) if all_made && failed.is_none() => {
                    exported.finish(&export.context()).await.map(|()| exported.response)
                }
                // Another one failed: nothing is pushed.
                Ok(exported) => Ok(exported.response),
                Err(e) => Err(e),
            };
            let error = done.as_ref().err().map(ToString::to_string);
            export.shown.finish(error.as_deref());
            match done {
                Ok(keys) => {
                    all.images.extend(record::image(&keys).map(|image| (export.index, image)));
                    all.response.extend(keys);
                }
                Err(e) => failed = failed.or(Some(BuildError::msg(e.to_string()))),
            }
        }
        failed.map_or(Ok(all), Err)
    }
}
