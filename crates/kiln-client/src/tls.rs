//! Certificates of a connection.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What a connection is encrypted with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Name that the daemon's certificate must be for; that of the address if empty.
    pub server_name: String,
    /// Certificates of authorities (PEM) that the daemon's certificate may come from.
    pub ca: Option<PathBuf>,
    /// Whether the system's authorities are trusted too.
    pub system_roots: bool,
    /// Our certificate and its key (PEM).
    pub identity: Option<Identity>,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Certificates, our own first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why there is no encryption.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("could not read {what}: open {}: {source}", path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{what} {}: {why}", path.display())]
    Content {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is no such server name.
    #[error("invalid server name {0:?}")]
    ServerName(String),
    /// The directory lacks a file.
    #[error("directory did not contain one of the needed files: {0} or {1}")]
    Directory(&'static str, &'static str),
    /// The parts do not fit together.
    #[error("tls: {0}")]
    Config(String),
}

const KEYPAIR: &str = "certificate/key";

impl Tls {
    /// The files of a directory: `ca.pem`, `cert.pem`, `key.pem`, or `ca.crt`, `tls.crt`, `tls.key`, each on its own.
    pub fn from_dir(dir: &Path) -> Result<Self, TlsError> {
        let one_of = |first: &'static str, second: &'static str| {
            let found = [first, second].map(|name| dir.join(name)).into_iter().find(|path| path.exists());
            found.ok_or(TlsError::Directory(first, second))
        };
        let ca = Some(one_of("ca.pem", "ca.crt")?);
        let cert = one_of("cert.pem", "tls.crt")?;
        let key = one_of("key.pem", "tls.key")?;
        Ok(Self { ca, identity: Some(Identity { cert, key }), ..Self::default() })
    }

    /// Reads the files, to see whether they can be used.
    pub fn check(&self) -> Result<(), TlsError> {
        self.connector().map(drop)
    }

    /// Reads the files.
    pub(crate) fn connector(&self) -> Result<TlsConnector, TlsError> {
        let config = |e: rustls::Error| TlsError::Config(e.to_string());
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(config)?
            .with_root_certificates(self.roots()?);
        let mut tls = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = identity.load()?;
                builder.with_client_auth_cert(chain, key).map_err(config)?
            }
        };
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsConnector::from(Arc::new(tls)))
    }

    pub(crate) fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        if self.system_roots {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if let Some(path) = &self.ca {
            let what = "ca certificate";
            let pem = read(path, what)?;
            let certs = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
            let (added, _) = roots.add_parsable_certificates(certs);
            if added == 0 {
                let why = "failed to append ca certs".to_string();
                return Err(TlsError::Content { what, path: path.clone(), why });
            }
        }
        Ok(roots)
    }

    /// The name that the certificate is checked for.
    pub(crate) fn name(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        let name = if self.server_name.is_empty() { host } else { &self.server_name };
        ServerName::try_from(name.to_string()).map_err(|_| TlsError::ServerName(name.to_string()))
    }
}

impl Identity {
    pub(crate) fn load(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let wrong =
            |path: &Path, why: String| TlsError::Content { what: KEYPAIR, path: path.to_owned(), why };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(&self.cert, KEYPAIR)?)
            .collect::<Result<_, _>>()
            .map_err(|e| wrong(&self.cert, e.to_string()))?;
        if chain.is_empty() {
            return Err(wrong(&self.cert, "no certificate in it".into()));
        }
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key, KEYPAIR)?)
            .map_err(|e| wrong(&self.key, e.to_string()))?;
        Ok((chain, key))
    }
}

fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::File { what, path: path.to_owned(), source })
}

/// Encrypts a stream.
pub(crate) async fn encrypt<I>(
    connector: &TlsConnector,
    name: ServerName<'static>,
    io: I,
) -> io::Result<TlsStream<I>>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    connector.connect(name, io).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_of_two_sets_of_names() {
        let dir = tempfile::tempdir().unwrap();
        let error = Tls::from_dir(dir.path()).unwrap_err().to_string();
        assert_eq!(error, "directory did not contain one of the needed files: ca.pem or ca.crt");
        for name in ["ca.crt", "cert.pem", "tls.key"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let tls = Tls::from_dir(dir.path()).unwrap();
        assert_eq!(tls.ca, Some(dir.path().join("ca.crt")));
        assert_eq!(tls.identity.unwrap().key, dir.path().join("tls.key"));
    }

    #[test]
    fn files_that_hold_no_certificates_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let tls = Tls { ca: Some(path.clone()), ..Tls::default() };
        assert!(matches!(tls.connector(), Err(TlsError::File { what: "ca certificate", .. })));
        std::fs::write(&path, "text").unwrap();
        let Err(error) = tls.connector() else { panic!("accepted") };
        assert!(error.to_string().ends_with("ca.pem: failed to append ca certs"), "{error}");
    }
}
