//! What a command runs in: builders, Docker's configuration, who may be asked.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use kiln_builder::{Builder, ConfigDir, Docker, Error as BuilderError, Flags, OwnDaemon, World};
use kiln_cli::connect;
use kiln_cli::error::CliError;

use crate::error::Error;
use crate::flags::Parsed;

/// How long a daemon may take to say what it is.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The surroundings of a command.
pub(crate) struct Context {
    pub(crate) world: World,
    /// `--builder`, else `$BUILDX_BUILDER`.
    pub(crate) builder: Option<String>,
    pub(crate) debug: bool,
    pub(crate) timeout: Duration,
}

/// The environment.
pub(crate) fn var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A variable that is not empty.
pub(crate) fn set(name: &str) -> Option<String> {
    var(name).filter(|v| !v.is_empty())
}

impl Context {
    pub(crate) fn new(docker: &Flags, flags: &Parsed, debug: bool) -> Result<Self, Error> {
        let docker = Docker::load(var, docker)?;
        let config = ConfigDir::new(var, docker.dir());
        let builder = if flags.has("builder") { flags.word("builder") } else { set("BUILDX_BUILDER") };
        let timeout = flags.duration("timeout").unwrap_or(TIMEOUT);
        let world = World { docker, config, own: own_daemon()? };
        Ok(Self { world, builder, debug: debug || flags.switch("debug"), timeout })
    }

    /// The builder that the word, the flag or the environment names, else the current one.
    pub(crate) fn find(&self, word: Option<&String>) -> Result<Builder, Error> {
        let store = self.world.store()?;
        Ok(self.world.find(&store, word.or(self.builder.as_ref()).map(String::as_str))?)
    }

    /// As [`Context::find`], for work with its daemons.
    pub(crate) fn find_usable(&self) -> Result<Builder, Error> {
        let store = self.world.store()?;
        Ok(self.world.find_usable(&store, self.builder.as_deref())?)
    }

    /// Does something within the time that the user gives it.
    pub(crate) async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        if self.timeout.is_zero() {
            return Ok(work.await);
        }
        let late = |_| Error::text("context deadline exceeded");
        tokio::time::timeout(self.timeout, work).await.map_err(late)
    }
}

fn own_daemon() -> Result<OwnDaemon, Error> {
    let start = || {
        async {
            let connected = connect::own_daemon().await.map(|(client, _)| client);
            connected.map_err(|e| match e {
                CliError::Connect(e) => BuilderError::Connect(e),
                other => BuilderError::Invalid(other.to_string()),
            })
        }
        .boxed()
    };
    Ok(OwnDaemon { address: connect::own_address()?, start: Arc::new(start) })
}
