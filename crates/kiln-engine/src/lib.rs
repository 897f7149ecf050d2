//! The engine: composes everything; builds, disk usage, garbage collection.
//!
//! [`Engine::open`] is the one place where rooms are constructed and put together. A build is [`Engine::solve`]; its
//! progress is followed by [`Engine::follow`], also by others than the one who asked for the build.

mod builds;
mod entitle;
mod export;
mod gc;
mod host;
mod hub;
mod image;
mod journal;
mod observer;
mod open;
mod refs;
mod request;
mod solve;
mod usage;

pub use gc::GcRule;
pub use hub::{Follower, Hub, LogLimits};
pub use kiln_registry::{HostConfig, KeyPair, Proxies, RegistryConfig};
pub use kiln_worker::DnsConfig;
pub use observer::Steps;
pub use open::{EngineError, EngineOptions, SandboxChoice};
pub use request::{Entitlement, ExporterSpec, SolveInput, SolveRequest, SolveResponse};
pub use usage::WorkerInfo;

use builds::Builds;
use journal::DbJournal;
use kiln_content::ContentStore;
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
    builds: Builds,
    solver: Solver<Worker>,
    journal: Arc<DbJournal>,
    platforms: Vec<Platform>,
    worker_id: String,
    labels: BTreeMap<String, String>,
    allowed: Vec<Entitlement>,
    gc_rules: Vec<GcRule>,
    gc_wanted: tokio::sync::Notify,
    log_limits: LogLimits,
    /// Fires when the engine closes.
    closing: CancellationToken,
}

impl Engine {
    /// Clients of this engine.
    pub fn sessions(&self) -> &SessionManager {
        &self.0.sessions
    }

    /// The snapshots.
    pub fn snapshots(&self) -> &Snapshots {
        &self.0.snapshots
    }

    /// The progress of a build from its beginning; waits a few seconds for one that is not there yet.
    pub async fn follow(&self, id: &str) -> Option<Follower> {
        self.0.builds.hub(id).await.map(|hub| hub.follow())
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
