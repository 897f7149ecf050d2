//! The client's ssh agent and known hosts, for the time of one use.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::id::GitId;
use crate::{Client, Result, SourceContext, SourceError};

/// Ends what was made for ssh when dropped.
#[derive(Debug, Default)]
pub(super) struct Ssh {
    /// For `SSH_AUTH_SOCK`.
    pub(super) agent: Option<PathBuf>,
    /// A known hosts file.
    pub(super) known_hosts: Option<PathBuf>,
    _dir: Option<TempDir>,
    task: Option<JoinHandle<()>>,
}

impl Ssh {
    /// Makes a socket that leads to the client's agent, and a file of known hosts, as far as they are wanted.
    pub(super) async fn begin(id: &GitId, cx: &SourceContext) -> Result<Self> {
        if id.ssh_agent.is_empty() && id.known_ssh_hosts.is_empty() {
            return Ok(Self::default());
        }
        // In the system's directory for temporary files: names of sockets must be short. Only we can enter it.
        let dir = tempfile::Builder::new()
            .prefix("kiln-ssh-")
            .tempdir()
            .map_err(SourceError::io("make ssh directory"))?;
        let mut ssh = Self::default();
        if !id.known_ssh_hosts.is_empty() {
            let path = dir.path().join("known_hosts");
            tokio::fs::write(&path, &id.known_ssh_hosts)
                .await
                .map_err(SourceError::io("write known hosts"))?;
            ssh.known_hosts = Some(path);
        }
        if !id.ssh_agent.is_empty() {
            let checked = cx.client.check_ssh_agent(&id.ssh_agent).await;
            checked.map_err(|e| SourceError::Client { what: "git over ssh".into(), message: e.0 })?;
            let path = dir.path().join("agent");
            let listener = UnixListener::bind(&path).map_err(SourceError::io("make ssh agent socket"))?;
            ssh.task = Some(tokio::spawn(serve(listener, cx.client.clone(), id.ssh_agent.clone())));
            ssh.agent = Some(path);
        }
        ssh._dir = Some(dir);
        Ok(ssh)
    }

    /// For `GIT_SSH_COMMAND`. Without known hosts any host key is taken, as BuildKit does.
    pub(super) fn command(&self) -> String {
        let hosts = match &self.known_hosts {
            Some(path) => format!("-o UserKnownHostsFile={}", quoted(path)),
            None => "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null".to_string(),
        };
        format!("ssh -F /dev/null -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=30 {hosts}")
    }
}

/// Git gives the command to a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

async fn serve(listener: UnixListener, client: Arc<dyn Client>, id: String) {
    while let Ok((mut local, _)) = listener.accept().await {
        let (client, id) = (client.clone(), id.clone());
        tokio::spawn(async move {
            match client.ssh_agent(&id).await {
                Ok(mut remote) => {
                    let _ = tokio::io::copy_bidirectional(&mut local, &mut remote).await;
                }
                Err(error) => tracing::warn!(%error, "ssh agent"),
            }
        });
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ByteReader, ClientError, Duplex, NoClient};
    use std::collections::BTreeMap;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Agent;

    #[async_trait::async_trait]
    impl Client for Agent {
        async fn secret(&self, _: &str) -> Result<Option<Vec<u8>>, ClientError> {
            Ok(None)
        }
        async fn ssh_agent(&self, id: &str) -> Result<Box<dyn Duplex>, ClientError> {
            assert_eq!(id, "default");
            let (ours, mut theirs) = tokio::io::duplex(64);
            tokio::spawn(async move {
                let mut buffer = [0; 4];
                theirs.read_exact(&mut buffer).await.unwrap();
                theirs.write_all(&buffer).await.unwrap();
            });
            Ok(Box::new(ours))
        }
        async fn check_ssh_agent(&self, id: &str) -> Result<(), ClientError> {
            self.ssh_agent(id).await.map(drop)
        }
        async fn upload(&self, host: &str, path: &str) -> Result<ByteReader, ClientError> {
            NoClient.upload(host, path).await
        }
    }

    fn id() -> GitId {
        let attrs: BTreeMap<_, _> = [("git.mountsshsock", "default"), ("git.knownsshhosts", "h ssh-rsa x")]
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .into();
        GitId::parse("git@h:r", &attrs, false).unwrap()
    }

    #[tokio::test]
    async fn agent_is_reached_through_a_socket_that_goes_away() {
        let cx = SourceContext { client: Arc::new(Agent), ..SourceContext::anonymous() };
        let ssh = Ssh::begin(&id(), &cx).await.unwrap();
        let path = ssh.agent.clone().unwrap();
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut buffer = [0; 4];
        stream.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"ping");
        let hosts = ssh.known_hosts.clone().unwrap();
        assert_eq!(std::fs::read_to_string(&hosts).unwrap(), "h ssh-rsa x");
        assert!(ssh.command().contains(&format!("UserKnownHostsFile='{}'", hosts.display())));
        drop(ssh);
        assert!(!path.exists() && !hosts.exists());
    }

    #[tokio::test]
    async fn a_missing_agent_is_said_so() {
        let error = Ssh::begin(&id(), &SourceContext::anonymous()).await.unwrap_err().to_string();
        assert!(error.contains("no SSH key \"default\" forwarded from the client"), "{error}");
    }
}
