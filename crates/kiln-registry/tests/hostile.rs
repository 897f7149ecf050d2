//! Servers that answer what none should, byte for byte: an error that names the image, in bounded time.

mod common;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use common::*;
use kiln_digest::Digest;
use kiln_oci::{Descriptor, Reference};
use kiln_registry::*;

/// Answers every request with what `answer` writes; returns `127.0.0.1:PORT`.
fn serve(answer: impl Fn(&str, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte)?;
                    head.push(byte[0]);
                }
                answer(&String::from_utf8_lossy(&head), &mut stream)
            });
        }
    });
    host
}

fn impatient() -> Registry {
    let second = Duration::from_secs(1);
    let retry = RetryPolicy { first: Duration::from_millis(1), max: Duration::from_millis(1), attempts: 2 };
    let timeouts = Timeouts { connect: second, idle: second, upload: second };
    let client = ClientOptions { timeouts, ..ClientOptions::default() };
    Registry::new(RegistryConfig { retry, client, ..RegistryConfig::default() }).unwrap()
}

fn repository(registry: &Registry, host: &str, access: Access) -> Repository {
    let reference = Reference::parse_normalized(&format!("{host}/evil/app:t")).unwrap();
    registry.pull(&reference, access).unwrap()
}

type Write1 = fn(&mut TcpStream) -> io::Result<()>;

/// Name, what is sent, what the error says.
const ANSWERS: &[(&str, Write1, &str)] = &[
    (
        "a redirect in a circle",
        |s| {
            s.write_all(
                b"HTTP/1.1 302 x\r\nLocation: /v2/again\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            )
        },
        "redirect",
    ),
    (
        "a redirect to a file",
        |s| s.write_all(b"HTTP/1.1 302 x\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"),
        "",
    ),
    (
        "a redirect to a socket",
        |s| s.write_all(b"HTTP/1.1 307 x\r\nLocation: unix:///run/docker.sock\r\nContent-Length: 0\r\n\r\n"),
        "",
    ),
    (
        "a token server that is a file",
        |s| {
            s.write_all(
                b"HTTP/1.1 401 x\r\nWWW-Authenticate: Bearer realm=\"file:///etc/passwd\"\r\nContent-Length: 0\r\n\r\n",
            )
        },
        "scheme",
    ),
    (
        "headers without end",
        |s| {
            s.write_all(b"HTTP/1.1 200 OK\r\n")?;
            for n in 0u64.. {
                write!(s, "X-{n}: {}\r\n", "x".repeat(4000))?;
            }
            Ok(())
        },
        "",
    ),
    (
        "answers before the answer without end",
        |s| {
            loop {
                s.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")?;
            }
        },
        "",
    ),
    (
        "headers a byte at a time",
        |s| {
            s.write_all(b"HTTP/1.1 200 OK\r\nX: ")?;
            loop {
                s.write_all(b"x")?;
                std::thread::sleep(Duration::from_millis(50));
            }
        },
        "timed out",
    ),
    (
        "a document without end",
        |s| {
            s.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                write!(s, "10000\r\n{}\r\n", " ".repeat(65536))?;
            }
        },
        "",
    ),
    ("less than announced", |s| s.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"), ""),
    ("no HTTP", |s| s.write_all(b"SSH-2.0-OpenSSH\r\n"), ""),
    (
        "an error without end",
        |s| {
            s.write_all(b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                write!(s, "10000\r\n{}\r\n", "e".repeat(65536))?;
            }
        },
        "500",
    ),
];

#[tokio::test]
async fn every_answer_ends_in_an_error_that_names_the_image() {
    for (what, answer, wanted) in ANSWERS {
        let host = serve(|_, stream| answer(stream));
        let registry = impatient();
        let repository = repository(&registry, &host, Access::anonymous());
        let digest = Digest::sha256("x").to_string();
        // As a manifest that is asked for by its digest, so that it is read.
        let resolved = tokio::time::timeout(PATIENCE, repository.resolve(&digest)).await;
        let error = resolved.unwrap_or_else(|_| panic!("{what}: no end")).unwrap_err().to_string();
        assert!(error.contains(&format!("{host}/evil/app:t")) && error.contains(wanted), "{what}: {error}");
        assert!(error.len() < 20_000 && !error.contains("root:"), "{what}: {} bytes", error.len());
    }
}

/// Blobs that are longer than said, or have no end, are given up at their size, and nothing of them is kept as a blob.
#[tokio::test]
async fn blobs_without_end_end_at_their_size() {
    let host = serve(|head, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        if head.starts_with("HEAD") {
            return Ok(());
        }
        loop {
            write!(stream, "10000\r\n{}\r\n", " ".repeat(65536))?;
        }
    });
    let (registry, s) = (impatient(), store());
    let repository = repository(&registry, &host, Access::anonymous());
    let blob = Descriptor::new("t", Digest::sha256("x"), 1_000_000);
    let fetched = tokio::time::timeout(PATIENCE, repository.fetch(&blob, &s.store, &|_| {})).await;
    let error = fetched.expect("it ends").unwrap_err().to_string();
    assert!(error.contains(&host), "{error}");
    assert!(s.store.info(&blob.digest).unwrap().is_none());
}

/// One registry that stands still does not keep others from giving the same blob.
#[tokio::test]
async fn a_blob_comes_from_who_has_it() {
    let data = data(100_000, 3);
    let blob = Descriptor::new("t", Digest::sha256(&data), data.len() as u64);
    let (asked, mut was_asked) = tokio::sync::mpsc::unbounded_channel();
    let still = serve(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nx")?;
        let _ = asked.send(());
        loop {
            std::thread::park();
        }
    });
    let honest = Fake::start().await;
    honest.put_blob("evil/app", &data);
    let (registry, s) = (registry(), store());
    let (slow, fast) = (
        repository(&registry, &still, Access::anonymous()),
        repository(&registry, &honest.host, Access::anonymous()),
    );
    let stuck = tokio::spawn({
        let (blob, store) = (blob.clone(), s.store.clone());
        async move { slow.fetch(&blob, &store, &|_| {}).await }
    });
    tokio::time::timeout(PATIENCE, was_asked.recv()).await.expect("it was asked");
    let fetched = tokio::time::timeout(PATIENCE / 2, fast.fetch(&blob, &s.store, &|_| {})).await;
    fetched.expect("nobody is waited for").unwrap();
    assert_eq!(s.store.info(&blob.digest).unwrap(), Some(data.len() as u64));
    stuck.abort();
}

/// What clients give as tokens goes into headers, and is kept for as long as they say.
#[tokio::test]
async fn tokens_that_no_header_holds() {
    let fake = Fake::start().await;
    fake.set(|s| s.auth = AuthMode::Bearer { anonymous: false, get: 500, expires: 300 });
    fake.put_image("a/b", "t", &[b"layer"]);
    for token in ["a\r\nX-Injected: 1", "a\0b", "\u{7f}", &"x".repeat(1 << 20)] {
        let token = Token { token: token.into(), lifetime: Some(Duration::MAX), issued: None };
        let creds = Arc::new(Creds { token: Some(token), ..Creds::default() });
        let repository = registry().pull(&fake.reference("a/b:t"), Access::new(creds)).unwrap();
        let error = repository.resolve("t").await.unwrap_err().to_string();
        assert!(error.contains(&fake.host) && error.len() < 1000, "{error}");
        assert!(error.contains("token or login"), "{error}");
    }
    assert!(fake.state.lock().unwrap().log.iter().all(|r| r.header("x-injected").is_empty()));
}
