//! The connection to a daemon: found, started, or in this process; and requests in its terms.

use crate::app::ConnectArgs;
use crate::error::CliError;
use crate::hooks::{Hooks, InProcess};
use futures::TryStreamExt as _;
use kiln_client::{Address, Autostart, Client, PruneRequest, UsageRecord, find_or_start};
use kiln_llb::errdefs::BuildError;
use rustix::fs::Access;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A daemon started in the background ends after so long without work.
const IDLE_EXIT: &str = "10m";

/// A client of a daemon.
pub(crate) struct Connection {
    client: Client,
    /// The log of a daemon at the usual socket.
    log: Option<PathBuf>,
}

impl Connection {
    /// Connects as the flags and the environment say. `entitlements` are granted by a daemon in this process.
    pub(crate) async fn open(
        args: &ConnectArgs,
        hooks: Hooks,
        entitlements: &[String],
    ) -> Result<Self, CliError> {
        let env = |name: &str| std::env::var(name).ok();
        if args.daemonless {
            let settings = InProcess { root: args.root.clone(), entitlements: entitlements.to_vec() };
            let stream = (hooks.in_process)(settings).await.map_err(CliError::Daemon)?;
            let client = Client::from_duplex(stream).await.map_err(|e| CliError::Daemon(e.to_string()))?;
            return Ok(Self { client, log: None });
        }
        let wrong = |e: kiln_client::AddressError| CliError::Usage(e.to_string());
        let named = match &args.addr {
            Some(text) => Some(text.parse().map_err(wrong)?),
            None => Address::from_env(env).map_err(wrong)?,
        };
        if let Some(address) = named {
            let client = Client::connect(&address).await?;
            return Ok(Self { client, log: None });
        }
        let (client, log) = own_daemon().await?;
        Ok(Self { client, log })
    }

    /// The daemon.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// An error of a build of this daemon.
    pub(crate) fn error(&self, error: BuildError) -> CliError {
        CliError::of_build(error, self.log.as_deref())
    }

    /// What the cache holds.
    pub(crate) async fn disk_usage(&self, entry: &str) -> Result<Vec<UsageRecord>, CliError> {
        Ok(self.client.disk_usage(&[entry.to_owned()]).await?)
    }

    /// Removes from the cache; gives what was removed.
    pub(crate) async fn prune(&self, request: &PruneRequest) -> Result<Vec<UsageRecord>, CliError> {
        Ok(self.client.prune(request).await?.try_collect().await?)
    }
}

/// Where kiln's own daemon of this user listens: `$KILN_HOST`, else its usual socket.
///
/// # Errors
/// The variable holds no address.
pub fn own_address() -> Result<Address, CliError> {
    let env = |name: &str| std::env::var(name).ok();
    match env("KILN_HOST").filter(|v| !v.is_empty()) {
        Some(text) => text.parse().map_err(|e: kiln_client::AddressError| CliError::Usage(e.to_string())),
        None => {
            let is_open = |path: &Path| rustix::fs::access(path, Access::WRITE_OK).is_ok();
            Ok(Address::default_socket(env, rustix::process::geteuid().as_raw(), is_open))
        }
    }
}

/// A client of kiln's own daemon, which is started when it is at its usual socket and there is none; and its log, if it
/// is there.
///
/// # Errors
/// There is none and it cannot be started.
pub async fn own_daemon() -> Result<(Client, Option<PathBuf>), CliError> {
    let address = own_address()?;
    if std::env::var_os("KILN_HOST").is_some_and(|v| !v.is_empty()) {
        return Ok((Client::connect(&address).await?, None));
    }
    let program = std::env::current_exe().map_err(CliError::stream("finding this program"))?;
    let autostart = autostart(&address, program);
    let client = find_or_start(&address, &autostart).await?;
    Ok((client, Some(autostart.log)))
}

fn autostart(address: &Address, program: PathBuf) -> Autostart {
    let socket = match address {
        Address::Unix(path) => path.clone(),
        Address::Tcp(_) | Address::Remote(_) => PathBuf::from("/run/kiln/kilnd.sock"),
    };
    let address = address.to_string();
    // The network of the host is not refused to whoever starts the daemon: `--network host` is theirs to say.
    let arguments = [
        "daemon",
        "--addr",
        &address,
        "--idle-exit",
        IDLE_EXIT,
        "--allow-insecure-entitlement",
        "network.host",
    ];
    Autostart {
        program,
        name: "kiln".into(),
        arguments: arguments.map(OsString::from).to_vec(),
        log: socket.with_extension("log"),
        busy: i32::from(crate::STATE_IN_USE),
    }
}
