//! Typed calls to one client.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, OnceLock};

use kiln_proto::secrets::GetSecretRequest;
use kiln_proto::secrets::secrets_client::SecretsClient;
use kiln_proto::ssh::CheckAgentRequest;
use kiln_proto::ssh::ssh_client::SshClient;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{MetadataKey, MetadataMap};
use tonic::{Code, Status};

use crate::connection::{Connection, origin};
use crate::headers::{encode_values, insert};
use crate::raw::{self, ByteUpload, RawStream};
use crate::{BytesPipe, SessionError, SessionHeaders};

/// Largest secret that is believed, in bytes; clients enforce the same.
const MAX_SECRET: usize = 500 << 10;

/// One client that can be called. Cheap to clone; calls fail once the session has ended.
#[derive(Clone, Debug)]
pub struct Session(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    headers: SessionHeaders,
    connection: Connection,
    ended: CancellationToken,
    reason: OnceLock<String>,
}

/// Which part of which local directory is wanted (`FileSync.DiffCopy`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryRequest {
    /// Local name, such as `context`.
    pub name: String,
    /// Patterns of wanted paths; none means all.
    pub include: Vec<String>,
    /// Patterns of unwanted paths, in ignore file syntax.
    pub exclude: Vec<String>,
    /// Paths whose symlink chains are wanted too.
    pub follow_paths: Vec<String>,
}

/// Where exported files go (`FileSend.DiffCopy`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileRequest {
    /// Index of the exporter in the build request.
    pub exporter: usize,
    /// All platforms come in this one transfer, so that the client may delete what is not in it.
    pub multi_platform: bool,
    /// Response keys of the export, for the client to name its file by.
    pub metadata: BTreeMap<String, String>,
}

impl Session {
    pub(crate) fn new(headers: SessionHeaders, connection: Connection) -> Self {
        let (ended, reason) = (CancellationToken::new(), OnceLock::new());
        Self(Arc::new(Shared { headers, connection, ended, reason }))
    }

    /// The id that the client chose.
    pub fn id(&self) -> &str {
        &self.0.headers.id
    }

    /// Identifies the client's directory for incremental transfers.
    pub fn shared_key(&self) -> &str {
        &self.0.headers.shared_key
    }

    /// Whether the client serves `/service/Method`.
    pub fn supports(&self, method: &str) -> bool {
        self.0.headers.supports(method)
    }

    /// The transport, for services that have no typed call here.
    pub fn connection(&self) -> Connection {
        self.0.connection.clone()
    }

    /// Whether the client is gone.
    pub fn has_ended(&self) -> bool {
        self.0.ended.is_cancelled()
    }

    /// Resolves when the client is gone.
    pub async fn ended(&self) {
        self.0.ended.cancelled().await;
    }

    pub(crate) fn end(&self, reason: &str) {
        let _ = self.0.reason.set(reason.to_string());
        self.0.ended.cancel();
    }

    /// The bytes of a secret.
    pub async fn get_secret(&self, id: &str) -> Result<Vec<u8>, SessionError> {
        let mut client = SecretsClient::with_origin(self.connection(), origin());
        let request = GetSecretRequest { id: id.to_string(), ..Default::default() };
        match self.call(format!("secret {id}"), client.get_secret(request)).await {
            Ok(answer) if answer.data.len() > MAX_SECRET => {
                let text = format!("invalid secret size {}", answer.data.len());
                Err(SessionError::call(format!("secret {id}"), Status::invalid_argument(text)))
            }
            Ok(answer) => Ok(answer.data),
            Err(e) if matches!(e.code(), Code::Unimplemented | Code::NotFound) => {
                Err(SessionError::SecretNotFound(id.to_string()))
            }
            Err(e) => Err(e),
        }
    }

    /// Fails if the client does not forward the ssh agent `id`; empty means `default`.
    pub async fn check_ssh(&self, id: &str) -> Result<(), SessionError> {
        let mut client = SshClient::with_origin(self.connection(), origin());
        let request = CheckAgentRequest { id: id.to_string() };
        self.call(format!("ssh agent {id:?}"), client.check_agent(request)).await.map(drop)
    }

    /// One connection to the client's ssh agent.
    pub fn forward_ssh(&self, id: &str) -> Result<BytesPipe, SessionError> {
        let mut metadata = MetadataMap::new();
        insert(&mut metadata, "buildkit.ssh.id", id)?;
        Ok(raw::call(self.connection(), raw::FORWARD_AGENT, metadata, raw::PIECES).into_pipe())
    }

    /// Reads what the client serves at `http://<host><path>`, such as a context from its standard input.
    pub fn pull_upload(&self, host: &str, path: &str) -> Result<BytesPipe, SessionError> {
        let mut metadata = MetadataMap::new();
        insert(&mut metadata, "urlpath", path)?;
        insert(&mut metadata, "urlhost", host)?;
        Ok(raw::call(self.connection(), raw::PULL, metadata, raw::PIECES).into_pipe())
    }

    /// Opens a transfer of a local directory to us; see [`crate::fsutil::receive`].
    pub fn diff_copy(&self, request: &DirectoryRequest) -> Result<RawStream, SessionError> {
        self.require(raw::FILE_SYNC)?;
        let mut metadata = MetadataMap::new();
        encode_values(&mut metadata, "dir-name", std::slice::from_ref(&request.name))?;
        encode_values(&mut metadata, "include-patterns", &request.include)?;
        encode_values(&mut metadata, "exclude-patterns", &request.exclude)?;
        encode_values(&mut metadata, "followpaths", &request.follow_paths)?;
        Ok(raw::call(self.connection(), raw::FILE_SYNC, metadata, raw::QUEUE))
    }

    /// Opens a transfer of files to the client; see [`crate::fsutil::send`].
    pub fn send_files(&self, request: &FileRequest) -> Result<RawStream, SessionError> {
        self.require(raw::FILE_SEND)?;
        Ok(raw::call(self.connection(), raw::FILE_SEND, file_metadata(request)?, raw::PACKETS))
    }

    /// Opens a transfer of one archive to the client. Call [`ByteUpload::finish`] at the end.
    pub fn send_bytes(&self, request: &FileRequest) -> Result<ByteUpload, SessionError> {
        self.require(raw::FILE_SEND)?;
        Ok(raw::call(self.connection(), raw::FILE_SEND, file_metadata(request)?, raw::PIECES).into_upload())
    }

    fn require(&self, method: &str) -> Result<(), SessionError> {
        match self.supports(method) {
            true => Ok(()),
            false => Err(SessionError::Unsupported(method.to_string())),
        }
    }

    pub(crate) async fn call<T>(
        &self,
        call: String,
        answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, SessionError> {
        let answer = tokio::select! {
            biased;
            answer = answer => answer,
            () = self.ended() => Err(Status::unavailable("session ended")),
        };
        match answer {
            Ok(response) => Ok(response.into_inner()),
            Err(_) if self.has_ended() => {
                let reason = self.0.reason.get().map_or("the client hung up", String::as_str);
                Err(SessionError::Closed { call, reason: reason.to_string() })
            }
            Err(status) => Err(SessionError::call(call, status)),
        }
    }
}

fn file_metadata(request: &FileRequest) -> Result<MetadataMap, SessionError> {
    let mut metadata = MetadataMap::new();
    insert(&mut metadata, raw::EXPORTER_ID, &request.exporter.to_string())?;
    if request.multi_platform {
        insert(&mut metadata, raw::MULTI_PLATFORM, "1")?;
    }
    for (key, value) in &request.metadata {
        // Keys and values come from frontends; what a header cannot carry is left out.
        let name =
            MetadataKey::from_bytes(format!("{}{key}", raw::RESPONSE_PREFIX).to_ascii_lowercase().as_bytes());
        if let (Ok(name), Ok(value)) = (name, value.parse()) {
            metadata.insert(name, value);
        }
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_keys_travel_as_headers() {
        let request = FileRequest {
            exporter: 2,
            multi_platform: true,
            metadata: [("image.name", "a/b"), ("bad\nkey", "x"), ("k", "bad\nvalue")]
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .into(),
        };
        let map = file_metadata(&request).unwrap();
        assert_eq!(map.get("exporter-md-image.name").unwrap(), "a/b");
        assert_eq!(map.get("buildkit-attachable-exporter-id").unwrap(), "2");
        assert_eq!(map.get("buildkit-exporter-multi-platform").unwrap(), "1");
        assert_eq!(map.len(), 3);
    }
}
