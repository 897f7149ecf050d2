//! How the daemon of a node is reached, booted and removed (spec daemon-and-cli.md section 6).

mod container;
mod container_options;
mod files_tar;
mod remote;

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use kiln_client::{Address, Client};

use crate::engine::Engine;
use crate::instance::Node;
use crate::steps::Steps;
use crate::{Error, docker};

pub(crate) use container::Container;
pub(crate) use remote::Remote;

/// Drivers by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// kiln's own daemon, started when it is needed.
    Kiln,
    /// A daemon that somebody else runs.
    Remote,
    /// A daemon in a container of a Docker Engine.
    Container,
    /// The daemon inside a Docker Engine.
    Docker,
}

impl DriverKind {
    /// Drivers of which instances can be created.
    pub const CREATABLE: [Self; 3] = [Self::Container, Self::Kiln, Self::Remote];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kiln => "kiln",
            Self::Remote => "remote",
            Self::Container => "docker-container",
            Self::Docker => "docker",
        }
    }

    /// The driver of instances that have this name.
    ///
    /// # Errors
    /// There is none, or none that has instances.
    pub fn of_instance(name: &str) -> Result<Self, Error> {
        match name {
            "kiln" => Ok(Self::Kiln),
            "remote" => Ok(Self::Remote),
            "docker-container" => Ok(Self::Container),
            "docker" => {
                Err(Error::Invalid(format!("additional instances of driver {name:?} cannot be created")))
            }
            "kubernetes" => Err(Error::NotBuilt {
                what: "driver kubernetes".into(),
                advice: "run the daemon in the cluster yourself and reach it by driver remote, with kube-pod://POD or tcp://HOST:PORT",
            }),
            other => Err(Error::Invalid(format!("failed to find driver {other:?}"))),
        }
    }
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a daemon is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// There is none, or it does not answer.
    Inactive,
    /// It answers.
    Running,
    /// Its container is there and does not run.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inactive => "inactive",
            Self::Running => "running",
            Self::Stopped => "stopped",
        })
    }
}

/// kiln's own daemon as the command line finds and starts it.
#[derive(Clone)]
pub struct OwnDaemon {
    /// Where it listens.
    pub address: Address,
    /// Finds or starts it.
    pub start: Arc<dyn Fn() -> BoxFuture<'static, Result<Client, Error>> + Send + Sync>,
}

impl fmt::Debug for OwnDaemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnDaemon({})", self.address)
    }
}

/// What is to be removed with a builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The daemon too.
    pub daemon: bool,
    /// Its state too.
    pub state: bool,
}

/// The way to the daemon of one node.
#[derive(Clone, Debug)]
pub enum Driver {
    /// kiln's own daemon.
    Kiln(OwnDaemon),
    /// A daemon at an address.
    Remote(Box<Remote>),
    /// A daemon in a container.
    Container(Box<Container>),
    /// The daemon inside an engine.
    Docker(Engine),
}

impl Driver {
    /// The driver of a node.
    ///
    /// # Errors
    /// Settings that the driver does not know.
    pub fn of_node(
        kind: DriverKind,
        node: &Node,
        docker: &docker::Docker,
        own: &OwnDaemon,
    ) -> Result<Self, Error> {
        let engine = || {
            let endpoint = docker.endpoint(&node.endpoint)?;
            Engine::new(&endpoint.unwrap_or_else(|| docker::Endpoint::at(node.endpoint.clone())))
        };
        match kind {
            DriverKind::Kiln => kiln(node, own),
            DriverKind::Remote => Ok(Self::Remote(Box::new(Remote::new(node)?))),
            DriverKind::Container => Ok(Self::Container(Box::new(Container::new(node, engine()?, docker)?))),
            DriverKind::Docker => Ok(Self::Docker(engine()?)),
        }
    }

    /// What the daemon is doing.
    ///
    /// # Errors
    /// The engine does not say.
    pub async fn status(&self) -> Result<Status, Error> {
        let answers = |ok: bool| if ok { Status::Running } else { Status::Inactive };
        match self {
            Self::Kiln(own) => Ok(answers(Client::connect(&own.address).await.is_ok())),
            Self::Remote(remote) => {
                let workers = async { remote.client().await.ok()?.workers(&[]).await.ok() };
                Ok(answers(workers.await.is_some()))
            }
            Self::Container(container) => container.status().await,
            Self::Docker(engine) => engine.ping().await.map(|()| Status::Running),
        }
    }

    /// A connection to a daemon that is there.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn client(&self) -> Result<Client, Error> {
        match self {
            Self::Kiln(own) => (own.start)().await,
            Self::Remote(remote) => remote.client().await,
            Self::Container(container) => container.client().await,
            Self::Docker(engine) => {
                let stream = engine.hijack("/grpc", "h2c", None).await?;
                Client::from_stream(stream).await.map_err(|e| Error::Invalid(e.to_string()))
            }
        }
    }

    /// Boots the daemon if it does not run; what is done is told to `steps`. Then as [`Driver::client`].
    ///
    /// # Errors
    /// It cannot be booted or reached.
    pub async fn boot(&self, steps: &Steps) -> Result<Client, Error> {
        match self {
            Self::Container(container) if container.status().await? != Status::Running => {
                container.boot(steps).await?;
            }
            Self::Remote(remote) if self.status().await? != Status::Running => {
                steps.vertex("[internal] waiting for connection", |_| remote.wait()).await?;
            }
            _ => {}
        }
        self.client().await
    }

    /// Stops the daemon if it is ours to stop.
    ///
    /// # Errors
    /// The engine does not do it.
    pub async fn stop(&self) -> Result<(), Error> {
        match self {
            Self::Container(container) => container.stop().await,
            Self::Kiln(_) | Self::Remote(_) | Self::Docker(_) => Ok(()),
        }
    }

    /// Removes the daemon if it is ours to remove.
    ///
    /// # Errors
    /// The engine does not do it.
    pub async fn remove(&self, what: Removal) -> Result<(), Error> {
        match self {
            Self::Container(container) => container.remove(what).await,
            Self::Kiln(_) | Self::Remote(_) | Self::Docker(_) => Ok(()),
        }
    }

    /// A byte stream to the daemon, for programs that speak the protocol themselves.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn dial(&self) -> Result<Box<dyn Stream>, Error> {
        match self {
            Self::Kiln(own) => {
                (own.start)().await?;
                Remote::at(own.address.clone()).dial().await
            }
            Self::Remote(remote) => remote.dial().await,
            Self::Container(container) => Ok(Box::new(container.dial().await?)),
            Self::Docker(engine) => Ok(Box::new(engine.hijack("/grpc", "h2c", None).await?)),
        }
    }

    /// Results without a named output are loaded into an engine.
    pub fn loads_by_default(&self) -> bool {
        match self {
            Self::Remote(remote) => remote.default_load,
            Self::Container(container) => container.options.default_load,
            Self::Kiln(_) | Self::Docker(_) => false,
        }
    }
}

/// Both directions of a connection.
pub trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

fn kiln(node: &Node, own: &OwnDaemon) -> Result<Driver, Error> {
    if let Some((name, _)) = node.options().next() {
        return Err(Error::Invalid(format!("invalid driver option {name} for kiln driver")));
    }
    if node.files().next().is_some() {
        return Err(Error::invalid(
            "setting config file is not supported for kiln driver: its daemon reads /etc/kiln/kiln.toml",
        ));
    }
    if !node.flags().is_empty() {
        return Err(Error::invalid("setting buildkit flags is not supported for kiln driver"));
    }
    Ok(Driver::Kiln(own.clone()))
}

/// Reads a boolean option.
fn boolean(name: &str, value: &str) -> Result<bool, Error> {
    kiln_go::parse_bool(value)
        .ok_or_else(|| Error::Invalid(format!("driver option {name}: {value:?} is neither true nor false")))
}
