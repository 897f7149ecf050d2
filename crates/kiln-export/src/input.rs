//! What an exporter works with.

use crate::{ExportError, ImageRecords};
use kiln_content::ContentStore;
use kiln_registry::{Access, Registry};
use kiln_session::{Lookup, Session, SessionManager};
use kiln_snapshot::{CompressionOpts, LayerProgress, LayerProvider, Snapshot, Snapshots};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const TELL_EVERY: Duration = Duration::from_millis(150);

/// The result of a build.
#[derive(Clone, Debug, Default)]
pub struct ExportInput {
    /// A filesystem per platform id; one without platform when there is no map. `None` is the empty filesystem.
    pub refs: Vec<(Option<String>, Option<Snapshot>)>,
    /// From the frontend, such as `containerimage.config`; with `/<platform id>` appended in a map.
    pub metadata: BTreeMap<String, Vec<u8>>,
}

impl ExportInput {
    /// Whether the result is a map by platform.
    pub(crate) fn is_map(&self) -> bool {
        self.refs.iter().any(|(platform, _)| platform.is_some())
    }

    /// With more metadata, which goes before its own.
    pub(crate) fn with(&self, more: &BTreeMap<String, Vec<u8>>) -> Self {
        let mut out = self.clone();
        out.metadata.extend(more.clone());
        out
    }

    /// The value of `key` for a platform.
    pub(crate) fn value(&self, key: &str, platform: Option<&str>) -> Option<&[u8]> {
        let own = platform.and_then(|p| self.metadata.get(&format!("{key}/{p}")));
        own.or_else(|| self.metadata.get(key)).map(Vec::as_slice)
    }
}

/// Counters below the exporter's vertex.
pub trait Progress: Send + Sync {
    /// Something goes on; `done` ends it.
    fn status(&self, id: &str, current: u64, total: u64, done: bool);
}

/// What an exporter may use.
pub struct ExportContext<'a> {
    /// The snapshots.
    pub snapshots: &'a Snapshots,
    /// The blobs.
    pub content: &'a ContentStore,
    /// The clients.
    pub sessions: &'a SessionManager,
    /// The client that gets the result.
    pub session: &'a str,
    /// The registry client.
    pub registry: &'a Registry,
    /// Whose credentials a push uses.
    pub access: Access,
    /// Brings layers that nobody has needed so far.
    pub provider: &'a dyn LayerProvider,
    /// Is told of layers that are brought.
    pub layers: &'a dyn LayerProgress,
    /// Is told what goes on.
    pub progress: &'a dyn Progress,
    /// Names of images that stay here.
    pub records: &'a ImageRecords,
    /// Number of this exporter in the request.
    pub index: usize,
}

impl ExportContext<'_> {
    pub(crate) async fn client(&self) -> Result<Session, ExportError> {
        Ok(self.sessions.get(self.session, Lookup::Wait).await?)
    }

    /// Brings the blobs of all layers that an image with these options has.
    pub(crate) async fn fetch(&self, input: &ExportInput, opts: &CompressionOpts) -> Result<(), ExportError> {
        let present = input.refs.iter().filter_map(|(_, snapshot)| snapshot.as_ref());
        let fetches =
            present.map(|snapshot| self.snapshots.fetch(snapshot, opts, self.provider, self.layers));
        futures::future::try_join_all(fetches).await?;
        Ok(())
    }

    /// Runs `work` and tells every now and then how many bytes `counter` says.
    pub(crate) async fn counting<T, E>(
        &self,
        id: &str,
        counter: &AtomicU64,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let tell = |done| self.progress.status(id, counter.load(Ordering::Relaxed), 0, done);
        tell(false);
        let mut work = std::pin::pin!(work);
        let mut tick = tokio::time::interval(TELL_EVERY);
        let done = loop {
            tokio::select! {
                biased;
                done = &mut work => break done,
                _ = tick.tick() => tell(false),
            }
        };
        if done.is_ok() {
            tell(true);
        }
        done
    }

    /// Runs `work` and tells of it.
    pub(crate) async fn during<T, E>(
        &self,
        id: &str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.progress.status(id, 0, 0, false);
        let done = work.await;
        if done.is_ok() {
            self.progress.status(id, 0, 0, true);
        }
        done
    }

    /// Tells of something that took no time worth mentioning.
    pub(crate) fn note(&self, id: &str) {
        self.progress.status(id, 0, 0, false);
        self.progress.status(id, 0, 0, true);
    }
}
