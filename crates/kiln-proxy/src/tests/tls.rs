//! Tunnels.

use super::world::*;
use crate::policy::{AllowAll, Policy};
use crate::serve::Serving;
use kiln_digest::Digest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn trusting_only(certificate: CertificateDer<'static>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let config =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    config.with_root_certificates(roots).with_no_client_auth()
}

/// A server for `localhost` with a certificate of its own, and a proxy that trusts it.
async fn secure(policy: Arc<dyn Policy>) -> (SocketAddr, Serving, Seen, u16) {
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
    let config =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let chain = vec![own.cert.der().clone()];
    let acceptor =
        TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap()));
    let (listener, server) = listen().await;
    let seen = Seen::default();
    let noted = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, seen) = (acceptor.clone(), noted.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    answers(stream, seen).await;
                }
            });
        }
    });
    let (at, serving) = proxy(trusting(trusting_only(own.cert.der().clone())), policy);
    (at, serving, seen, server.port())
}

async fn connect(at: SocketAddr, server: &str) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream
        .write_all(format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let answer = message(&mut stream).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    stream
}

/// As a program of the step does that trusts what it was given.
async fn tunnel(at: SocketAddr, serving: &Serving, host: &str, port: u16) -> TlsStream<TcpStream> {
    let stream = connect(at, &format!("{host}:{port}")).await;
    let ca = CertificateDer::from_pem_slice(serving.ca_pem().as_bytes()).unwrap();
    let name = ServerName::try_from(host.to_string()).unwrap();
    TlsConnector::from(Arc::new(trusting_only(ca))).connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn requests_inside_tls_are_seen_like_others() {
    let policy = Arc::new(ByPath::default());
    let (at, serving, seen, port) = secure(policy.clone()).await;
    let mut stream = tunnel(at, &serving, "localhost", port).await;
    for _ in 0..2 {
        stream
            .write_all(format!("GET /file HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        assert!(message(&mut stream).await.unwrap().ends_with("\r\n\r\nfile"));
    }
    stream.write_all(b"GET /no HTTP/1.1\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(all(&mut stream).await.starts_with("HTTP/1.1 403 Forbidden\r\n"));
    assert_eq!(seen.lock().unwrap().len(), 2);
    assert_eq!(policy.asked.lock().unwrap()[2], format!("https://localhost:{port}/no"));
    let record = serving.finish().await;
    let url = format!("https://localhost:{port}/file");
    assert!(
        record.log().starts_with(&format!("proxy network requests:\n- GET {url} -> 200\n")),
        "{}",
        record.log()
    );
    assert_eq!((&record.materials[1].url, record.materials[1].digest), (&url, Digest::sha256("file")));
}

#[tokio::test]
async fn a_tunnel_leads_nowhere_else() {
    let (at, serving, seen, port) = secure(Arc::new(AllowAll)).await;
    for (request, status) in [
        ("GET /file HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n".to_string(), 421),
        (
            "GET https://other.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_string(),
            421,
        ),
        (format!("CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), 400),
    ] {
        let mut stream = tunnel(at, &serving, "localhost", port).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = all(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_server_that_is_not_trusted_is_a_bad_gateway() {
    let (_, _, seen, port) = secure(Arc::new(AllowAll)).await;
    let (at, serving) = proxy(crate::Proxy::default(), Arc::new(AllowAll));
    let mut stream = tunnel(at, &serving, "localhost", port).await;
    stream.write_all(b"GET /file HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    // Its port is another one, so it would not even be asked.
    assert!(all(&mut stream).await.starts_with("HTTP/1.1 421 "));
    let mut stream = tunnel(at, &serving, "localhost", port).await;
    stream.write_all(b"GET /file HTTP/1.0\r\n\r\n").await.unwrap();
    let answer = all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.0 502 Bad Gateway\r\n"), "{answer}");
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn https_without_a_tunnel_and_http_in_one() {
    let (at, serving, seen, port) = secure(Arc::new(AllowAll)).await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    let request =
        format!("GET https://localhost:{port}/file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(all(&mut stream).await.ends_with("\r\n\r\nfile"), "busybox's wget does that");
    drop(serving.finish().await);
    assert_eq!(seen.lock().unwrap().len(), 1);
    let w = world().await;
    let mut stream = connect(w.at, &w.server.to_string()).await;
    stream.write_all(b"GET /file HTTP/1.1\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(all(&mut stream).await.ends_with("\r\n\r\nfile"));
    assert_eq!(w.serving.finish().await.materials.len(), 1);
}

#[tokio::test]
async fn every_step_has_an_authority_of_its_own() {
    let (_, first) = proxy(crate::Proxy::default(), Arc::new(AllowAll));
    let (_, second) = proxy(crate::Proxy::default(), Arc::new(AllowAll));
    assert_ne!(first.ca_pem(), second.ca_pem());
}
