//! Certificates for the token servers of single registries, where the system's do not do.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use crate::{Identity, Tls, TlsError};

/// How to talk to the token server of one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryTls {
    /// More authorities (PEM), besides the system's.
    pub ca: Vec<PathBuf>,
    /// Our certificate.
    pub identity: Option<Identity>,
    /// Anybody may answer.
    pub insecure: bool,
}

impl RegistryTls {
    /// Reads the files.
    pub(crate) fn config(&self) -> Result<ClientConfig, TlsError> {
        let mut roots = Tls { system_roots: true, ..Tls::default() }.roots()?;
        for ca in &self.ca {
            roots.roots.extend(Tls { ca: Some(ca.clone()), ..Tls::default() }.roots()?.roots);
        }
        let failed = |e: rustls::Error| TlsError::Config(e.to_string());
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = identity.load()?;
                builder.with_client_auth_cert(chain, key).map_err(failed)?
            }
        };
        if self.insecure {
            config.dangerous().set_certificate_verifier(Arc::new(Anybody(provider)));
        }
        Ok(config)
    }
}

/// The connection is encrypted, the other end may be anybody.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_at_once() {
        assert!(RegistryTls { insecure: true, ..RegistryTls::default() }.config().is_ok());
        let missing = RegistryTls { ca: vec!["/no/such.pem".into()], ..RegistryTls::default() };
        assert!(
            missing
                .config()
                .unwrap_err()
                .to_string()
                .starts_with("could not read ca certificate: open /no/such.pem")
        );
    }
}
