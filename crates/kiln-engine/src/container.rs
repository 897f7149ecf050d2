//! Containers that a frontend or a client starts on results of its build.

use crate::bridge::shown;
use crate::files::{self, FileRange};
use crate::mount::blocking;
use crate::{Bridge, Entitlement};
use kiln_fs::Root;
use kiln_llb::errdefs::{BuildError, Code};
use kiln_llb::{HostIp, Mount, NetMode, SecurityMode};
use kiln_session::fsutil::Stat;

use kiln_worker::Ref;
use kiln_worker::container::{Container, ContainerProcess, ContainerSpec, ProcessIo, StartSpec};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// More containers than any build has at once.
const MAX_CONTAINERS: usize = 1000;
/// Longest id, in bytes. It is a key and nothing else.
const MAX_ID: usize = 1024;

/// A container to be made.
#[derive(Clone, Debug, Default)]
pub struct ContainerRequest {
    /// Chosen by the caller; names the container at its bridge.
    pub id: String,
    /// The mounts. Those with a `result_id` show that result: one that `solve` returned, or one named in an error.
    pub mounts: Vec<Mount>,
    /// What it sees of the network.
    pub network: NetMode,
    /// Lines for its hosts file.
    pub extra_hosts: Vec<HostIp>,
    /// Its host name.
    pub hostname: String,
    /// The operating system its programs are for; empty is this one's.
    pub os: String,
}

/// The containers of one bridge.
#[derive(Debug, Default)]
pub(crate) struct Containers(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    containers: HashMap<String, Container>,
    closed: bool,
}

impl Containers {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vacant(open: &Open, id: &str) -> Result<(), BuildError> {
        if open.containers.contains_key(id) {
            return Err(BuildError::new(
                Code::AlreadyExists,
                format!("Container {} already exists", shown(id)),
            ));
        }
        if open.containers.len() >= MAX_CONTAINERS {
            let message = format!("a build may not have more than {MAX_CONTAINERS} containers");
            return Err(BuildError::new(Code::ResourceExhausted, message));
        }
        if open.closed { Err(BuildError::canceled()) } else { Ok(()) }
    }

    fn insert(&self, id: &str, container: Container) -> Result<(), BuildError> {
        let mut open = self.open();
        Self::vacant(&open, id)?;
        open.containers.insert(id.to_string(), container);
        Ok(())
    }

    fn get(&self, id: &str) -> Option<Container> {
        self.open().containers.get(id).cloned()
    }

    /// Ends them all.
    pub(crate) fn close(&self) {
        let mut open = self.open();
        open.closed = true;
        for (id, container) in open.containers.drain() {
            // Without a runtime they are killed when they are dropped.
            let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
            runtime.spawn(async move {
                if let Err(error) = container.release().await
                    && !error.is_canceled()
                {
                    tracing::warn!(id, %error, "release a container at the end of its build");
                }
            });
        }
    }
}

/// Every process that a bridge starts passes here.
fn require(what: Entitlement, granted: &[Entitlement]) -> Result<(), BuildError> {
    if granted.contains(&what) {
        return Ok(());
    }
    Err(BuildError::new(Code::PermissionDenied, format!("{} is not allowed", what.as_str())))
}

impl Bridge {
    /// Makes a container; nothing runs in it yet.
    ///
    /// # Errors
    /// If the id is taken, a mount cannot be made, or it asks for what is not granted.
    pub async fn new_container(&self, request: ContainerRequest) -> Result<(), BuildError> {
        if request.id.len() > MAX_ID {
            return Err(BuildError::new(Code::InvalidArgument, "the container id is too long"));
        }
        if request.network == NetMode::Host {
            require(Entitlement::NetworkHost, self.granted())?;
        }
        Containers::vacant(&self.containers().open(), &request.id)?;
        let id = request.id.clone();
        let container = self.open(self.make(request)).await?;
        let inserted = self.containers().insert(&id, container.clone());
        if inserted.is_err() {
            let _ = container.release().await;
        }
        inserted
    }

    async fn make(&self, request: ContainerRequest) -> Result<Container, BuildError> {
        let mut refs: Vec<Ref> = Vec::new();
        let mut mounts = request.mounts;
        for mount in mounts.iter_mut().filter(|m| !m.result_id.is_empty()) {
            let found = self.result(&mount.result_id).await;
            let found = found.map_err(|e| e.context(format!("mount {}", mount.dest)))?;
            self.build().ensure(&found, None).await?;
            mount.input = Some(refs.len());
            refs.push(found);
        }
        let spec = ContainerSpec {
            name: request.id,
            mounts,
            refs,
            files: Vec::new(),
            network: request.network,
            proxied: self.build().proxied(),
            extra_hosts: request.extra_hosts,
            hostname: request.hostname,
            os: request.os,
        };
        let session = self.session().to_string();
        let sessions = move || Some(session.clone()).filter(|s| !s.is_empty()).into_iter().collect();
        self.engine().worker().new_container(spec, Arc::new(sessions)).await
    }

    /// Starts a process in a container: the first one is its process 1, others join it.
    ///
    /// # Errors
    /// If there is no such container, the process asks for what is not granted, or it cannot be started.
    pub async fn start_process(
        &self,
        container: &str,
        process: StartSpec,
    ) -> Result<(ContainerProcess, ProcessIo), BuildError> {
        if process.security == SecurityMode::Insecure {
            require(Entitlement::SecurityInsecure, self.granted())?;
        }
        let found = self.containers().get(container).ok_or_else(|| {
            let message = format!("container {:?} previously released or not created", shown(container));
            BuildError::new(Code::NotFound, message)
        })?;
        self.open(Box::pin(found.start(process))).await
    }

    /// Kills what runs in a container and removes it.
    ///
    /// # Errors
    /// If there is none, or "canceled" when something was killed.
    pub async fn release_container(&self, id: &str) -> Result<(), BuildError> {
        let found = self.containers().open().containers.remove(id);
        let missing =
            || BuildError::new(Code::NotFound, format!("container details for {} not found", shown(id)));
        found.ok_or_else(missing)?.release().await
    }

    async fn look_into<T: Send + 'static>(
        &self,
        id: &str,
        mount: usize,
        look: impl FnOnce(&Root) -> Result<T, BuildError> + Send + 'static,
    ) -> Result<T, BuildError> {
        let missing = || {
            let message = format!("container details for {}@{mount} not found", shown(id));
            BuildError::new(Code::NotFound, message)
        };
        let mounted = self.containers().get(id).ok_or_else(missing)?.files(mount)?;
        blocking(move || look(mounted.root())).await
    }

    /// Reads a file, or a part of it, in a mount of a container.
    ///
    /// # Errors
    /// If it does not exist, is no regular file, or is too large for one answer.
    pub async fn read_container_file(
        &self,
        container: &str,
        mount: usize,
        path: &str,
        range: Option<FileRange>,
    ) -> Result<Vec<u8>, BuildError> {
        let path = path.to_string();
        self.look_into(container, mount, move |root| files::read(root, &path, range)).await
    }

    /// Lists a directory in a mount of a container.
    ///
    /// # Errors
    /// If it is none.
    pub async fn read_container_dir(
        &self,
        container: &str,
        mount: usize,
        path: &str,
        include: &str,
    ) -> Result<Vec<Stat>, BuildError> {
        let (path, include) = (path.to_string(), include.to_string());
        self.look_into(container, mount, move |root| files::list(root, &path, &include)).await
    }

    /// Describes a file in a mount of a container.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn stat_container(
        &self,
        container: &str,
        mount: usize,
        path: &str,
    ) -> Result<Stat, BuildError> {
        let path = path.to_string();
        self.look_into(container, mount, move |root| files::stat(root, &path)).await
    }
}
