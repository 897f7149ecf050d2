//! Steps that want to harm the daemon.

use super::world::*;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[tokio::test]
async fn nonsense_is_refused_and_harms_nobody() {
    let w = world().await;
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(200 << 10));
    let headers = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(5000));
    for text in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "GET /x HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET ftp://h/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "CONNECT u@h:1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "CONNECT /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "POST http://h/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nx",
        "GET http://[::1/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        &long,
        &headers,
    ] {
        let answer = w.raw(text).await;
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(refused, "{:?}: {answer}", &text[..text.len().min(60)]);
    }
    assert!(w.heads().is_empty());
    assert!(w.ask("GET", &w.url("/file"), "").await.ends_with("file"));
    assert_eq!(w.serving.finish().await.requests.len(), 1);
}

#[tokio::test]
async fn a_tunnel_of_nonsense_ends() {
    let w = world().await;
    let mut stream = TcpStream::connect(w.at).await.unwrap();
    stream.write_all(b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    assert!(message(&mut stream).await.unwrap().starts_with("HTTP/1.1 200 "));
    stream.write_all(b"\x16not TLS at all, but long enough to be looked at").await.unwrap();
    // An alert, or nothing; then the end.
    assert!(!all(&mut stream).await.contains("HTTP"));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_there_is_room_for_wait() {
    let w = std::sync::Arc::new(world().await);
    let mut asked = tokio::task::JoinSet::new();
    // Few enough for machines that allow 1024 open files.
    for _ in 0..120 {
        let w = w.clone();
        asked.spawn(async move { w.ask("GET", &w.url("/file"), "").await.ends_with("file") });
    }
    assert!(asked.join_all().await.into_iter().all(|whole| whole));
    let w = std::sync::Arc::into_inner(w).unwrap();
    assert_eq!(w.serving.finish().await.materials.len(), 120);
}

#[tokio::test]
async fn a_dropped_proxy_ends_its_connections() {
    let w = world().await;
    let mut idle = TcpStream::connect(w.at).await.unwrap();
    drop(w.serving);
    assert_eq!(all(&mut idle).await, "");
}
