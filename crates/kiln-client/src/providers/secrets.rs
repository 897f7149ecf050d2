//! Secrets from files and the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_llb::errdefs::BuildError;
use kiln_proto::secrets::secrets_server::Secrets as SecretsService;
use kiln_proto::secrets::{GetSecretRequest, GetSecretResponse};
use tokio::io::AsyncReadExt;
use tonic::{Request, Response, Status};

use super::invalid;

/// Largest secret, in bytes.
pub const MAX_SECRET_SIZE: u64 = 500 << 10;

/// A secret that steps may use.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretSource {
    /// Its name in the Dockerfile.
    pub id: String,
    /// Where it comes from.
    pub origin: SecretOrigin,
}

/// Where a secret comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretOrigin {
    /// A file, read when it is asked for.
    File(PathBuf),
    /// A value, such as one from the environment.
    Value(Vec<u8>),
}

impl std::fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretSource").field("id", &self.id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SecretOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretOrigin")
    }
}

/// The secrets of one request.
#[derive(Clone)]
pub(super) struct Secrets(Arc<BTreeMap<String, SecretOrigin>>);

impl Secrets {
    /// Checks that they can be had and are not too large.
    pub(super) fn check(sources: &[SecretSource]) -> Result<Self, BuildError> {
        let mut secrets = BTreeMap::new();
        for SecretSource { id, origin } in sources {
            if id.is_empty() {
                return Err(invalid("secret missing ID"));
            }
            let size = match origin {
                SecretOrigin::Value(value) => value.len() as u64,
                SecretOrigin::File(path) => {
                    let meta = std::fs::metadata(path);
                    let meta = meta.map_err(|e| {
                        invalid(format!("secret {id}: failed to stat {}: {e}", path.display()))
                    })?;
                    if meta.is_dir() {
                        return Err(invalid(format!("secret {id}: {} is a directory", path.display())));
                    }
                    meta.len()
                }
            };
            if size > MAX_SECRET_SIZE {
                return Err(invalid(format!("secret {id} too big. max size {}KB", MAX_SECRET_SIZE >> 10)));
            }
            secrets.insert(id.clone(), origin.clone());
        }
        Ok(Self(Arc::new(secrets)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    async fn read(&self, id: &str) -> Result<Vec<u8>, Status> {
        let origin = self.0.get(id).ok_or_else(|| Status::not_found(format!("secret {id} not found")))?;
        let path = match origin {
            SecretOrigin::Value(value) => return Ok(value.clone()),
            SecretOrigin::File(path) => path,
        };
        let failed =
            |e: std::io::Error| Status::unknown(format!("secret {id}: read {}: {e}", path.display()));
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        let mut data = Vec::new();
        file.take(MAX_SECRET_SIZE + 1).read_to_end(&mut data).await.map_err(failed)?;
        match data.len() as u64 > MAX_SECRET_SIZE {
            true => Err(Status::invalid_argument(format!("invalid secret size {}", data.len()))),
            false => Ok(data),
        }
    }
}

#[tonic::async_trait]
impl SecretsService for Secrets {
    async fn get_secret(&self, r: Request<GetSecretRequest>) -> Result<Response<GetSecretResponse>, Status> {
        let data = self.read(&r.into_inner().id).await?;
        Ok(Response::new(GetSecretResponse { data }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(id: &str, origin: SecretOrigin) -> SecretSource {
        SecretSource { id: id.into(), origin }
    }

    #[tokio::test]
    async fn secrets_are_read_when_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        std::fs::write(&path, "old").unwrap();
        let sources =
            [source("f", SecretOrigin::File(path.clone())), source("v", SecretOrigin::Value(b"val".into()))];
        let secrets = Secrets::check(&sources).unwrap();
        std::fs::write(&path, "new").unwrap();
        assert_eq!(secrets.read("f").await.unwrap(), b"new");
        assert_eq!(secrets.read("v").await.unwrap(), b"val");
        assert_eq!(secrets.read("x").await.unwrap_err().code(), tonic::Code::NotFound);
        std::fs::write(&path, vec![0; 600 << 10]).unwrap();
        assert!(secrets.read("f").await.is_err());
        let error = Secrets::check(&sources).err().unwrap().message;
        assert_eq!(error, "secret f too big. max size 500KB");
        assert!(!format!("{sources:?}").contains("val"));
    }

    #[test]
    fn a_secret_that_cannot_be_had_fails_before_the_build() {
        let missing =
            Secrets::check(&[source("a", SecretOrigin::File("/nonexistent".into()))]).err().unwrap().message;
        assert!(missing.starts_with("secret a: failed to stat /nonexistent: "), "{missing}");
        assert!(Secrets::check(&[source("", SecretOrigin::Value(vec![]))]).is_err());
        assert!(Secrets::check(&[source("a", SecretOrigin::File("/".into()))]).is_err());
    }
}
