//! Ssh agents that steps may use.

use std::collections::HashMap;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use kiln_llb::errdefs::BuildError;
use kiln_proto::ssh::ssh_server::Ssh;
use kiln_proto::ssh::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use kiln_session::BytesPipe;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};

use super::{agent, invalid};

/// The name of an agent when none is given.
const DEFAULT_ID: &str = "default";
/// Longest key file, in bytes.
const MAX_KEY: u64 = 100 << 10;
/// Time for an agent of our own to listen.
const AGENT_START: Duration = Duration::from_secs(5);

/// An ssh agent that steps may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshSource {
    /// Its name in the Dockerfile; empty is `default`.
    pub id: String,
    /// The socket of an agent (usually `$SSH_AUTH_SOCK`), or key files for an agent that lives as long as the build.
    pub paths: Vec<PathBuf>,
    /// Pass the bytes on as they are, for sockets that are no ssh agent.
    pub raw: bool,
}

/// The agents of one request.
#[derive(Clone)]
pub(super) struct Agents(Arc<Inner>);

struct Inner {
    sockets: HashMap<String, Socket>,
    _own: Vec<OwnAgent>,
}

#[derive(Clone)]
struct Socket {
    path: PathBuf,
    raw: bool,
}

/// An agent process with the keys of one source.
struct OwnAgent {
    _process: Child,
    dir: tempfile::TempDir,
}

impl Agents {
    /// Checks the sources and starts agents for key files.
    pub(super) async fn start(sources: &[SshSource]) -> Result<Self, BuildError> {
        let (mut sockets, mut own) = (HashMap::new(), Vec::new());
        for source in sources {
            let id = if source.id.is_empty() { DEFAULT_ID } else { &source.id };
            if sockets.contains_key(id) {
                return Err(invalid(format!("duplicate agent ID {id:?}")));
            }
            let failed = |e: String| invalid(format!("ssh agent {id:?}: {e}"));
            let path = match classify(source).map_err(failed)? {
                Sort::Socket(path) => path,
                Sort::Keys => {
                    let agent = OwnAgent::start(&source.paths).await.map_err(failed)?;
                    let path = agent.socket();
                    own.push(agent);
                    path
                }
            };
            sockets.insert(id.to_string(), Socket { path, raw: source.raw });
        }
        Ok(Self(Arc::new(Inner { sockets, _own: own })))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.sockets.is_empty()
    }

    fn find(&self, id: &str) -> Result<&Socket, Status> {
        let id = if id.is_empty() { DEFAULT_ID } else { id };
        self.0.sockets.get(id).ok_or_else(|| Status::unknown(format!("unset ssh forward key {id}")))
    }
}

enum Sort {
    Socket(PathBuf),
    Keys,
}

fn classify(source: &SshSource) -> Result<Sort, String> {
    if source.paths.iter().all(|p| p.as_os_str().is_empty()) {
        return Err("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set".to_string());
    }
    if source.raw && source.paths.len() != 1 {
        return Err("raw mode must supply exactly one path".to_string());
    }
    let is_socket = |path: &PathBuf| match std::fs::metadata(path) {
        Ok(meta) => Ok(meta.file_type().is_socket()),
        Err(e) => Err(format!("{}: {e}", path.display())),
    };
    let sockets = source.paths.iter().map(is_socket).collect::<Result<Vec<bool>, _>>()?;
    match (&source.paths[..], &sockets[..]) {
        ([path], [true]) => Ok(Sort::Socket(path.clone())),
        _ if source.raw => Err("raw mode only supported with socket paths".to_string()),
        _ if sockets.iter().all(|s| !s) => Ok(Sort::Keys),
        _ if sockets.iter().all(|s| *s) => Err("only single socket allowed".to_string()),
        _ => Err("invalid combination of keys and sockets".to_string()),
    }
}

impl OwnAgent {
    async fn start(keys: &[PathBuf]) -> Result<Self, String> {
        let dir = tempfile::Builder::new()
            .prefix("kiln-ssh-")
            .tempdir()
            .map_err(|e| format!("temporary directory: {e}"))?;
        let process = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(dir.path().join("agent"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("start ssh-agent for key files: {e}"))?;
        let agent = Self { _process: process, dir };
        let listening = async {
            while UnixStream::connect(agent.socket()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let started = tokio::time::timeout(AGENT_START, listening).await;
        started.map_err(|_| "ssh-agent for key files does not start".to_string())?;
        for key in keys {
            agent.add(key).await.map_err(|e| format!("failed to add {}: {e}", key.display()))?;
        }
        Ok(agent)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("agent")
    }

    /// Adds a key by its content: `ssh-add` would refuse a file by its permissions, which are none of our business.
    async fn add(&self, key: &Path) -> Result<(), String> {
        let mut content = Vec::new();
        let file = tokio::fs::File::open(key).await.map_err(|e| e.to_string())?;
        file.take(MAX_KEY).read_to_end(&mut content).await.map_err(|e| e.to_string())?;
        let mut add = Command::new("ssh-add")
            .args(["-q", "-"])
            .env("SSH_AUTH_SOCK", self.socket())
            .env("SSH_ASKPASS_REQUIRE", "never")
            .env_remove("DISPLAY")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Without the terminal, so that a key with a passphrase fails instead of asking.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("start ssh-add: {e}"))?;
        if let Some(mut stdin) = add.stdin.take() {
            // If it does not read, its exit code says so.
            let _ = stdin.write_all(&content).await;
        }
        let output = tokio::time::timeout(AGENT_START, add.wait_with_output()).await;
        let output = output.map_err(|_| "a passphrase is needed".to_string())?.map_err(|e| e.to_string())?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_string()),
        }
    }
}

#[tonic::async_trait]
impl Ssh for Agents {
    type ForwardAgentStream = BoxStream<'static, Result<BytesMessage, Status>>;

    async fn check_agent(
        &self,
        r: Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        self.find(&r.into_inner().id)?;
        Ok(Response::new(CheckAgentResponse {}))
    }

    async fn forward_agent(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let id = request.metadata().get("buildkit.ssh.id").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let Socket { path, raw } = self.find(id)?.clone();
        let failed = |e| Status::unknown(format!("failed to dial agent at {}: {e}", path.display()));
        let mut agent = UnixStream::connect(&path).await.map_err(failed)?;
        let incoming = request.into_inner().map_ok(|m| Bytes::from(m.data)).map_err(std::io::Error::other);
        let (mut pipe, outgoing) = BytesPipe::new(incoming.boxed());
        let forward = AbortOnDropHandle::new(tokio::spawn(async move {
            let result = match raw {
                true => tokio::io::copy_bidirectional(&mut pipe, &mut agent).await.map(drop),
                false => agent::filter(&mut pipe, &mut agent).await,
            };
            result.map_err(|e| Status::unknown(format!("ssh agent: {e}")))
        }));
        // The stream owns the work: when the caller hangs up, it ends.
        let end = async move {
            forward.await.map_err(|e| Status::internal(e.to_string())).flatten().err().map(Err)
        };
        let end = futures::stream::once(end).filter_map(std::future::ready);
        let messages = ReceiverStream::new(outgoing).map(|data| Ok(BytesMessage { data: data.into() }));
        Ok(Response::new(messages.chain(end).boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(id: &str, paths: &[&Path], raw: bool) -> SshSource {
        SshSource { id: id.into(), paths: paths.iter().map(PathBuf::from).collect(), raw }
    }

    async fn error(sources: &[SshSource]) -> String {
        Agents::start(sources).await.err().map(|e| e.message).unwrap_or_default()
    }

    #[tokio::test]
    async fn sources_are_checked_before_the_build() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, key) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("key"));
        let _listeners = [&a, &b].map(|p| std::os::unix::net::UnixListener::bind(p).unwrap());
        std::fs::write(&key, "no key").unwrap();
        let empty = Path::new("");
        for (sources, expected) in [
            (vec![source("", &[], false)], "make sure SSH_AUTH_SOCK is set"),
            (vec![source("", &[empty], false)], "make sure SSH_AUTH_SOCK is set"),
            (vec![source("x", &[&a], false), source("x", &[&b], false)], r#"duplicate agent ID "x""#),
            (vec![source("", &[&a, &b], false)], "only single socket allowed"),
            (vec![source("", &[&a, &key], false)], "invalid combination of keys and sockets"),
            (vec![source("", &[&key], true)], "raw mode only supported with socket paths"),
            (vec![source("", &[&a, &b], true)], "raw mode must supply exactly one path"),
            (vec![source("", &[Path::new("/nonexistent")], false)], "/nonexistent: "),
        ] {
            let text = error(&sources).await;
            assert!(text.contains(expected), "{text}");
        }
        let agents = Agents::start(&[source("", &[&a], false), source("raw", &[&b], true)]).await.unwrap();
        assert!(agents.find("").is_ok() && agents.find("default").is_ok() && agents.find("raw").is_ok());
        assert_eq!(agents.find("x").err().unwrap().message(), "unset ssh forward key x");
    }

    #[tokio::test]
    async fn key_files_get_an_agent_of_their_own_where_ssh_is_installed() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key)
            .status();
        if !made.is_ok_and(|s| s.success()) {
            eprintln!("skipped: no ssh-keygen here");
            return;
        }
        // ssh-add itself would refuse this one.
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let agents = Agents::start(&[source("", &[&key], false)]).await.unwrap();
        let mut agent = UnixStream::connect(&agents.find("").unwrap().path).await.unwrap();
        agent.write_all(&[0, 0, 0, 1, 11]).await.unwrap();
        let mut head = [0; 9];
        agent.read_exact(&mut head).await.unwrap();
        assert_eq!(head[4..], [12, 0, 0, 0, 1]);
        let socket = agents.find("").unwrap().path.clone();
        drop(agents);
        assert!(!socket.exists());
        std::fs::write(&key, "no key").unwrap();
        assert!(error(&[source("", &[&key], false)]).await.contains("failed to add"));
    }
}
