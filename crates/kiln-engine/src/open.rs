//! The composition root: everything is made here, in this order, and nowhere else.

use crate::builds::Builds;
use crate::journal::DbJournal;
use crate::{
    Engine, Entitlement, FrontendRules, GatewayServer, GcRule, History, HistoryLimits, Inner, LogLimits, gc,
    record,
};
use kiln_content::{ContentError, ContentStore, Db, DbError};
use kiln_export::ImageRecords;
use kiln_history::HistoryError;
use kiln_oci::Platform;
use kiln_registry::{Registry, RegistryConfig, RegistryError};
use kiln_sandbox::{Executor, Launcher, LauncherConfig, OciRuntime, SandboxError};
use kiln_session::SessionManager;
use kiln_snapshot::{Driver, DriverChoice, SnapshotError, Snapshots};
use kiln_solver::{ResultId, Solver};
use kiln_source::git::GitConfig;
use kiln_source::local::LocalSource;
use kiln_source::{SourceError, Sources, SourcesConfig};
use kiln_worker::{DnsConfig, Worker, WorkerOptions};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What an engine is told.
#[derive(Debug)]
pub struct EngineOptions {
    /// State directory.
    pub root: PathBuf,
    /// How snapshots are stored.
    pub driver: DriverChoice,
    /// What runs steps.
    pub sandbox: SandboxChoice,
    /// All builds have the proxied network.
    pub proxy_network: bool,
    /// Entitlements that clients may ask for.
    pub allowed: Vec<Entitlement>,
    /// Devices that steps may use.
    pub devices: kiln_cdi::Registry,
    /// More labels of the worker.
    pub labels: BTreeMap<String, String>,
    /// What the worker reports to build for, the first one by default; none: what this machine runs.
    pub platforms: Vec<Platform>,
    /// Steps at the same time; `None` is no limit.
    pub max_parallelism: Option<usize>,
    /// Resolver configuration of steps.
    pub dns: DnsConfig,
    /// Parent of the steps' cgroups.
    pub cgroup_parent: Option<String>,
    /// Registries.
    pub registry: RegistryConfig,
    /// Garbage collection, applied in order; none: never by itself.
    pub gc: Vec<GcRule>,
    /// How much output of a step is kept.
    pub log_limits: LogLimits,
    /// How long records of builds are kept.
    pub history: HistoryLimits,
    /// Serves the gateway to frontends in containers.
    pub gateway: Arc<dyn GatewayServer>,
    /// Which frontends may be used.
    pub frontends: FrontendRules,
}

/// What runs steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxChoice {
    /// kiln's own launcher.
    Launcher,
    /// A program such as `runc`.
    OciRuntime(String),
}

/// Why an engine cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A directory.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The content store.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The snapshots.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The sources.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The registry client.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The records of builds.
    #[error(transparent)]
    History(#[from] HistoryError),
}

impl Engine {
    /// Opens the state directory and starts what works in the background.
    ///
    /// # Errors
    /// If a part cannot be opened; the message names it.
    pub async fn open(o: EngineOptions) -> Result<Self, EngineError> {
        let run_dir = make_dirs(&o.root)?;
        let db = Db::open(&o.root.join("kiln.db"))?;
        let content = ContentStore::open(&o.root.join("content"), db.clone())?;
        let snapshots = Snapshots::open(&o.root, db.clone(), content.clone(), o.driver)?;
        let (journal, index) = DbJournal::open(db.clone())?;
        let sessions = SessionManager::new();
        let registry = Registry::new(o.registry)?;
        let sources = Sources::new(SourcesConfig {
            registry: registry.clone(),
            snapshots: snapshots.clone(),
            git: GitConfig {
                prepare: Some(Arc::new(kiln_sys::process::tie_to_parent)),
                ..GitConfig::default()
            },
            scratch: run_dir.clone(),
        })?;
        let records = ImageRecords::open(db)?;
        let history = History::open(content.clone(), o.history)?;
        let builds = Builds::new(run_dir.clone());
        let platform = Platform::host();
        for problem in o.devices.scan().problems {
            tracing::warn!(problem, "devices are left out");
        }
        let executor = executor(&o.sandbox, &run_dir).await?;
        let worker = Worker::new(WorkerOptions {
            snapshots: snapshots.clone(),
            executor,
            sessions: sessions.clone(),
            job_sessions: Arc::new(builds.clone()),
            sources: sources.clone(),
            local: LocalSource::new(sessions.clone(), snapshots.clone()),
            registry: registry.clone(),
            dns: o.dns,
            devices: o.devices.clone(),
            max_parallelism: o.max_parallelism,
            cgroup_parent: o.cgroup_parent,
            platform: platform.clone(),
            run_dir,
        });
        let journal = Arc::new(journal);
        let solver = Solver::new(Arc::new(worker.clone()), index, journal.clone());
        let worker_id = worker_id(&o.root)?;
        let labels = labels(&snapshots, o.labels);
        let engine = Self(Arc::new(Inner {
            root: o.root,
            records,
            history,
            content,
            snapshots,
            sessions,
            registry,
            sources,
            builds,
            solver,
            worker,
            journal,
            platforms: if o.platforms.is_empty() { Platform::native() } else { o.platforms },
            worker_id,
            labels,
            proxy_network: o.proxy_network,
            allowed: o.allowed,
            devices: o.devices,
            gc_rules: o.gc,
            gc_wanted: Arc::default(),
            log_limits: o.log_limits,
            gateway: o.gateway,
            frontends: o.frontends,
            draining: CancellationToken::new(),
            closing: CancellationToken::new(),
        }));
        engine.forget_removed();
        gc::start(&engine);
        record::expire(&engine);
        Ok(engine)
    }

    /// Cache records of snapshots that go, go too.
    fn forget_removed(&self) {
        let weak = Arc::downgrade(&self.0);
        self.0.snapshots.on_removed(move |id| {
            if let Some(inner) = weak.upgrade() {
                inner.solver.forget(vec![ResultId::new(id.as_str())]);
            }
        });
    }
}

fn make_dirs(root: &Path) -> Result<PathBuf, EngineError> {
    use std::os::unix::fs::PermissionsExt;
    let io = |path: &Path| {
        let what = format!("make {}", path.display());
        move |e| EngineError::Io(what, e)
    };
    std::fs::create_dir_all(root).map_err(io(root))?;
    // Steps run as other users of this machine would otherwise find files of images here.
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o711)).map_err(io(root))?;
    let run_dir = root.join("run");
    let _ = std::fs::remove_dir_all(&run_dir);
    std::fs::create_dir_all(&run_dir).map_err(io(&run_dir))?;
    Ok(run_dir)
}

async fn executor(choice: &SandboxChoice, run_dir: &Path) -> Result<Arc<dyn Executor>, EngineError> {
    Ok(match choice {
        SandboxChoice::Launcher => Arc::new(Launcher::start(run_dir, LauncherConfig::default()).await?),
        SandboxChoice::OciRuntime(binary) => Arc::new(OciRuntime::new(binary, run_dir)?),
    })
}

/// Random once, then kept (spec daemon-and-cli.md, "Worker labels and id").
fn worker_id(root: &Path) -> Result<String, EngineError> {
    let path = root.join("worker-id");
    if let Ok(id) = std::fs::read_to_string(&path)
        && id.trim().len() == 25
    {
        return Ok(id.trim().to_string());
    }
    let alphabet = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let id: String = (0..25).map(|_| char::from(alphabet[rand::random_range(0..alphabet.len())])).collect();
    let written = kiln_fs::Root::open(root)
        .and_then(|dir| kiln_fs::atomic::write_atomic(&dir, "worker-id", id.as_bytes()));
    written.map_err(|e| EngineError::Io(format!("write {}", path.display()), std::io::Error::other(e)))?;
    Ok(id)
}

fn labels(snapshots: &Snapshots, own: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let snapshotter = match snapshots.driver() {
        Driver::Native => "native",
        Driver::Overlay { .. } => "overlayfs",
    };
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let given = [
        ("executor", "oci"),
        ("hostname", hostname.trim()),
        ("network", "host"),
        ("snapshotter", snapshotter),
        ("selinux.enabled", "false"),
        ("oci.process-mode", "sandbox"),
    ];
    let mut labels: BTreeMap<String, String> = given
        .iter()
        .map(|(k, v)| (format!("org.mobyproject.buildkit.worker.{k}"), (*v).to_string()))
        .collect();
    labels.extend(own);
    labels
}
