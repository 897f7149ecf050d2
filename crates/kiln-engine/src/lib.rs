//! The engine: composes everything; builds, disk usage, garbage collection.
//!
//! [`Engine::open`] is the one place where rooms are constructed and put together. A build is [`Engine::solve`]; its
//! progress is followed by [`Engine::follow`], also by others than the one who asked for the build.

mod bridge;
mod build;
mod builds;
mod container;
mod egress;
mod entitle;
mod export;
mod files;
mod frontend_image;
mod frontends;
mod gateway;
mod gc;
mod host;
mod hub;
mod image;
mod journal;
mod mount;
mod observer;
mod open;
mod outcome;
mod policy;
mod record;
mod request;
mod session_export;
mod solve;
mod usage;
mod verify;

pub use bridge::{
    Bridge, BridgeInput, BridgeRef, GitMeta, HttpMeta, ImageMeta, SourceMeta, SourceMetaRequest,
};
pub use container::ContainerRequest;
pub use files::FileRange;
pub use frontends::{FrontendRequest, FrontendRules};
pub use gateway::{BoxedStream, GatewayServer};
pub use gc::GcRule;
pub use hub::{Follower, Hub, LogLimits};
pub use kiln_frontend::{CacheImport, OciStore, ResolveOpt, ResolvedImage};
pub use kiln_history::{History, Limits as HistoryLimits};
pub use kiln_registry::{HostConfig, KeyPair, Proxies, RegistryConfig};
pub use kiln_worker::DnsConfig;
pub use kiln_worker::container::{ContainerProcess, ProcessIo, StartSpec, Wanted};
pub use observer::Steps;
pub use open::{EngineError, EngineOptions, SandboxChoice};
pub use outcome::{Outcome, ResultRefs};
pub use policy::{PolicyAnswer, PolicyCheck, SourceRules};
pub use request::{DeviceGrant, Entitlement, ExporterSpec, SolveInput, SolveRequest, SolveResponse};
pub use usage::WorkerInfo;

use builds::Builds;
use journal::DbJournal;
use kiln_content::ContentStore;
use kiln_llb::errdefs::BuildError;
use kiln_oci::Platform;
use kiln_session::SessionManager;
use kiln_snapshot::Snapshots;
use kiln_solver::Solver;
use kiln_worker::Worker;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The builder of one state directory. Clones share everything.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    root: PathBuf,
    content: ContentStore,
    snapshots: Snapshots,
    sessions: SessionManager,
    registry: kiln_registry::Registry,
    sources: kiln_source::Sources,
    records: kiln_export::ImageRecords,
    history: History,
    builds: Builds,
    solver: Solver<Worker>,
    worker: Worker,
    journal: Arc<DbJournal>,
    platforms: Vec<Platform>,
    worker_id: String,
    labels: BTreeMap<String, String>,
    proxy_network: bool,
    allowed: Vec<Entitlement>,
    devices: kiln_cdi::Registry,
    gc_rules: Vec<GcRule>,
    gc_wanted: Arc<tokio::sync::Notify>,
    log_limits: LogLimits,
    gateway: Arc<dyn GatewayServer>,
    frontends: FrontendRules,
    /// Fires when new builds are refused.
    draining: CancellationToken,
    /// Fires when the engine closes.
    closing: CancellationToken,
}

impl Engine {
    /// Clients of this engine.
    pub fn sessions(&self) -> &SessionManager {
        &self.0.sessions
    }

    /// What the sources of a running build were found to stand for.
    pub(crate) fn memos(&self, id: &str) -> Vec<Arc<kiln_source::Memo>> {
        self.0.builds.memos(id)
    }

    /// The snapshots.
    pub fn snapshots(&self) -> &Snapshots {
        &self.0.snapshots
    }

    pub(crate) fn sources(&self) -> &kiln_source::Sources {
        &self.0.sources
    }

    pub(crate) fn registry(&self) -> &kiln_registry::Registry {
        &self.0.registry
    }

    pub(crate) fn worker(&self) -> &Worker {
        &self.0.worker
    }

    pub(crate) fn worker_id(&self) -> &str {
        &self.0.worker_id
    }

    /// What is built for, the native one first.
    pub(crate) fn platforms(&self) -> &[Platform] {
        &self.0.platforms
    }

    pub(crate) fn frontend_rules(&self) -> &FrontendRules {
        &self.0.frontends
    }

    /// Serves bridges to frontends in containers.
    pub(crate) fn gateway(&self) -> &Arc<dyn GatewayServer> {
        &self.0.gateway
    }

    /// The progress of a build from its beginning; waits a few seconds for one that is not there yet.
    pub async fn follow(&self, id: &str) -> Option<Follower> {
        self.0.builds.hub(id).await.map(|hub| hub.follow())
    }

    /// The gateway of a build that its client drives; waits a few seconds for one that is not there yet.
    ///
    /// # Errors
    /// If there is no such build, or it is not driven by its client.
    pub async fn bridge(&self, id: &str) -> Result<Bridge, BuildError> {
        self.0.builds.bridge(id).await
    }

    /// Refuses new builds from now on; those that run go on.
    pub fn drain(&self) {
        self.0.draining.cancel();
    }

    /// Fires when [`Engine::drain`] is called.
    pub fn draining(&self) -> CancellationToken {
        self.0.draining.clone()
    }

    /// How many builds run.
    pub fn running(&self) -> usize {
        self.0.builds.running()
    }

    /// Stops what runs and writes what is not written yet.
    pub async fn close(&self) {
        self.0.closing.cancel();
        while self.0.builds.running() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        self.0.history.close().await;
        self.0.journal.flush().await;
        let snapshots = self.0.snapshots.clone();
        let synced = tokio::task::spawn_blocking(move || snapshots.sync()).await;
        if let Ok(Err(error)) = synced {
            tracing::warn!(%error, "sync snapshots");
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({})", self.0.root.display())
    }
}
