//! Registries behind TLS with a CA of their own, with and without client certificates, and mirrors of both kinds.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::*;
use kiln_oci::Reference;
use kiln_registry::*;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

fn cert(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certs").join(name)
}

/// Puts TLS in front of a registry; where it can be reached.
async fn front(behind: &Fake, wants_client: bool) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match wants_client {
        true => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(cert("ca.pem")).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        false => builder.with_no_client_auth(),
    };
    let chain = vec![CertificateDer::from_pem_file(cert("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(cert("server.key")).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (host, behind) = (listener.local_addr().unwrap().to_string(), behind.host.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                let Ok(mut outside) = acceptor.accept(stream).await else { return };
                let Ok(mut inside) = TcpStream::connect(behind).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    host
}

fn tls() -> HostConfig {
    HostConfig { http: Some(false), ..HostConfig::default() }
}

fn with_ca() -> HostConfig {
    HostConfig { ca: vec![cert("ca.pem")], ..tls() }
}

fn client_pair() -> KeyPair {
    KeyPair { key: cert("client.key"), cert: cert("client.pem") }
}

fn registry_of(hosts: &[(&str, HostConfig)]) -> Registry {
    let hosts = hosts.iter().map(|(host, config)| (host.to_string(), config.clone())).collect();
    let retry = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    Registry::new(RegistryConfig { hosts, retry, ..RegistryConfig::default() }).unwrap()
}

async fn resolve(registry: &Registry, host: &str) -> Result<Resolved> {
    let reference = Reference::parse_normalized(&format!("{host}/a/b:t")).unwrap();
    registry.pull(&reference, Access::anonymous())?.resolve("t").await
}

#[tokio::test]
async fn a_ca_of_its_own() {
    let fake = Fake::start().await;
    fake.put_image("a/b", "t", &[b"layer"]);
    let host = front(&fake, false).await;
    resolve(&registry_of(&[(&host, with_ca())]), &host).await.unwrap();
    // `insecure` takes any certificate.
    let insecure = HostConfig { insecure: Some(true), ..tls() };
    resolve(&registry_of(&[(&host, insecure)]), &host).await.unwrap();
    let asked = fake.count("HEAD", "") + fake.count("GET", "");
    for config in [tls(), HostConfig { ca: vec![cert("other.pem")], ..tls() }] {
        let error = resolve(&registry_of(&[(&host, config)]), &host).await.unwrap_err().to_string();
        assert!(error.to_lowercase().contains("certificate"), "{error}");
    }
    assert_eq!(fake.count("HEAD", "") + fake.count("GET", ""), asked, "nothing was said to a stranger");
    let missing = HostConfig { ca: vec![cert("none.pem")], ..tls() };
    let hosts = [(host, missing)].into();
    let error = Registry::new(RegistryConfig { hosts, ..RegistryConfig::default() }).unwrap_err().to_string();
    assert!(error.contains("none.pem"), "{error}");
}

#[tokio::test]
async fn client_certificates_and_directories_of_them() {
    let fake = Fake::start().await;
    fake.put_image("a/b", "t", &[b"layer"]);
    let host = front(&fake, true).await;
    assert!(resolve(&registry_of(&[(&host, with_ca())]), &host).await.is_err(), "no certificate");
    let pair = HostConfig { keypairs: vec![client_pair()], ..with_ca() };
    resolve(&registry_of(&[(&host, pair)]), &host).await.unwrap();
    // As Docker keeps them: `*.crt`, and `*.cert` with `*.key`.
    let dir = tempfile::tempdir().unwrap();
    for (from, to) in [("ca.pem", "ca.crt"), ("client.pem", "me.cert"), ("client.key", "me.key")] {
        std::fs::copy(cert(from), dir.path().join(to)).unwrap();
    }
    let missing = dir.path().join("missing");
    let dirs = HostConfig { tls_config_dirs: vec![missing, dir.path().to_path_buf()], ..tls() };
    resolve(&registry_of(&[(&host, dirs)]), &host).await.unwrap();
}

#[tokio::test]
async fn mirrors_have_settings_of_their_own() {
    let (mirror, origin) = (Fake::start().await, Fake::start().await);
    mirror.put_image("a/b", "t", &[b"layer"]);
    origin.put_image("a/b", "t", &[b"layer"]);
    let (secure_mirror, secure_origin) = (front(&mirror, false).await, front(&origin, false).await);
    let with_mirror = HostConfig { mirrors: vec![secure_mirror.clone()], ..with_ca() };
    // The CA of the origin is not that of its mirror: without its own section the mirror is not trusted, and left out.
    let registry = registry_of(&[(&secure_origin, with_mirror.clone()), (&secure_mirror, tls())]);
    resolve(&registry, &secure_origin).await.unwrap();
    assert_eq!((mirror.count("HEAD", "/manifests/t"), origin.count("HEAD", "/manifests/t")), (0, 1));
    let registry = registry_of(&[(&secure_origin, with_mirror), (&secure_mirror, with_ca())]);
    resolve(&registry, &secure_origin).await.unwrap();
    assert_eq!((mirror.count("HEAD", "/manifests/t"), origin.count("HEAD", "/manifests/t")), (1, 1));
}

#[tokio::test]
async fn insecure_with_http_falls_back() {
    let fake = Fake::start().await;
    fake.put_image("a/b", "t", &[b"layer"]);
    let both = HostConfig { http: Some(true), insecure: Some(true), ..HostConfig::default() };
    resolve(&registry_of(&[(&fake.host, both)]), &fake.host).await.unwrap();
    let only_tls = resolve(&registry_of(&[(&fake.host, tls())]), &fake.host).await;
    assert!(only_tls.is_err(), "plain HTTP is not used unasked");
}

#[tokio::test]
async fn pushes_go_through_tls_too() {
    let fake = Fake::start().await;
    let host = front(&fake, true).await;
    let config = HostConfig { keypairs: vec![client_pair()], ..with_ca() };
    let registry = registry_of(&[(&host, config)]);
    let s = store();
    let config = s.store.put(br#"{"architecture":"amd64","os":"linux"}"#).unwrap();
    let kind = kiln_oci::media_type::OCI_CONFIG;
    let config = kiln_oci::Descriptor::new(kind, config, s.store.info(&config).unwrap().unwrap());
    let manifest =
        kiln_oci::Manifest::new(kiln_oci::media_type::OCI_MANIFEST, config, Vec::new()).to_vec().unwrap();
    s.store.put(&manifest).unwrap();
    let root = kiln_oci::Descriptor::of(kiln_oci::media_type::OCI_MANIFEST, &manifest);
    let content = StoreContent(s.store.clone());
    let plan = PushPlan::load(&root, &content).await.unwrap();
    let name = Reference::parse_normalized(&format!("{host}/x/y:1")).unwrap();
    let repository = registry.push(&name, Access::anonymous(), false).unwrap();
    repository.push_blobs(&plan, &content, &NoPushes).await.unwrap();
    repository.push_documents(&plan, &PushTarget::of(&name, false).unwrap()).await.unwrap();
    assert_eq!(fake.count("PUT", "/manifests/1"), 1);
}

struct NoPushes;

impl PushObserver for NoPushes {
    fn blob(&self, _: &kiln_oci::Descriptor, _: u64) {}
}
