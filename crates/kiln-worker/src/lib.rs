//! The worker: operations on real snapshots and sandboxes.
//!
//! [`Worker`] is what the solver calls [`Ops`](kiln_solver::Ops): it says how an operation takes part in cache keys, executes
//! it, and finds earlier results. One module per kind of operation.

mod cache_map;
mod clients;
pub mod container;
mod egress;
mod env;
mod exec;
mod failure;
mod file;
mod file_op;
mod hosts;
mod nested;
mod ops;
mod result;
mod secrets;
mod source;
mod ssh;
mod stubs;

pub use clients::{Clients, SessionIds};
pub use failure::{Failure, Left};
pub use hosts::DnsConfig;
pub use nested::graph;
pub use result::Ref;
pub use source::{WorkerOp, session_context, source_error};

use kiln_digest::Digest;
use kiln_llb::Definition;
use kiln_llb::errdefs::BuildError;
use kiln_oci::Platform;
use kiln_proxy::{Policy, Proxy, Record};
use kiln_registry::{Access, Registry};
use kiln_sandbox::Executor;
use kiln_session::SessionManager;
use kiln_snapshot::Snapshots;
use kiln_solver::{JobId, JobSet, OpContext};
use kiln_source::image::RegistryLayers;
use kiln_source::local::LocalSource;
use kiln_source::{Memo, Sources};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What an operation is told of its surroundings.
pub(crate) type Cx = OpContext<Worker>;

/// Which client session belongs to a job. Jobs come and go while a step runs.
#[async_trait::async_trait]
pub trait JobSessions: Send + Sync {
    /// The session's id; `None` when the job has ended or has none.
    fn session(&self, job: &JobId) -> Option<String>;

    /// What the job's sources were found to stand for; `None` when it has ended.
    fn memo(&self, job: &JobId) -> Option<Arc<Memo>>;

    /// A graph that a step wrote, as it may run for the job.
    ///
    /// # Errors
    /// If it asks for what the job is not granted.
    async fn admit(&self, job: &JobId, definition: Definition) -> Result<Definition, BuildError>;

    /// Decides what the job's steps may fetch; `None` when it has ended.
    fn policy(&self, job: &JobId) -> Option<Arc<dyn Policy>>;

    /// Is told what a step fetched for the job through its proxy.
    fn fetched(&self, job: &JobId, step: &Digest, record: &Arc<Record>);
}

/// Everything a worker is made of.
pub struct WorkerOptions {
    /// Where results live.
    pub snapshots: Snapshots,
    /// Runs processes.
    pub executor: Arc<dyn Executor>,
    /// Clients.
    pub sessions: SessionManager,
    /// Which session belongs to a job.
    pub job_sessions: Arc<dyn JobSessions>,
    /// Brings images, repositories and downloads in.
    pub sources: Sources,
    /// Brings directories of clients in.
    pub local: LocalSource,
    /// Where layers are fetched from.
    pub registry: Registry,
    /// Resolver configuration of steps.
    pub dns: DnsConfig,
    /// Devices that steps may use; who may use which was decided before.
    pub devices: kiln_cdi::Registry,
    /// Steps at the same time; `None` is no limit.
    pub max_parallelism: Option<usize>,
    /// Parent of the steps' cgroups.
    pub cgroup_parent: Option<String>,
    /// What this machine runs.
    pub platform: Platform,
    /// For sockets; exists.
    pub run_dir: PathBuf,
}

/// The operations of a build on this machine. Clones share everything.
#[derive(Clone)]
pub struct Worker(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) snapshots: Snapshots,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) sessions: SessionManager,
    pub(crate) job_sessions: Arc<dyn JobSessions>,
    pub(crate) sources: Sources,
    pub(crate) local: LocalSource,
    registry: Registry,
    pub(crate) dns: DnsConfig,
    pub(crate) devices: kiln_cdi::Registry,
    pub(crate) steps: Option<Arc<Semaphore>>,
    pub(crate) cgroup_parent: Option<String>,
    pub(crate) platform: Platform,
    pub(crate) run_dir: PathBuf,
    pub(crate) proxy: Proxy,
}

impl Worker {
    /// Puts the parts together.
    pub fn new(o: WorkerOptions) -> Self {
        Self(Arc::new(Inner {
            snapshots: o.snapshots,
            executor: o.executor,
            sessions: o.sessions,
            job_sessions: o.job_sessions,
            sources: o.sources,
            local: o.local,
            registry: o.registry,
            dns: o.dns,
            devices: o.devices,
            steps: o.max_parallelism.map(|n| Arc::new(Semaphore::new(n.max(1)))),
            cgroup_parent: o.cgroup_parent,
            platform: o.platform,
            run_dir: o.run_dir,
            proxy: Proxy::default(),
        }))
    }
}

impl Inner {
    /// Sessions of all jobs that wait for this work, oldest job first.
    pub(crate) fn session_ids(&self, cx: &Cx) -> Vec<String> {
        self.sessions_of(&cx.jobs)
    }

    pub(crate) fn sessions_of(&self, jobs: &JobSet) -> Vec<String> {
        jobs.ids().iter().filter_map(|job| self.job_sessions.session(job)).collect()
    }

    /// A graph that a step wrote, as it may run for all jobs that wait for this work.
    pub(crate) async fn admit(
        &self,
        jobs: &JobSet,
        mut definition: Definition,
    ) -> Result<Definition, BuildError> {
        for job in jobs.ids() {
            definition = self.job_sessions.admit(&job, definition).await?;
        }
        Ok(definition)
    }

    pub(crate) fn memos_of(&self, jobs: &JobSet) -> Vec<Arc<Memo>> {
        jobs.ids().iter().filter_map(|job| self.job_sessions.memo(job)).collect()
    }

    /// Fetches layers with the rights of `access`.
    pub(crate) fn layers(&self, access: Access) -> RegistryLayers {
        RegistryLayers::new(self.registry.clone(), self.snapshots.content().clone(), access)
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Worker")
    }
}
