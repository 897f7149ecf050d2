//! Builders as commands see them: an instance, or a Docker context that stands for one.

use std::collections::BTreeMap;

use futures::future::join_all;
use kiln_client::{Device, GcPolicy, Worker};
use kiln_oci::Platform;

use crate::docker::{DEFAULT_CONTEXT, Docker, Endpoint};
use crate::driver::{Driver, DriverKind, OwnDaemon, Status};
use crate::engine::Engine;
use crate::instance::{Instance, Node};
use crate::steps::Steps;
use crate::{ConfigDir, Error, Store};

/// What builders are made from.
#[derive(Clone, Debug)]
pub struct World {
    /// Docker's configuration.
    pub docker: Docker,
    /// Where instances are.
    pub config: ConfigDir,
    /// kiln's own daemon.
    pub own: OwnDaemon,
}

/// A builder. Its nodes are loaded when asked for.
#[derive(Clone, Debug)]
pub struct Builder {
    /// What is stored of it.
    pub instance: Instance,
}

/// A node with the way to its daemon.
#[derive(Debug)]
pub struct LoadedNode {
    /// What is stored of it.
    pub node: Node,
    /// The way to its daemon, or why there is none.
    pub driver: Result<Driver, Error>,
    /// What the daemon says; None = it was not asked.
    pub facts: Option<Result<Facts, Error>>,
}

/// What a daemon says of itself.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What it is doing; nothing else is known when it does not run.
    pub status: Status,
    /// Ids of its workers, in order.
    pub ids: Vec<String>,
    /// Its version.
    pub version: String,
    /// What it builds for.
    pub platforms: Vec<Platform>,
    /// What its first worker says of itself.
    pub labels: BTreeMap<String, String>,
    /// How its first worker cleans up.
    pub gc: Vec<GcPolicy>,
    /// Devices of its first worker.
    pub devices: Vec<Device>,
}

impl World {
    /// Opens the store.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn store(&self) -> Result<Store, Error> {
        Store::open(&self.config)
    }

    /// The builder of a name, else the current one.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, store: &Store, name: Option<&str>) -> Result<Builder, Error> {
        let instance = match name.filter(|n| !n.is_empty()) {
            Some(name) => self.named(store, name)?,
            None => match store.current(&self.docker.current_key()?)? {
                Some(instance) => instance,
                None => self.named(store, self.docker.current())?,
            },
        };
        Ok(Builder { instance })
    }

    /// As [`World::find`], but not the builder of a context that is not the current one.
    ///
    /// # Errors
    /// There is none.
    pub fn find_usable(&self, store: &Store, name: Option<&str>) -> Result<Builder, Error> {
        let builder = self.find(store, name)?;
        let name = &builder.instance.name;
        if builder.instance.is_context && name != self.docker.current() {
            return Err(Error::Invalid(format!(
                "use `docker --context={name} buildx` to switch to context {name:?}"
            )));
        }
        Ok(builder)
    }

    /// All builders: instances, then contexts.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn all(&self, store: &Store) -> Result<Vec<Builder>, Error> {
        let mut list = store.list()?;
        for context in self.docker.contexts()? {
            if !list.iter().any(|i| i.name == context) {
                list.push(self.context(store, &context)?);
            }
        }
        Ok(list.into_iter().map(|instance| Builder { instance }).collect())
    }

    fn named(&self, store: &Store, name: &str) -> Result<Instance, Error> {
        match store.get(name) {
            Ok(Some(instance)) => return Ok(instance),
            Ok(None) | Err(Error::Name(_)) => {}
            Err(e) => return Err(e),
        }
        if !self.docker.contexts()?.iter().any(|c| c == name) {
            return Err(Error::NoBuilder(name.to_owned()));
        }
        self.context(store, name)
    }

    fn context(&self, store: &Store, name: &str) -> Result<Instance, Error> {
        let node = Node { name: name.to_owned(), endpoint: name.to_owned(), ..Node::default() };
        Ok(Instance {
            name: name.to_owned(),
            nodes: vec![node],
            is_context: true,
            last_activity: store.last_activity(name)?,
            ..Instance::default()
        })
    }

    /// The driver of a builder. That of a context depends on what is there: the engine that it names, and where the
    /// user named none and none is there, kiln's own daemon.
    ///
    /// # Errors
    /// There is no such driver; or the engine cannot be reached.
    pub async fn driver_kind(&self, builder: &mut Builder) -> Result<DriverKind, Error> {
        let instance = &mut builder.instance;
        if !instance.driver.is_empty() {
            return match instance.driver.as_str() {
                "docker" => Ok(DriverKind::Docker),
                name => DriverKind::of_instance(name),
            };
        }
        let name = instance.nodes.first().map(|n| n.endpoint.clone()).unwrap_or_default();
        let endpoint = self.docker.endpoint(&name)?;
        let endpoint = endpoint.unwrap_or_else(|| Endpoint::at(name.clone()));
        let is_implicit = name == DEFAULT_CONTEXT && !self.docker.is_host_named();
        let kind = match Engine::new(&endpoint)?.ping().await {
            Ok(()) => DriverKind::Docker,
            // Without rights there is an engine nonetheless.
            Err(Error::NoEngine { why, .. }) if is_implicit && !why.contains("permission denied") => {
                DriverKind::Kiln
            }
            Err(e) => return Err(e),
        };
        if kind == DriverKind::Kiln {
            instance.nodes[0].endpoint = self.own.address.to_string();
        }
        kind.name().clone_into(&mut instance.driver);
        Ok(kind)
    }

    /// The nodes of a builder and the ways to their daemons.
    ///
    /// # Errors
    /// As [`World::driver_kind`].
    pub async fn nodes(&self, builder: &mut Builder) -> Result<Vec<LoadedNode>, Error> {
        let kind = self.driver_kind(builder).await?;
        let load = |node: &Node| LoadedNode {
            node: node.clone(),
            driver: Driver::of_node(kind, node, &self.docker, &self.own),
            facts: None,
        };
        Ok(builder.instance.nodes.iter().map(load).collect())
    }

    /// As [`World::nodes`], and what the daemons say.
    ///
    /// # Errors
    /// As [`World::driver_kind`].
    pub async fn nodes_with_facts(&self, builder: &mut Builder) -> Result<Vec<LoadedNode>, Error> {
        let mut nodes = self.nodes(builder).await?;
        join_all(nodes.iter_mut().map(LoadedNode::ask)).await;
        Ok(nodes)
    }
}

impl LoadedNode {
    /// Asks the daemon about itself.
    pub async fn ask(&mut self) {
        if let Ok(driver) = &self.driver {
            self.facts = Some(facts(driver).await);
        }
    }

    /// Why the node cannot be used, as far as it is known.
    pub fn error(&self) -> Option<&Error> {
        self.driver.as_ref().err().or_else(|| self.facts.as_ref()?.as_ref().err())
    }

    /// As [`LoadedNode::error`], to keep.
    pub(crate) fn into_error(self) -> Option<Error> {
        self.driver.err().or_else(|| self.facts?.err())
    }

    /// What the daemon says, if it was asked and answered.
    pub fn known(&self) -> Option<&Facts> {
        self.facts.as_ref()?.as_ref().ok()
    }

    /// The way to the daemon.
    ///
    /// # Errors
    /// There is none.
    pub fn usable(self) -> Result<(Node, Driver), Error> {
        Ok((self.node, self.driver?))
    }
}

/// Boots the daemons that do not run; whether there were any.
///
/// # Errors
/// One cannot be booted.
pub async fn boot(nodes: &[LoadedNode], steps: &Steps) -> Result<bool, Error> {
    let sleeping = nodes.iter().filter(|n| n.known().is_some_and(|f| f.status != Status::Running));
    let drivers: Vec<Driver> = sleeping.filter_map(|n| n.driver.as_ref().ok().cloned()).collect();
    let booted = join_all(drivers.iter().map(|d| d.boot(steps))).await;
    booted.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(!drivers.is_empty())
}

async fn facts(driver: &Driver) -> Result<Facts, Error> {
    let status = driver.status().await?;
    let mut facts = Facts {
        status,
        ids: Vec::new(),
        version: String::new(),
        platforms: Vec::new(),
        labels: BTreeMap::new(),
        gc: Vec::new(),
        devices: Vec::new(),
    };
    if status != Status::Running {
        return Ok(facts);
    }
    let client = driver.client().await?;
    let workers = client.workers(&[]).await.map_err(|e| e.context("listing workers"))?;
    facts.take(workers);
    // Daemons of old do not know the question; their version is not shown.
    facts.version = client.info().await.map(|v| v.version).unwrap_or_default();
    Ok(facts)
}

impl Facts {
    fn take(&mut self, workers: Vec<Worker>) {
        for (i, worker) in workers.into_iter().enumerate() {
            self.ids.push(worker.id);
            for platform in worker.platforms.iter().map(Platform::normalize) {
                if !self.platforms.iter().any(|p| p.to_string() == platform.to_string()) {
                    self.platforms.push(platform);
                }
            }
            if i == 0 {
                (self.labels, self.gc, self.devices) = (worker.labels, worker.gc_policy, worker.devices);
            }
        }
        self.ids.sort();
    }
}
