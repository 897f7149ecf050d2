//! Pulls against a registry that misbehaves in every way, at every call.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use kiln_digest::Digest;
use kiln_oci::{Descriptor, media_type};
use kiln_registry::*;
use tokio::sync::Semaphore;

async fn pull_all(fake: &Fake, registry: &Registry, access: Access) -> Result<()> {
    let repo = registry.pull(&fake.reference("a/b:t"), access)?;
    let s = store();
    let resolved = repo.resolve("t").await?;
    let index: kiln_oci::Index = serde_json::from_slice(&repo.document(&resolved.descriptor).await?).unwrap();
    let manifest: kiln_oci::Manifest =
        serde_json::from_slice(&repo.document(&index.manifests[0]).await?).unwrap();
    repo.small_blob(&manifest.config).await?;
    for layer in &manifest.layers {
        repo.fetch(layer, &s.store, &|_| {}).await?;
        assert_eq!(s.store.info(&layer.digest).unwrap(), Some(layer.size));
        assert_eq!(distribution_sources(&s.store.labels(&layer.digest).unwrap(), &fake.host), ["a/b"]);
    }
    Ok(())
}

#[tokio::test]
async fn every_fault_at_every_call_is_survived() {
    let big = data(300_000, 1);
    let faults = [
        Fault::Close,
        Fault::Answer(Answer::new(503, "busy")),
        Fault::Answer(Answer::new(429, "").with("Retry-After", 0)),
        Fault::Answer(Answer::new(500, "")),
        Fault::CutAt(1),
    ];
    for (method, part) in
        [("HEAD", "/manifests/t"), ("GET", "/manifests/sha256"), ("GET", "/blobs/"), ("GET", "/token")]
    {
        for fault in &faults {
            // Without a body there is nothing to cut.
            if method == "HEAD" && matches!(fault, Fault::CutAt(_)) {
                continue;
            }
            let fake = Fake::start().await;
            fake.set(|s| s.auth = AuthMode::Bearer { anonymous: true, get: 200, expires: 300 });
            fake.put_image("a/b", "t", &[&big, b"small layer"]);
            fake.fail(method, part, 2, fault.clone());
            let retries = Arc::new(Retries::default());
            let access = Access::anonymous().observed(retries.clone());
            let result = pull_all(&fake, &registry(), access).await;
            assert!(result.is_ok(), "{method} {part} {fault:?}: {result:?}");
            assert_eq!(retries.0.lock().unwrap().len(), 2, "{method} {part} {fault:?}");
        }
    }
}

#[tokio::test]
async fn faults_that_stay_give_one_clear_error() {
    let cases = [
        (
            Fault::Answer(Answer::new(500, "boom")),
            "unexpected status from HEAD request to http://HOST/v2/a/b/manifests/t: 500 Internal Server Error",
            4,
        ),
        (Fault::Answer(Answer::new(404, "")), "HOST/a/b:t: not found", 1),
        (
            Fault::Answer(Answer::new(403, "")),
            "pull access denied for HOST/a/b:t, repository does not exist or may require authorization: forbidden",
            1,
        ),
        (
            Fault::Answer(Answer::new(401, "")),
            "pull access denied for HOST/a/b:t, repository does not exist or may require authorization: no supported authentication scheme",
            1,
        ),
        (Fault::Close, "connection closed before message completed", 4),
    ];
    for (fault, expected, calls) in cases {
        let fake = Fake::start().await;
        fake.put_image("a/b", "t", &[b"x"]);
        fake.fail("HEAD", "manifests", 99, fault);
        let error = pull_all(&fake, &registry(), Access::anonymous()).await.unwrap_err().to_string();
        assert!(error.contains(&expected.replace("HOST", &fake.host)), "{error}");
        assert!(error.contains("a/b"), "{error}");
        assert_eq!(fake.count("HEAD", ""), calls, "{expected}");
    }
}

#[tokio::test]
async fn refused_connections_are_not_retried() {
    let r = kiln_oci::Reference::parse_normalized("127.0.0.1:1/a/b").unwrap();
    let error = registry().pull(&r, Access::anonymous()).unwrap().resolve("t").await.unwrap_err();
    assert!(!error.is_transient());
    assert!(error.to_string().contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn downloads_resume_with_closed_ranges() {
    let big = data(1_000_000, 2);
    let fake = Fake::start().await;
    let (_, manifest) = fake.put_image("a/b", "t", &[&big]);
    fake.fail("GET", "/blobs/", 3, Fault::CutAt(250_000));
    let repo = registry().pull(&fake.reference("a/b"), Access::anonymous()).unwrap();
    let s = store();
    let seen = Mutex::new(Vec::new());
    repo.fetch(&manifest.layers[0], &s.store, &|n| seen.lock().unwrap().push(n)).await.unwrap();
    let ranges: Vec<_> =
        fake.requests("GET", "/blobs/").iter().map(|r| r.header("range").to_string()).collect();
    assert_eq!(ranges, ["", "bytes=250000-999999", "bytes=500000-999999", "bytes=750000-999999"]);
    let seen = seen.into_inner().unwrap();
    assert!(seen.is_sorted() && seen.last() == Some(&1_000_000));
}

#[tokio::test]
async fn servers_without_ranges_do_too() {
    let big = data(600_000, 3);
    for refuse in [false, true] {
        let fake = Fake::start().await;
        let (_, manifest) = fake.put_image("a/b", "t", &[&big]);
        fake.set(|s| s.ignore_ranges = true);
        fake.fail("GET", "/blobs/", 1, Fault::CutAt(250_000));
        if refuse {
            fake.fail("GET", "/blobs/", 1, Fault::Answer(Answer::new(416, "")));
        }
        let repo = registry().pull(&fake.reference("a/b"), Access::anonymous()).unwrap();
        repo.fetch(&manifest.layers[0], &store().store, &|_| {}).await.unwrap();
    }
}

#[tokio::test]
async fn cancelled_downloads_go_on_later() {
    let big = data(500_000, 4);
    let fake = Fake::start().await;
    let (_, manifest) = fake.put_image("a/b", "t", &[&big]);
    fake.fail("GET", "/blobs/", 1, Fault::CutAt(200_000));
    fake.fail("GET", "/blobs/", 1, Fault::Delay(Duration::from_secs(60)));
    let repo = registry().pull(&fake.reference("a/b"), Access::anonymous()).unwrap();
    let s = store();
    tokio::select! {
        _ = repo.fetch(&manifest.layers[0], &s.store, &|_| {}) => panic!("the second request is not answered"),
        () = fake.asked_for_blobs(2) => {}
    }
    repo.fetch(&manifest.layers[0], &s.store, &|_| {}).await.unwrap();
    assert_eq!(s.store.info(&manifest.layers[0].digest).unwrap(), Some(500_000));
    let last = fake.requests("GET", "/blobs/").pop().unwrap();
    assert_eq!(last.header("range"), "bytes=200000-499999");
}

#[tokio::test]
async fn a_blob_wanted_twice_comes_once() {
    let big = data(300_000, 5);
    let fake = Fake::start().await;
    let (_, manifest) = fake.put_image("a/b", "t", &[&big]);
    fake.fail("GET", "/blobs/", 1, Fault::Delay(Duration::from_millis(100)));
    let repo = registry().pull(&fake.reference("a/b"), Access::anonymous()).unwrap();
    let s = store();
    let fetch = || repo.fetch(&manifest.layers[0], &s.store, &|_| {});
    let (a, b, c) = tokio::join!(fetch(), fetch(), fetch());
    a.and(b).and(c).unwrap();
    assert_eq!(fake.count("GET", "/blobs/"), 1);
}

#[tokio::test]
async fn transfers_per_registry_are_limited() {
    let layers: Vec<_> = (0..12).map(|i| data(2000, i)).collect();
    let fake = Fake::start().await;
    let refs: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let (_, manifest) = fake.put_image("a/b", "t", &refs);
    let permits = Arc::new(Semaphore::new(0));
    fake.fail("GET", "/blobs/", 99, Fault::Wait(permits.clone()));
    let repo = registry().pull(&fake.reference("a/b"), Access::anonymous()).unwrap();
    let s = store();
    let fetch =
        futures::future::try_join_all(manifest.layers.iter().map(|l| repo.fetch(l, &s.store, &|_| {})));
    let answer = async {
        fake.asked_for_blobs(4).await;
        permits.add_permits(12);
    };
    tokio::join!(fetch, answer).0.unwrap();
    assert_eq!(fake.most.load(std::sync::atomic::Ordering::SeqCst), 4);
}

#[tokio::test]
async fn wrong_bytes_never_reach_the_store() {
    let good = data(1000, 6);
    let s = store();
    let layer = Descriptor::of(media_type::OCI_LAYER_GZIP, &good);
    for bad in [data(1000, 7), data(999, 6), data(1001, 6), Vec::new()] {
        for chunked in [false, true] {
            let fake = Fake::start().await;
            let mut answer = Answer::new(200, bad.clone());
            if chunked {
                // Without a length the end of the connection is the end of the body.
                answer = Answer::new(200, bad.clone()).with("Content-Length", "").with("X", "y");
                answer.headers[0] = ("Transfer-Encoding".into(), "chunked".into());
                let mut body = format!("{:x}\r\n", bad.len()).into_bytes();
                body.extend(&bad);
                body.extend(if bad.is_empty() { &b"\r\n"[..] } else { b"\r\n0\r\n\r\n" });
                answer.body = body;
                answer.headers.push(("Content-Length".into(), String::new()));
                answer.headers.retain(|(k, _)| k != "Content-Length");
                answer.headers.push(("Trailer-Free".into(), "1".into()));
            }
            fake.fail("GET", "/blobs/", 99, Fault::Answer(answer));
            let repo = registry().pull(&fake.reference("a/b"), Access::anonymous()).unwrap();
            let error = repo.fetch(&layer, &s.store, &|_| {}).await.unwrap_err();
            assert_eq!(s.store.info(&layer.digest).unwrap(), None, "{error}");
            assert!(error.to_string().contains(&fake.host), "{error}");
        }
    }
    // What was left by those tries does not spoil a good one.
    let fake = Fake::start().await;
    fake.put_blob("a/b", &good);
    let repo = registry().pull(&fake.reference("a/b"), Access::anonymous()).unwrap();
    repo.fetch(&layer, &s.store, &|_| {}).await.unwrap();
}

#[tokio::test]
async fn hostile_documents_are_refused() {
    let pinned = Digest::sha256("x").to_string();
    let long = vec![b' '; MANIFEST_LIMIT as usize + 10];
    let entry = r#"{"mediaType":"m","digest":"sha256:../../../etc/passwd","size":1}"#;
    let cases: Vec<(&str, Answer, &str)> = vec![
        (&pinned, Answer::new(200, "{}"), "has digest"),
        ("t", Answer::new(200, long), "too large"),
        ("t", Answer::new(200, "<html>"), "malformed manifest"),
        ("t", Answer::new(200, "{}"), "unsupported manifest media type"),
        ("t", Answer::new(200, r#"{"schemaVersion":1}"#), "schema 1"),
        ("t", Answer::new(200, "{}").with("Docker-Content-Digest", "sha256:../x"), "malformed digest"),
        (
            "t",
            Answer::new(200, "{}").with("Docker-Content-Digest", format!("random:{}", "0".repeat(64))),
            "malformed digest",
        ),
        ("t", Answer::new(200, format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#)), "invalid digest"),
        ("t", Answer::new(200, r#"{"schemaVersion":2,"config":{},"manifests":[]}"#), "ambiguous"),
    ];
    for (object, answer, expected) in cases {
        let fake = Fake::start().await;
        fake.fail("HEAD", "", 1, Fault::Answer(Answer::new(405, "")));
        fake.fail("GET", "/manifests/", 1, Fault::Answer(answer));
        let repo = registry().pull(&fake.reference("a/b"), Access::anonymous()).unwrap();
        let error = repo.resolve(object).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(error.len() < 1000, "{error}");
    }
    // A HEAD that promises too much is not followed.
    let fake = Fake::start().await;
    let head = Answer::new(200, "").with("Docker-Content-Digest", &pinned).with("Content-Length", u64::MAX);
    fake.fail("HEAD", "", 1, Fault::Answer(head));
    let repo = registry().pull(&fake.reference("a/b"), Access::anonymous()).unwrap();
    assert!(repo.resolve("t").await.unwrap_err().to_string().contains("too large"));
}

#[tokio::test]
async fn mirrors_are_tried_in_order() {
    let (dead, empty, origin) = ("127.0.0.1:1", Fake::start().await, Fake::start().await);
    let bad = Fake::start().await;
    let (root, manifest) = origin.put_image("a/b", "t", &[b"layer"]);
    // A mirror with other bytes under the right names.
    bad.fail("GET", "", 99, Fault::Answer(Answer::new(200, "wrong")));
    bad.fail("HEAD", "", 99, Fault::Answer(Answer::new(500, "")));
    let mut config = config();
    let mirrors = vec![dead.to_string(), format!("{}/proxy/hub", empty.host), bad.host.clone()];
    config.hosts.insert(origin.host.clone(), HostConfig { mirrors, ..HostConfig::default() });
    let repo = Registry::new(config).unwrap().pull(&origin.reference("a/b:t"), Access::anonymous()).unwrap();
    assert_eq!(repo.resolve("t").await.unwrap().descriptor, root);
    repo.document(&root).await.unwrap();
    repo.fetch(&manifest.layers[0], &store().store, &|_| {}).await.unwrap();
    let asked = empty.requests("HEAD", "");
    assert_eq!(asked[0].path, "/v2/proxy/hub/a/b/manifests/t");
    assert_eq!(asked[0].query["ns"], origin.host);
    assert!(origin.requests("HEAD", "")[0].query.is_empty());
}

#[tokio::test]
async fn tokens_by_every_flow() {
    let login = |id: &str, login| Arc::new(Creds { id: id.into(), login, ..Creds::default() });
    let refresh = login("r", Some(Login::RefreshToken("r".into())));
    for (get, creds, posts) in [
        (200, Creds::password("u", "p"), 0),
        (404, Creds::password("u", "p"), 1),
        (405, Creds::password("u", "p"), 1),
        (401, Creds::password("u", "p"), 1),
        (200, refresh, 1),
    ] {
        let fake = Fake::start().await;
        fake.set(|s| s.auth = AuthMode::Bearer { anonymous: false, get, expires: 300 });
        fake.put_image("a/b", "t", &[b"layer"]);
        pull_all(&fake, &registry(), Access::new(creds.clone())).await.unwrap();
        assert_eq!(fake.count("POST", "/token"), posts);
        assert_eq!(creds.asked.lock().unwrap()[0], fake.host);
        let tokens = fake.state.lock().unwrap().tokens.clone();
        assert_eq!(tokens.len(), 1, "one token serves all");
        assert_eq!(tokens[0].1, "repository:a/b:pull");
    }
}

#[tokio::test]
async fn tokens_that_others_fetch() {
    let fake = Fake::start().await;
    fake.set(|s| {
        s.auth = AuthMode::Bearer { anonymous: false, get: 500, expires: 300 };
        s.tokens.push(("given".into(), "repository:a/b:pull".into()));
    });
    fake.put_image("a/b", "t", &[b"layer"]);
    let token = Some(Token { token: "given".into(), lifetime: None, issued: None });
    let creds = Arc::new(Creds { token, ..Creds::default() });
    pull_all(&fake, &registry(), Access::new(creds.clone())).await.unwrap();
    assert!(creds.asked.lock().unwrap().is_empty(), "the secret is not asked for");
    assert_eq!(fake.count("GET", "/token"), 0);
}

#[tokio::test]
async fn tokens_are_not_shared_between_identities_and_expire() {
    let fake = Fake::start().await;
    fake.set(|s| s.auth = AuthMode::Bearer { anonymous: false, get: 200, expires: 300 });
    fake.put_image("a/b", "t", &[b"layer"]);
    let registry = registry();
    pull_all(&fake, &registry, Access::new(Creds::password("u", "p"))).await.unwrap();
    pull_all(&fake, &registry, Access::new(Creds::password("u", "p"))).await.unwrap();
    assert_eq!(fake.count("GET", "/token"), 1);
    let error = pull_all(&fake, &registry, Access::anonymous()).await.unwrap_err().to_string();
    assert!(error.contains("failed to fetch anonymous token"), "{error}");
    assert!(error.contains("incorrect username or password"), "{error}");
    // A token that the registry no longer takes is replaced.
    fake.set(|s| s.tokens.clear());
    pull_all(&fake, &registry, Access::new(Creds::password("u", "p"))).await.unwrap();
}

#[tokio::test]
async fn wrong_secrets_are_not_repeated_and_not_shown() {
    for get in [200, 401] {
        let fake = Fake::start().await;
        fake.set(|s| s.auth = AuthMode::Bearer { anonymous: false, get, expires: 300 });
        fake.put_image("a/b", "t", &[b"layer"]);
        let error =
            pull_all(&fake, &registry(), Access::new(Creds::password("u", "canary"))).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("failed to fetch oauth token") && !shown.contains("canary"), "{shown}");
        assert!(shown.contains("401 Unauthorized"), "{shown}");
    }
}

#[tokio::test]
async fn basic_auth() {
    let fake = Fake::start().await;
    fake.set(|s| s.auth = AuthMode::Basic);
    fake.put_image("a/b", "t", &[b"layer"]);
    let creds = Creds::password("u", "p");
    pull_all(&fake, &registry(), Access::new(creds.clone())).await.unwrap();
    assert_eq!(creds.asked.lock().unwrap().len(), 1);
    let error = pull_all(&fake, &registry(), Access::anonymous()).await.unwrap_err().to_string();
    assert!(error.ends_with("no basic auth credentials"), "{error}");
    let error = pull_all(&fake, &registry(), Access::new(Creds::password("u", "canary")))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("authorization failed") && !error.contains("canary"), "{error}");
}

#[tokio::test]
async fn redirects_do_not_carry_tokens_away() {
    let (fake, cdn) = (Fake::start().await, Fake::start().await);
    fake.set(|s| s.auth = AuthMode::Bearer { anonymous: true, get: 200, expires: 300 });
    let (_, manifest) = fake.put_image("a/b", "t", &[b"layer"]);
    cdn.put_blob("cdn", b"layer");
    let there = format!(
        "http://localhost:{}/v2/cdn/blobs/{}?sig=canary",
        cdn.host.split(':').nth(1).unwrap(),
        manifest.layers[0].digest
    );
    let repo = registry().pull(&fake.reference("a/b"), Access::anonymous()).unwrap();
    repo.resolve("t").await.unwrap();
    fake.fail("GET", "/blobs/", 9, Fault::Answer(Answer::new(307, "").with("Location", &there)));
    let s = store();
    cdn.fail("GET", "/blobs/", 9, Fault::Answer(Answer::new(403, "expired")));
    let error = repo.fetch(&manifest.layers[0], &s.store, &|_| {}).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    cdn.set(|s| s.log.clear());
    let cdn2 = Fake::start().await;
    cdn2.put_blob("cdn", b"layer");
    let there = there.replace(cdn.host.split(':').nth(1).unwrap(), cdn2.host.split(':').nth(1).unwrap());
    let fake2 = Fake::start().await;
    fake2.fail("GET", "/blobs/", 1, Fault::Answer(Answer::new(307, "").with("Location", &there)));
    fake2.set(|s| s.auth = AuthMode::Bearer { anonymous: true, get: 200, expires: 300 });
    fake2.put_image("a/b", "t", &[b"layer"]);
    let repo = registry().pull(&fake2.reference("a/b"), Access::anonymous()).unwrap();
    repo.resolve("t").await.unwrap();
    repo.fetch(&manifest.layers[0], &s.store, &|_| {}).await.unwrap();
    assert_eq!(fake2.requests("GET", "/blobs/")[0].header("authorization"), "Bearer token-0");
    assert_eq!(cdn2.requests("GET", "/blobs/")[0].header("authorization"), "");
}

#[tokio::test]
async fn insecure_falls_back_to_http() {
    let fake = Fake::start().await;
    fake.put_image("a/b", "t", &[b"layer"]);
    let mut config = config();
    config.hosts.insert(
        fake.host.clone(),
        HostConfig { insecure: Some(true), http: Some(true), ..HostConfig::default() },
    );
    pull_all(&fake, &Registry::new(config).unwrap(), Access::anonymous()).await.unwrap();
    let mut strict = common::config();
    strict.hosts.insert(fake.host.clone(), HostConfig { http: Some(false), ..HostConfig::default() });
    assert!(pull_all(&fake, &Registry::new(strict).unwrap(), Access::anonymous()).await.is_err());
}
