//! The connection to a daemon: found, started, or in this process; and requests in its terms.

use crate::app::ConnectArgs;
use crate::build::export::{Dest, Export};
use crate::build::metadata::Response;
use crate::build::plan::{LocalDir, Plan, Stdin};
use crate::build::secret::SecretSource;
use crate::docker::DockerLoad;
use crate::error::CliError;
use crate::hooks::{Hooks, InProcess};
use crate::stdin::StdinDockerfile;
use futures::TryStreamExt as _;
use kiln_client::{
    Address, Autostart, BuildRequest, Client, DockerConfig, Output, OutputWriter, PruneRequest, SecretOrigin,
    SshSource, Upload, UsageRecord, Work, find_or_start,
};
use kiln_digest::Digest;
use kiln_progress::Update;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc::Sender;

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
            let client = Client::connect(&address).await.map_err(CliError::Connect)?;
            return Ok(Self { client, log: None });
        }
        let address = Address::default_socket(env, rustix::process::geteuid().as_raw());
        let program = std::env::current_exe().map_err(CliError::stream("finding this program"))?;
        let autostart = autostart(&address, program);
        let client = find_or_start(&address, &autostart).await.map_err(CliError::Connect)?;
        Ok(Self { client, log: Some(autostart.log) })
    }

    /// Builds; the answer is what the exporters say. Dropping the future cancels the build.
    pub(crate) async fn build(
        &self,
        plan: Plan,
        inputs: StdinInputs<'_>,
        load: Option<&DockerLoad>,
        updates: Sender<Update>,
    ) -> Result<Response, CliError> {
        let request = request(plan, inputs, load)?;
        match self.client.solve(request, updates).await {
            Ok(response) => Ok(response.exporter_response),
            Err(error) => Err(CliError::of_build(error, self.log.as_deref())),
        }
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

fn autostart(address: &Address, program: PathBuf) -> Autostart {
    let socket = match address {
        Address::Unix(path) => path.clone(),
        Address::Tcp(_) => PathBuf::from("/run/kiln/kilnd.sock"),
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
        arguments: arguments.map(OsString::from).to_vec(),
        log: socket.with_extension("log"),
        busy: i32::from(crate::STATE_IN_USE),
    }
}

/// What was taken from stdin before the build.
pub(crate) struct StdinInputs<'a> {
    /// Bytes read to see what stdin is.
    pub(crate) head: Vec<u8>,
    /// The Dockerfile from stdin.
    pub(crate) dockerfile: Option<&'a StdinDockerfile>,
}

/// The plan in the client's terms.
pub(crate) fn request(
    plan: Plan,
    stdin: StdinInputs<'_>,
    load: Option<&DockerLoad>,
) -> Result<BuildRequest, CliError> {
    let mut attrs = plan.attrs;
    let mut uploads = Vec::new();
    let mut dirs = plan.locals;
    match plan.stdin {
        Stdin::Unused => {}
        Stdin::Context => {
            let upload = Upload::new(std::io::Cursor::new(stdin.head).chain(tokio::io::stdin()));
            attrs.insert("context".into(), upload.url());
            uploads.push(upload);
        }
        Stdin::Dockerfile { .. } => {
            let files = stdin.dockerfile.ok_or_else(|| CliError::Usage("stdin was not read".into()))?;
            dirs.push(LocalDir { name: "dockerfile".into(), path: files.dir() });
            let context = files.context.iter().cloned();
            dirs.extend(context.map(|path| LocalDir { name: "context".into(), path }));
        }
    }
    let shared_key =
        dirs.iter().find(|d| d.name == "context").map(|d| shared_key(&d.path)).unwrap_or_default();
    let local_dirs = |d: LocalDir| (d.name, kiln_client::LocalDir { path: d.path, exclude: Vec::new() });
    let work = Work::Frontend { name: plan.frontend.into(), attrs, inputs: BTreeMap::new() };
    let env = |name: &str| std::env::var_os(name).map(|v| v.into_encoded_bytes());
    Ok(BuildRequest {
        exports: plan.exports.into_iter().map(|e| export(e, load)).collect::<Result<_, _>>()?,
        local_dirs: dirs.into_iter().map(local_dirs).collect(),
        shared_key,
        secrets: plan.secrets.into_iter().map(|s| secret(s, &env)).collect::<Result<_, _>>()?,
        ssh: plan.ssh.into_iter().map(|s| SshSource { id: s.id, paths: s.paths, raw: s.raw }).collect(),
        credentials: Some(credentials()?),
        uploads,
        entitlements: plan.entitlements,
        ..BuildRequest::new(work)
    })
}

/// Docker's credentials of this user.
fn credentials() -> Result<DockerConfig, CliError> {
    let env = |name: &str| std::env::var(name).ok();
    let dir = || env("DOCKER_CONFIG").unwrap_or_else(|| "~/.docker".into());
    DockerConfig::from_env(env).map_err(|source| CliError::File {
        doing: "reading the Docker configuration in",
        path: dir().into(),
        source,
    })
}

/// Two builds of one directory share what the daemon has of it.
fn shared_key(path: &Path) -> String {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("{name}:{}", Digest::sha256(path.as_os_str().as_encoded_bytes()).short())
}

fn secret(
    secret: crate::build::secret::Secret,
    env: &dyn Fn(&str) -> Option<Vec<u8>>,
) -> Result<kiln_client::SecretSource, CliError> {
    let origin = match secret.source {
        SecretSource::File(path) => SecretOrigin::File(path),
        SecretSource::Env(name) => SecretOrigin::Value(env(&name).ok_or_else(|| CliError::Value {
            flag: "--secret",
            value: format!("id={},env={name}", secret.id),
            why: format!("the environment has no variable {name}"),
        })?),
    };
    Ok(kiln_client::SecretSource { id: secret.id, origin })
}

fn export(export: Export, load: Option<&DockerLoad>) -> Result<kiln_client::Export, CliError> {
    let output = match export.dest {
        Dest::Daemon => Output::None,
        Dest::Directory(path) => Output::Dir { path, delete: false },
        Dest::File(path) => Output::File(path),
        Dest::Stdout => Output::Stdout,
        Dest::Docker => {
            let input = load.and_then(DockerLoad::input);
            Output::Writer(OutputWriter::new(
                input.ok_or_else(|| CliError::Usage("docker load runs once".into()))?,
            ))
        }
    };
    Ok(kiln_client::Export { kind: export.kind.name().into(), attrs: export.attrs, output })
}
