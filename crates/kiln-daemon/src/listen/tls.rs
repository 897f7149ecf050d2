//! TLS on tcp sockets, and clients that must show a certificate.

use super::{ListenError, Tls};
use crate::config;
use crate::options::OptionsError;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// PEM files of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    cert: PathBuf,
    key: PathBuf,
    /// Clients must have a certificate of it.
    ca: Option<PathBuf>,
}

impl TlsFiles {
    /// None if there is to be no TLS.
    ///
    /// # Errors
    /// If only one of certificate and key is given.
    pub(crate) fn new(c: &config::Tls) -> Result<Option<Self>, OptionsError> {
        let given = |path: &Option<PathBuf>| path.clone().filter(|p| !p.as_os_str().is_empty());
        match (given(&c.cert), given(&c.key)) {
            (Some(cert), Some(key)) => Ok(Some(Self { cert, key, ca: given(&c.ca) })),
            (None, None) if given(&c.ca).is_some() => {
                let message = "a CA for clients needs the daemon's own key and cert file too";
                Err(OptionsError::Invalid(message.into()))
            }
            (None, None) => Ok(None),
            _ => Err(OptionsError::Invalid("you must specify key and cert file if one is specified".into())),
        }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// If one cannot be read or they do not go together.
    pub(crate) fn load(&self) -> Result<Tls, ListenError> {
        let failed = |what: &str, path: &Path, e: &dyn std::fmt::Display| {
            ListenError::Tls(format!("{what} {}: {e}", path.display()))
        };
        let pair = "could not load server key pair";
        let certs = certificates(&self.cert).map_err(|e| failed(pair, &self.cert, &e))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|e| failed(pair, &self.key, &e))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| ListenError::Tls(format!("tls: {e}")))?;
        let builder = match &self.ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for cert in
                    certificates(path).map_err(|e| failed("could not read ca certificate", path, &e))?
                {
                    roots.add(cert).map_err(|e| failed("failed to append ca cert", path, &e))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                let verifier = verifier.map_err(|e| failed("failed to append ca cert", path, &e))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(certs, key).map_err(|e| failed(pair, &self.cert, &e))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Tls(TlsAcceptor::from(Arc::new(config))))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).map_err(|e| e.to_string())?;
    let certs = read.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    if certs.is_empty() { Err("no certificate in it".into()) } else { Ok(certs) }
}
