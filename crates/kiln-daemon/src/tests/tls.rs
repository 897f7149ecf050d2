//! tcp with TLS, and clients that must show who they are.

use super::*;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

fn cert(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certs").join(name)
}

fn client(identity: Option<&str>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = vec![CertificateDer::from_pem_file(cert(&format!("{name}.pem"))).unwrap()];
            let key = PrivateKeyDer::from_pem_file(cert(&format!("{name}.key"))).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Asks for the version over TLS.
async fn ask(port: u16, identity: Option<&str>) -> Result<(), String> {
    let config = Arc::new(client(identity));
    let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        let tls = TlsConnector::from(config.clone());
        async move {
            let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
            let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, tcp).await?))
        }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint.connect_with_connector(connector).await.map_err(|e| format!("{e:?}"))?;
    let info = ControlClient::new(channel).info(control::InfoRequest {}).await;
    info.map(|_| ()).map_err(|e| e.to_string())
}

async fn daemon(ca: bool) -> (Daemon, u16) {
    let port = kiln_testkit::free_port();
    let daemon = Daemon::with(|o| {
        o.addr.push(format!("tcp://127.0.0.1:{port}"));
        o.tls_cert = Some(cert("server.pem"));
        o.tls_key = Some(cert("server.key"));
        o.tls_ca = ca.then(|| cert("ca.pem"));
    });
    (daemon.await, port)
}

#[tokio::test]
async fn anybody_may_come_when_there_is_no_ca() {
    let (daemon, port) = daemon(false).await;
    ask(port, None).await.unwrap();
    ask(port, Some("client")).await.unwrap();
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn only_clients_of_the_ca_may_come() {
    let (daemon, port) = daemon(true).await;
    ask(port, Some("client")).await.unwrap();
    assert!(ask(port, None).await.is_err());
    assert!(ask(port, Some("stranger")).await.is_err());
    // Who speaks no TLS, or nothing at all, is let go and keeps nobody waiting.
    let silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut plain = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    ask(port, Some("client")).await.unwrap();
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(LIMIT, plain.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "not closed");
    drop(silent);
    daemon.stop().await.unwrap();
}
