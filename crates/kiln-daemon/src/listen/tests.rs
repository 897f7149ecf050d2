use super::*;
use std::os::unix::fs::PermissionsExt;

fn socket_path(l: &Listener) -> std::path::PathBuf {
    let Socket::Unix(socket, _) = &l.socket else { panic!("not a unix socket") };
    socket.local_addr().unwrap().as_pathname().unwrap().to_path_buf()
}

async fn plain(address: &str) -> Result<Listener, ListenError> {
    listen(address, None, (None, None)).await
}

#[tokio::test]
async fn stale_sockets_are_replaced_and_live_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/s.sock");
    let address = format!("unix://{}", path.display());
    let first = plain(&address).await.unwrap();
    assert!(matches!(plain(&address).await, Err(ListenError::InUse(_))));
    drop(first);
    assert!(!path.exists());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let again = plain(&address).await.unwrap();
    assert_eq!(std::fs::metadata(socket_path(&again)).unwrap().permissions().mode() & 0o777, 0o660);
    std::fs::write(dir.path().join("f"), "").unwrap();
    let file = format!("unix://{}/f", dir.path().display());
    assert!(matches!(plain(&file).await, Err(ListenError::NotASocket(_))));
}

#[tokio::test]
async fn addresses_that_cannot_be() {
    let text = |r: Result<Listener, ListenError>| r.unwrap_err().to_string();
    assert_eq!(
        text(plain("/run/x.sock").await),
        "address /run/x.sock does not contain proto, you meant unix:///run/x.sock ?"
    );
    assert_eq!(
        text(plain("npipe:////./pipe/x").await),
        "address npipe:////./pipe/x not supported: named pipes are for Windows"
    );
    assert_eq!(
        text(plain("http://x").await),
        "address http://x not supported: expected unix://, tcp:// or fd://"
    );
    assert!(text(plain("fd://").await).contains("no sockets found via socket activation"));
    assert!(text(plain("tcp://1.2.3.4.5:1").await).starts_with("address tcp://1.2.3.4.5:1: bind: "));
    assert!(text(plain("tcp://127.0.0.1").await).starts_with("address tcp://127.0.0.1: bind: "));
    assert!(text(plain("tcp://127.0.0.1:99999").await).starts_with("address tcp://127.0.0.1:99999: bind: "));
}

#[tokio::test]
async fn one_bad_address_closes_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let addresses = [format!("unix://{}", path.display()), "x://y".into()];
    assert!(listen_all(&addresses, None, (None, None)).await.is_err());
    assert!(!path.exists());
}

#[tokio::test]
async fn tcp_on_both_families() {
    for address in ["tcp://127.0.0.1:0", "tcp://localhost:0", "tcp://:0"] {
        let listener = plain(address).await.unwrap();
        assert!(matches!(listener.socket, Socket::Tcp(_)), "{address}");
    }
    // Where there is IPv6.
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        assert!(plain("tcp://[::1]:0").await.is_ok());
    }
}

#[test]
fn certificates_that_cannot_be_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.pem");
    std::fs::write(&path, "no certificate").unwrap();
    let config = crate::config::Tls { cert: Some(path.clone()), key: Some(path.clone()), ca: None };
    let error = TlsFiles::new(&config).unwrap().unwrap().load().unwrap_err().to_string();
    assert!(
        error.starts_with("could not load server key pair") && error.contains("c.pem: no certificate in it"),
        "{error}"
    );
    let only_ca = crate::config::Tls { ca: Some(path), ..Default::default() };
    assert!(TlsFiles::new(&only_ca).is_err());
}
