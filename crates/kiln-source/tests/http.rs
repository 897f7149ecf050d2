//! Downloads.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use kiln_digest::Digest;
use kiln_source::SourceContext;

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn with_etag(r: &Request) -> Answer {
    match r.header("if-none-match") {
        "\"v1\"" => Answer::new(304, "").with("ETag", "W/\"v1\""),
        _ => Answer::new(200, "content").with("ETag", "W/\"v1\"").with("Last-Modified", DATE),
    }
}

#[tokio::test]
async fn unchanged_content_is_fetched_once() {
    let server = Server::start(with_etag).await;
    let rooms = rooms();
    let cx = SourceContext::anonymous();
    let url = format!("http://{}/dir/file.txt", server.host);
    let first = rooms.open(&url, &[]).unwrap();
    let keys = first.keys(&cx).await.unwrap();
    assert_eq!(keys.pin, Digest::sha256("content").to_string());
    let snapshot = first.snapshot(&cx).await.unwrap().unwrap();
    let again = rooms.open(&url, &[]).unwrap();
    assert_eq!(again.keys(&cx).await.unwrap(), keys);
    assert_eq!(again.snapshot(&cx).await.unwrap().unwrap(), snapshot);
    assert_eq!((server.count("GET", ""), server.count("HEAD", "")), (1, 1));
    let view = rooms.view(&snapshot);
    let meta = view.root().metadata("/file.txt", false).unwrap();
    assert_eq!((meta.mode, meta.uid, meta.mtime.secs, meta.mtime.nanos), (0o600, 0, 784_111_777, 0));
    assert_eq!(view.root().read("/file.txt", 99).unwrap(), b"content");
    assert_eq!(snapshot.description(), format!("http url {url}"));
    // Another name is another file.
    let named = rooms.open(&url, &[("http.filename", "n"), ("http.perm", "0755")]).unwrap();
    assert_ne!(named.keys(&cx).await.unwrap(), keys);
    let view = rooms.view(&named.snapshot(&cx).await.unwrap().unwrap());
    assert_eq!(view.root().metadata("/n", false).unwrap().mode, 0o755);
}

#[tokio::test]
async fn changed_content_is_fetched_again() {
    let n = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |r| {
        let n = if r.method == "GET" { n.fetch_add(1, Ordering::SeqCst) } else { n.load(Ordering::SeqCst) };
        Answer::new(200, format!("v{n}")).with("ETag", format!("\"{n}\""))
    })
    .await;
    let (rooms, cx) = (rooms(), SourceContext::anonymous());
    let url = format!("http://{}/f", server.host);
    for n in 0..3 {
        let pin = rooms.open(&url, &[]).unwrap().keys(&cx).await.unwrap().pin;
        assert_eq!(pin, Digest::sha256(format!("v{n}")).to_string());
    }
}

#[tokio::test]
async fn a_checksum_needs_no_server_for_the_key() {
    let server =
        Server::start(|_| Answer::new(200, "content").with("Content-Disposition", "attachment; filename=x"))
            .await;
    let (rooms, cx) = (rooms(), SourceContext::anonymous());
    let url = format!("http://{}/f", server.host);
    let good = Digest::sha256("content").to_string();
    let source = rooms.open(&url, &[("http.checksum", &good)]).unwrap();
    assert_eq!(source.keys(&cx).await.unwrap().pin, good);
    assert_eq!(server.requests().len(), 0);
    let view = rooms.view(&source.snapshot(&cx).await.unwrap().unwrap());
    assert_eq!(view.root().read("/x", 99).unwrap(), b"content");
    // Known by now.
    rooms.open(&url, &[("http.checksum", &good)]).unwrap().snapshot(&cx).await.unwrap();
    assert_eq!(server.requests().len(), 1);
    let bad = Digest::sha256("other").to_string();
    let kept = || std::fs::read_dir(rooms.dir.path().join("snapshots/snapshots")).unwrap().count();
    let before = kept();
    let error =
        rooms.open(&url, &[("http.checksum", &bad)]).unwrap().snapshot(&cx).await.unwrap_err().to_string();
    assert_eq!(error, format!("digest mismatch for {url}: {good} (expected: {bad})"));
    // Removed in the background.
    let gone = async {
        while kept() != before {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), gone).await.expect("the refused download goes");
}

#[tokio::test]
async fn secrets_become_headers_and_nothing_else() {
    let server = Server::start(|r| match r.header("authorization") {
        "" => Answer::new(401, "no"),
        _ => Answer::new(200, "x").with("ETag", "\"e\""),
    })
    .await;
    let rooms = rooms();
    let url = format!("http://{}/f", server.host);
    let host = "127.0.0.1";
    let token = format!("HTTP_AUTH_TOKEN_{host}").leak();
    let (cx, seen) = context(TestClient {
        secrets: vec![(token, "canary-token"), ("mine", "Basic canary-mine\n")],
        ..Default::default()
    });
    rooms.open(&url, &[]).unwrap().keys(&cx).await.unwrap();
    assert_eq!(server.requests()[0].header("authorization"), "Bearer canary-token");
    rooms.open(&url, &[("http.authheadersecret", "mine")]).unwrap().keys(&cx).await.unwrap();
    assert_eq!(server.requests()[1].header("authorization"), "Basic canary-mine");
    let error = rooms.open(&url, &[("http.authheadersecret", "none")]).unwrap().keys(&cx).await.unwrap_err();
    assert_eq!(error.to_string(), "failed to retrieve HTTP auth secret none: not found");
    let url = format!("http://user:canary-pass@{}/f", server.host);
    let source = rooms.open(&url, &[]).unwrap();
    let snapshot = source.snapshot(&cx).await.unwrap().unwrap();
    assert!(snapshot.description().contains("xxxxx:xxxxx@"));
    let refused = rooms.open("http://user:canary-pass@127.0.0.1:1/", &[]).unwrap();
    let error = refused.keys(&SourceContext::anonymous()).await.unwrap_err();
    assert!(
        error.to_string().contains("Connection refused") && !format!("{error:?}").contains("canary"),
        "{error:?}"
    );
    assert!(!format!("{:?}", seen.0.lock().unwrap()).contains("canary"));
    assert_eq!(rooms.state_contains("canary"), None);
}

#[tokio::test]
async fn errors_name_the_status() {
    let server = Server::start(|_| Answer::new(404, "")).await;
    let rooms = rooms();
    let url = format!("http://{}/f", server.host);
    let error = rooms.open(&url, &[]).unwrap().keys(&SourceContext::anonymous()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("failed to fetch {url}: invalid response status 404"));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn servers_out_of_order_are_asked_again() {
    let n = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |_| match n.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::new(503, ""),
        _ => Answer::new(200, "x"),
    })
    .await;
    let rooms = rooms();
    let (cx, seen) = context(TestClient::default());
    rooms.open(&format!("http://{}/f", server.host), &[]).unwrap().keys(&cx).await.unwrap();
    assert!(seen.0.lock().unwrap().iter().any(|l| l.contains("retrying in 1s")));
}

#[tokio::test]
async fn uploads_of_the_client() {
    let rooms = rooms();
    let data = vec![7u8; 200_000];
    let (cx, _) = context(TestClient { uploads: vec![("/abc", data.clone())], ..Default::default() });
    let source = rooms.open("http://buildkit-session/abc", &[("http.filename", "context.tar")]).unwrap();
    assert_eq!(source.keys(&cx).await.unwrap().pin, Digest::sha256(&data).to_string());
    let view = rooms.view(&source.snapshot(&cx).await.unwrap().unwrap());
    assert_eq!(view.root().read("/context.tar", 1 << 20).unwrap(), data);
    assert_eq!(view.root().metadata("/context.tar", false).unwrap().mtime.secs, 0);
    let missing = rooms.open("http://buildkit-session/none", &[]).unwrap();
    assert!(missing.keys(&cx).await.unwrap_err().to_string().contains("no upload at /none"));
}

#[tokio::test]
async fn hostile_names_stay_inside() {
    for name in ["../../../escape", "/etc/escape", "..", "a/../../escape", "x\\..\\y"] {
        let header = format!("attachment; filename=\"{}\"", name.replace('\\', "\\\\"));
        let server = Server::start(move |_| Answer::new(200, "x").with("Content-Disposition", &header)).await;
        let (rooms, cx) = (rooms(), SourceContext::anonymous());
        let source = rooms.open(&format!("http://{}/f", server.host), &[]).unwrap();
        let view = rooms.view(&source.snapshot(&cx).await.unwrap().unwrap());
        assert_eq!(view.root().read_dir(Path::new("/")).unwrap().len(), 1, "{name}");
        assert!(!rooms.dir.path().join("escape").exists() && !Path::new("/etc/escape").exists());
    }
}

#[tokio::test]
async fn packed_content_is_kept_unpacked() {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, b"content").unwrap();
    let packed = packer.finish().unwrap();
    let server = Server::start(move |_| {
        let answer = Answer::new(200, packed.clone()).with("Content-Encoding", "gzip").with("ETag", "\"z\"");
        // As old servers write it, with a name that is not in the standard.
        answer.with("Last-Modified", "Sunday, 06-Nov-94 08:49:37 UTC")
    })
    .await;
    let (rooms, cx) = (rooms(), SourceContext::anonymous());
    let open = || rooms.open(&format!("http://{}/f", server.host), &[]).unwrap();
    let source = open();
    assert_eq!(source.keys(&cx).await.unwrap().pin, Digest::sha256("content").to_string());
    let view = rooms.view(&source.snapshot(&cx).await.unwrap().unwrap());
    assert_eq!(view.root().read("/f", 99).unwrap(), b"content");
    assert_eq!(view.root().metadata("/f", false).unwrap().mtime.secs, 784_111_777);
    // The question whether it changed is asked in the same words: servers may have another tag for packed content.
    open().keys(&cx).await.unwrap();
    assert_eq!((server.count("GET", ""), server.count("HEAD", "")), (1, 1));
    assert!(server.requests().iter().all(|r| r.header("accept-encoding") == "gzip"));
    let sum = source.checksum(&cx, kiln_digest::Checksum::Sha512, b"!").await.unwrap();
    assert_eq!(sum, kiln_digest::Checksum::Sha512.of(&b"content!"[..]).unwrap());
}

#[tokio::test]
async fn what_a_build_has_learnt_stays_true_for_it() {
    let n = Arc::new(AtomicUsize::new(0));
    let server =
        Server::start(move |_| Answer::new(200, format!("v{}", n.fetch_add(1, Ordering::SeqCst)))).await;
    let rooms = rooms();
    let build = || {
        let memos = vec![Arc::new(kiln_source::Memo::default())];
        SourceContext { memos, ..SourceContext::anonymous() }
    };
    let pin = async |cx: &SourceContext| {
        rooms.open(&format!("http://{}/f", server.host), &[]).unwrap().keys(cx).await.unwrap().pin
    };
    let cx = build();
    assert_eq!(pin(&cx).await, pin(&cx).await);
    assert_ne!(pin(&cx).await, pin(&build()).await);
}

/// Answers every request with the head of a long body and one byte of it.
fn stalling(streams: Arc<std::sync::Mutex<Vec<std::net::TcpStream>>>) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx").unwrap();
            streams.lock().unwrap().push(stream);
        }
    });
    host
}

/// With two threads for blocking work in all.
#[test]
fn servers_that_stand_still_hold_no_thread() {
    let limit = std::time::Duration::from_secs(40);
    let streams = Arc::default();
    let slow = stalling(Arc::clone(&streams));
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).max_blocking_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let rooms = Arc::new(rooms());
        let fetch = |url: String| {
            let source = rooms.open(&url, &[]).unwrap();
            async move { source.keys(&SourceContext::anonymous()).await.map(|keys| keys.pin) }
        };
        let waiting: Vec<_> = (0..20).map(|n| tokio::spawn(fetch(format!("http://{slow}/{n}")))).collect();
        let all = async {
            while streams.lock().unwrap().len() < 20 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(limit, all).await.expect("all are asked");
        let good = Server::start(|_| Answer::new(200, "content")).await;
        let got = tokio::time::timeout(limit, fetch(format!("http://{}/f", good.host))).await;
        assert_eq!(got.expect("in normal time").unwrap(), Digest::sha256("content").to_string());
        assert!(waiting.iter().all(|w| !w.is_finished()));
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    });
}
