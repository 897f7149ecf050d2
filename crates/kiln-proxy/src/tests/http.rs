//! Plain requests: what is sent on, what comes back, what is noted.

use super::world::*;
use crate::record::{Answer, Reason};
use kiln_digest::Digest;
use std::sync::Arc;

#[tokio::test]
async fn a_file_is_fetched_and_noted() {
    let w = world().await;
    let url = w.url("/file").replace("http://", "http://us:er@");
    let answer =
        w.ask("GET", &url, "X-Mine: 1\r\nAccept-Encoding: gzip\r\nProxy-Connection: keep-alive\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nfile"), "{answer}");
    assert!(answer.contains("\r\nContent-Length: 4\r\n"), "{answer}");
    let head = w.heads().remove(0);
    assert!(head.starts_with("GET /file HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("Host: {}\r\n", w.server)), "the address counts: {head}");
    assert!(head.contains("X-Mine: 1\r\n") && head.contains("Authorization: Basic dXM6ZXI=\r\n"), "{head}");
    let lower = head.to_ascii_lowercase();
    assert!(!lower.contains("accept-encoding") && !lower.contains("proxy-connection"), "{head}");
    let shown = w.url("/file").replace("http://", "http://xxxxx:xxxxx@");
    let record = w.serving.finish().await;
    assert_eq!(record.log(), format!("proxy network requests:\n- GET {shown} -> 200\n"));
    assert_eq!((&record.materials[0].url, record.materials[0].digest), (&shown, Digest::sha256("file")));
    assert!(record.is_complete());
}

#[tokio::test]
async fn a_policy_is_asked_before_anything_is_sent() {
    let policy = Arc::new(ByPath::default());
    let w = world_with(policy.clone()).await;
    let denied = w.ask("GET", &w.url("/a/../no?token=t"), "").await;
    assert!(
        denied.starts_with("HTTP/1.1 403 Forbidden\r\n") && denied.ends_with("\r\nForbidden\n"),
        "{denied}"
    );
    let post = w.ask("POST", &w.url("/old"), "Content-Length: 2\r\n\r\nhi").await;
    assert!(post.starts_with("HTTP/1.1 403 "), "only GET can be sent elsewhere: {post}");
    assert!(w.heads().is_empty());
    let _ = w.ask("GET", &w.url("/old"), "").await;
    assert!(w.heads()[0].starts_with("GET /new "));
    assert_eq!(policy.asked.lock().unwrap()[0], w.url("/no?token=t"));
    let (no, new) = (w.url("/no"), w.url("/new"));
    let record = w.serving.finish().await;
    assert_eq!(record.requests[0].answer, Answer::Denied("not this".into()));
    assert_eq!(record.requests[0].url, format!("{no}?token=xxxxx"));
    let noted: Vec<_> = record.materials.iter().map(|m| &m.url).collect();
    assert_eq!(noted, [&new]);
    assert!(record.is_complete(), "what was denied is nowhere");
}

#[tokio::test]
async fn all_shapes_of_answers_arrive() {
    let w = world().await;
    let chunked = w.ask("GET", &w.url("/chunked"), "").await;
    assert!(chunked.contains("\r\n4\r\npart\r\n5\r\n, end\r\n0\r\n\r\n"), "{chunked}");
    assert!(chunked.contains("X-Kept: 1") && !chunked.contains("Keep-Alive"), "{chunked}");
    let old = w.raw(&format!("GET {} HTTP/1.0\r\n\r\n", w.url("/chunked"))).await;
    assert!(old.ends_with("\r\n\r\npart, end"), "a client of HTTP/1.0 knows no chunks: {old}");
    let head = w.ask("HEAD", &w.url("/head"), "").await;
    assert!(head.contains("Content-Length: 1234\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    let none = w.ask("GET", &w.url("/none"), "").await;
    assert!(none.starts_with("HTTP/1.1 204 No Content\r\n") && none.ends_with("\r\n\r\n"), "{none}");
    let same = w.ask("GET", &w.url("/same"), "").await;
    assert!(same.starts_with("HTTP/1.1 304 Not Modified\r\n") && same.ends_with("\r\n\r\n"), "{same}");
    let until = w.ask("GET", &w.url("/until-close"), "").await;
    assert!(until.contains("until the end"), "{until}");
    let reasons: Vec<_> = w.serving.finish().await.incomplete.into_iter().map(|i| i.reason).collect();
    assert_eq!(reasons, [Reason::Method], "only HEAD has no digest");
}

#[tokio::test]
async fn a_body_goes_to_the_server() {
    let w = world().await;
    let sized = "Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello";
    let answer = w.ask("PUT", &w.url("/up"), sized).await;
    assert!(
        answer.starts_with("HTTP/1.1 100 Continue\r\n") && answer.contains("HTTP/1.1 200 OK"),
        "{answer}"
    );
    let head = w.heads().remove(0);
    assert!(head.contains("Content-Length: 5\r\n") && head.ends_with("\r\n\r\nhello"), "{head}");
    let record = w.serving.finish().await;
    assert_eq!(record.incomplete[0].reason.as_str(), "method_not_materializable");
    assert!(record.materials.is_empty());
}

#[tokio::test]
async fn what_has_no_digest_is_noted_with_the_reason() {
    let w = world().await;
    for path in ["/half", "/part", "/missing", "/moved", "/file?token=t"] {
        let _ = w.ask("GET", &w.url(path), "").await;
    }
    let _ = w.ask("GET", &w.url("/file"), "Range: bytes=0-3\r\n").await;
    // Bound, so that nobody else takes it, and not listening.
    let deaf = tokio::net::TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = format!("http://{}/x", deaf.local_addr().unwrap());
    let unreachable = w.ask("GET", &nobody, "").await;
    assert!(unreachable.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{unreachable}");
    let closed = w.ask("POST", &w.url("/closes"), "Content-Length: 1\r\n\r\nx").await;
    assert!(closed.starts_with("HTTP/1.1 502 ") && !closed.contains("127.0.0.1"), "{closed}");
    let switched = w.ask("GET", &w.url("/switch"), "Upgrade: other\r\nConnection: Upgrade\r\n").await;
    assert!(switched.starts_with("HTTP/1.1 502 "), "{switched}");
    let (moved, file) = (w.url("/moved"), w.url("/file?token=xxxxx"));
    let record = w.serving.finish().await;
    let reasons: Vec<_> = record.incomplete.iter().map(|i| i.reason.as_str()).collect();
    assert_eq!(
        reasons[..6],
        [
            "body_read_failed",
            "partial_response",
            "unsuccessful_response",
            "partial_response",
            "upstream_error",
            "upstream_error"
        ]
    );
    let materials: Vec<_> = record.materials.iter().map(|m| m.url.as_str()).collect();
    assert_eq!(materials, [file.as_str(), &moved], "a redirect is what it led to");
}

#[tokio::test]
async fn the_record_is_whole_when_the_step_has_read_all() {
    for _ in 0..50 {
        let w = world().await;
        let answer = w
            .raw(&format!("GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", w.url("/chunked")))
            .await;
        assert!(answer.ends_with("0\r\n\r\n"));
        assert_eq!(w.serving.finish().await.materials.len(), 1);
    }
}

#[tokio::test]
async fn a_hanging_server_does_not_hold_the_end() {
    let w = world().await;
    let url = w.url("/hangs");
    let request = format!("GET {url} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut stream = tokio::net::TcpStream::connect(w.at).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    w.reached().await;
    let record = w.serving.finish().await;
    assert_eq!(record.log(), format!("proxy network requests:\n- GET {url}\n"));
    assert_eq!(record.incomplete[0].reason, Reason::UpstreamError);
    assert_eq!(all(&mut stream).await, "");
}
