//! TLS and HTTP clients. One client per set of certificates, so that connections are shared among registries.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::{ClientOptions, HostConfig, KeyPair, Proxies};
use crate::{RegistryError, Result};

/// Never proxied, as in Go.
const LOCAL_HOSTS: &str = "localhost,127.0.0.0/8,::1";

/// What distinguishes one client from another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct TlsSettings {
    ca: Vec<PathBuf>,
    keypairs: Vec<KeyPair>,
    dirs: Vec<PathBuf>,
    insecure: bool,
}

impl TlsSettings {
    pub(crate) fn of(host: &HostConfig) -> Self {
        Self {
            ca: host.ca.clone(),
            keypairs: host.keypairs.clone(),
            dirs: host.tls_config_dirs.clone(),
            insecure: host.insecure.unwrap_or(false),
        }
    }
}

/// All clients of one daemon, made when first needed.
#[derive(Debug)]
pub(crate) struct Clients {
    options: ClientOptions,
    roots: OnceLock<RootCertStore>,
    made: Mutex<HashMap<TlsSettings, reqwest::Client>>,
}

impl Clients {
    pub(crate) fn new(options: ClientOptions) -> Self {
        Self { options, roots: OnceLock::new(), made: Mutex::default() }
    }

    /// The client for a set of certificates. HTTP/1.1 only, as its flow control does not slow pushes down.
    pub(crate) fn get(&self, settings: &TlsSettings) -> Result<reqwest::Client> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(settings) {
            return Ok(client.clone());
        }
        let tls = client_config(settings, self.roots.get_or_init(native_roots).clone())?;
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .user_agent(&self.options.user_agent)
            .connect_timeout(self.options.timeouts.connect)
            .pool_max_idle_per_host(4);
        let client = with_proxies(builder, &self.options.proxies)?
            .build()
            .map_err(|e| RegistryError::Config(format!("http client: {e}")))?;
        made.insert(settings.clone(), client.clone());
        Ok(client)
    }
}

fn with_proxies(builder: reqwest::ClientBuilder, proxies: &Proxies) -> Result<reqwest::ClientBuilder> {
    let direct = match &proxies.no_proxy {
        Some(list) => format!("{list},{LOCAL_HOSTS}"),
        None => LOCAL_HOSTS.to_string(),
    };
    let mut builder = builder.no_proxy();
    type Make = fn(String) -> reqwest::Result<reqwest::Proxy>;
    let kinds: [(&Option<String>, Make); 2] =
        [(&proxies.http, reqwest::Proxy::http), (&proxies.https, reqwest::Proxy::https)];
    for (address, make) in kinds {
        let Some(address) = address else { continue };
        // The address may hold a password, so it is not repeated.
        let proxy =
            make(address.clone()).map_err(|_| RegistryError::Config("invalid proxy address".to_string()))?;
        builder = builder.proxy(proxy.no_proxy(reqwest::NoProxy::from_string(&direct)));
    }
    Ok(builder)
}

/// The system's certificates; `SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured.
fn native_roots() -> RootCertStore {
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        tracing::warn!(%error, "some system certificates could not be read");
    }
    let mut roots = RootCertStore::empty();
    let (_, ignored) = roots.add_parsable_certificates(loaded.certs);
    if ignored > 0 {
        tracing::debug!(ignored, "system certificates that could not be parsed");
    }
    roots
}

fn client_config(settings: &TlsSettings, mut roots: RootCertStore) -> Result<ClientConfig> {
    let (mut ca, mut keypairs) = (settings.ca.clone(), settings.keypairs.clone());
    for dir in &settings.dirs {
        scan(dir, &mut ca, &mut keypairs)?;
    }
    for path in &ca {
        for cert in certificates(path)? {
            roots.add(cert).map_err(|e| config_error("add CA", path, e))?;
        }
    }
    // Given explicitly: nothing here depends on a process-wide default.
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| RegistryError::Config(format!("tls: {e}")))?;
    let builder = match settings.insecure {
        true => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider.clone())))
        }
        false => builder.with_root_certificates(roots),
    };
    if keypairs.is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let keys = keypairs.iter().map(|pair| certified_key(pair, &provider)).collect::<Result<_>>()?;
    Ok(builder.with_client_cert_resolver(Arc::new(ClientKeys(keys))))
}

/// Collects what Docker keeps in `certs.d/<host>`: `*.crt`, and `*.cert` with `*.key`.
fn scan(dir: &Path, ca: &mut Vec<PathBuf>, keypairs: &mut Vec<KeyPair>) -> Result<()> {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), NotFound | PermissionDenied) => return Ok(()),
        Err(e) => return Err(config_error("read", dir, e)),
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        match path.extension().and_then(|e| e.to_str()) {
            Some("crt") => ca.push(path),
            Some("cert") => keypairs.push(KeyPair { key: path.with_extension("key"), cert: path }),
            _ => {}
        }
    }
    Ok(())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let certs =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    certs.map_err(|e| config_error("read certificates", path, e))
}

fn certified_key(pair: &KeyPair, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>> {
    let certs = certificates(&pair.cert)?;
    let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(|e| config_error("read key", &pair.key, e))?;
    let key = CertifiedKey::from_der(certs, key, provider)
        .map_err(|e| config_error("use keypair", &pair.cert, e))?;
    Ok(Arc::new(key))
}

fn config_error(step: &str, path: &Path, e: impl std::fmt::Display) -> RegistryError {
    RegistryError::Config(format!("{step} {}: {e}", path.display()))
}

/// Offers the first of several client certificates that the server can check.
#[derive(Debug)]
struct ClientKeys(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for ClientKeys {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.iter().find(|k| k.key.choose_scheme(schemes).is_some()).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// `insecure = true`: the connection is encrypted, the other end may be anybody.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
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
    fn missing_files_are_named_and_missing_dirs_are_not() {
        let clients = Clients::new(ClientOptions::default());
        let host = HostConfig { tls_config_dirs: vec!["/nonexistent/certs".into()], ..Default::default() };
        clients.get(&TlsSettings::of(&host)).unwrap();
        let host = HostConfig { ca: vec!["/nonexistent/ca.pem".into()], ..Default::default() };
        let message = clients.get(&TlsSettings::of(&host)).unwrap_err().to_string();
        assert!(message.contains("/nonexistent/ca.pem"), "{message}");
        let insecure = HostConfig { insecure: Some(true), ..Default::default() };
        clients.get(&TlsSettings::of(&insecure)).unwrap();
    }

    #[test]
    fn finds_files_as_docker_lays_them_out() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.crt", "client.cert", "client.key", "readme"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let (mut ca, mut keys) = (Vec::new(), Vec::new());
        scan(dir.path(), &mut ca, &mut keys).unwrap();
        assert_eq!(ca, [dir.path().join("a.crt")]);
        assert_eq!(
            keys,
            [KeyPair { key: dir.path().join("client.key"), cert: dir.path().join("client.cert") }]
        );
    }

    #[test]
    fn proxy_passwords_stay_out_of_errors() {
        let proxies = Proxies { http: Some("http://u:canary@[bad".into()), ..Default::default() };
        let clients = Clients::new(ClientOptions { proxies, ..Default::default() });
        let message = clients.get(&TlsSettings::default()).unwrap_err().to_string();
        assert!(!message.contains("canary"), "{message}");
    }
}
