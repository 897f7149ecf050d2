//! Certificates of the servers that a step talks to, made for it.
//!
//! Each step has an authority of its own, whose key goes with the step: a certificate that it leaves somewhere is trusted
//! for nothing any more.

use crate::ProxyError;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How long certificates hold: longer than any step.
const LIFETIME: Duration = Duration::from_secs(60 * 24 * 60 * 60);
/// How far back they begin, for clocks that are behind.
const EARLIER: Duration = Duration::from_secs(60 * 60);
/// Hosts whose certificates are kept.
const HOSTS: usize = 1024;
/// The longest common name (X.520); longer hosts stand in the alternative names only.
const COMMON_NAME: usize = 64;

/// The certificate authority of one step.
pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    /// Of all servers.
    key: KeyPair,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    configs: HashMap<String, Arc<ServerConfig>>,
    /// Oldest first.
    order: VecDeque<String>,
}

fn wrong(e: impl std::fmt::Display) -> ProxyError {
    ProxyError::Certificates(e.to_string())
}

impl Authority {
    pub(crate) fn new() -> Result<Self, ProxyError> {
        let mut params = params("kiln proxied network of one step");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().map_err(wrong)?;
        let pem = pem(params.self_signed(&key).map_err(wrong)?.der());
        let issuer = Issuer::new(params, key);
        Ok(Self { pem, issuer, key: KeyPair::generate().map_err(wrong)?, made: Mutex::default() })
    }

    /// The certificate that a step has to trust.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// What it takes to be `host`, a name or an address.
    pub(crate) fn server(&self, host: &str) -> Result<Arc<ServerConfig>, ProxyError> {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = made.configs.get(&host) {
            return Ok(config.clone());
        }
        let config = Arc::new(self.make(&host)?);
        if made.order.len() >= HOSTS
            && let Some(oldest) = made.order.pop_front()
        {
            made.configs.remove(&oldest);
        }
        made.order.push_back(host.clone());
        made.configs.insert(host, config.clone());
        Ok(config)
    }

    fn make(&self, host: &str) -> Result<ServerConfig, ProxyError> {
        let mut params = params(host);
        params.subject_alt_names =
            CertificateParams::new(vec![host.to_string()]).map_err(wrong)?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&self.key, &self.issuer).map_err(wrong)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        // Given explicitly: nothing here depends on a process-wide default.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(wrong)?.with_no_client_auth();
        let mut config = config.with_single_cert(vec![certificate.der().clone()], key).map_err(wrong)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    params.not_before = (now - EARLIER).into();
    params.not_after = (now + LIFETIME).into();
    params.serial_number = Some(SerialNumber::from(serial().to_vec()));
    params.distinguished_name = DistinguishedName::new();
    if name.len() <= COMMON_NAME {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params
}

/// Positive, and never the same twice: clients refuse two certificates of one authority with the same number.
fn serial() -> [u8; 16] {
    let mut bytes = rand::random::<u128>().to_be_bytes();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    bytes
}

fn pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out + "-----END CERTIFICATE-----\n"
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn hosts_are_kept_up_to_a_bound() {
        let authority = Authority::new().unwrap();
        let first = authority.server("H0.example").unwrap();
        assert!(Arc::ptr_eq(&first, &authority.server("h0.EXAMPLE").unwrap()));
        for n in 0..=HOSTS {
            authority.server(&format!("h{n}.example")).unwrap();
        }
        assert_eq!(authority.made.lock().unwrap().configs.len(), HOSTS);
        assert!(!Arc::ptr_eq(&first, &authority.server("h0.example").unwrap()), "the oldest went");
    }

    #[test]
    fn any_host_has_a_certificate_or_an_error() {
        let authority = Authority::new().unwrap();
        for host in ["127.0.0.1", "[::1]", "localhost", &"a".repeat(200)] {
            authority.server(host).unwrap();
        }
        assert!(authority.server("h\u{e4}").is_err());
        assert!(CertificateDer::from_pem_slice(authority.pem().as_bytes()).is_ok());
    }
}
