//! Pushes against a registry that misbehaves, and against a real one.
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod common;

use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use common::*;
use kiln_content::ContentStore;
use kiln_oci::{Descriptor, Index, Reference, annotation, media_type};
use kiln_registry::*;

async fn push_all(
    host: &str,
    registry: &Registry,
    access: Access,
    store: &ContentStore,
    layers: &[&[u8]],
) -> Result<Descriptor> {
    let content = StoreContent(store.clone());
    let root = image_in(store, layers);
    let plan = PushPlan::load(&root, &content).await?;
    let reference = Reference::parse_normalized(&format!("{host}/a/b:t")).unwrap();
    let repo = registry.push(&reference, access, false)?;
    repo.push(&plan, &PushTarget::of(&reference, false)?, &content, &()).await?;
    Ok(root)
}

#[tokio::test]
async fn plans_put_leaves_first_and_leave_foreign_layers_out() {
    let s = store();
    let content = StoreContent(s.store.clone());
    let image = image_in(&s.store, &[b"one", b"two", b"one"]);
    let foreign = Descriptor::of(media_type::OCI_FOREIGN_GZIP, b"elsewhere");
    let inner: Index = serde_json::from_slice(&s.store.read(&image.digest, 9999).unwrap()).unwrap();
    // The same manifest below the root and below an inner index: met early, due late.
    let outer = Index::new(media_type::OCI_INDEX, vec![image.clone(), inner.manifests[0].clone(), foreign]);
    let bytes = outer.to_vec().unwrap();
    s.store.put(&bytes).unwrap();
    let root = Descriptor::of(media_type::OCI_INDEX, &bytes);
    let plan = PushPlan::load(&root, &content).await.unwrap();
    let order: Vec<_> = plan.documents.iter().map(|(d, _)| d.digest).collect();
    assert_eq!(order, [inner.manifests[0].digest, image.digest, root.digest]);
    assert_eq!(plan.blobs.len(), 3);
}

#[tokio::test]
async fn every_fault_at_every_call_is_survived() {
    let big = data(400_000, 1);
    let calls = [
        ("HEAD", "/blobs/"),
        ("POST", "/blobs/uploads/"),
        ("PUT", "/blobs/uploads/"),
        ("HEAD", "/manifests/"),
        ("PUT", "/manifests/"),
        ("GET", "/token"),
    ];
    for (method, part) in calls {
        for fault in [Fault::Close, Fault::Answer(Answer::new(503, "")), Fault::Answer(Answer::new(429, ""))]
        {
            let fake = Fake::start().await;
            fake.set(|s| s.auth = AuthMode::Bearer { anonymous: true, get: 200, expires: 300 });
            fake.fail(method, part, 2, fault.clone());
            let s = store();
            let result =
                push_all(&fake.host, &registry(), Access::anonymous(), &s.store, &[&big, b"x"]).await;
            let root = result.unwrap_or_else(|e| panic!("{method} {part} {fault:?}: {e}"));
            let state = fake.state.lock().unwrap();
            let (kind, bytes) = &state.manifests[&("a/b".to_string(), "t".to_string())];
            assert_eq!((kind.as_str(), bytes.len() as u64), (media_type::OCI_INDEX, root.size));
            assert_eq!(state.blobs.len(), 3);
        }
    }
}

#[tokio::test]
async fn faults_that_stay_give_one_clear_error() {
    let text = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"we do not like it"}]}"#;
    let cases = [
        (
            "PUT",
            "/manifests/",
            Fault::Answer(Answer::new(400, text)),
            "400 Bad Request: manifest invalid: we do not like it",
        ),
        (
            "POST",
            "/blobs/",
            Fault::Answer(Answer::new(404, r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#)),
            "404 Not Found: name unknown",
        ),
        ("PUT", "/blobs/", Fault::Answer(Answer::new(500, "disk")), "500 Internal Server Error: disk"),
        ("HEAD", "/blobs/", Fault::Answer(Answer::new(401, "")), "push access denied for"),
        (
            "POST",
            "/blobs/",
            Fault::Answer(Answer::new(403, r#"{"errors":[{"code":"DENIED","message":"read only"}]}"#)),
            "push access denied for",
        ),
        ("PUT", "/blobs/", Fault::Close, "PUT http://"),
    ];
    for (method, part, fault, expected) in cases {
        let fake = Fake::start().await;
        fake.fail(method, part, 99, fault);
        let s = store();
        let result = push_all(&fake.host, &registry(), Access::anonymous(), &s.store, &[b"layer"]).await;
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(error.contains(&format!("{}/a/b:t", fake.host)), "{error}");
        assert!(!error.contains("state=x"), "{error}");
    }
}

#[tokio::test]
async fn existing_blobs_and_manifests_are_not_sent_again() {
    let fake = Fake::start().await;
    let (registry, s) = (registry(), store());
    push_all(&fake.host, &registry, Access::anonymous(), &s.store, &[b"layer"]).await.unwrap();
    let puts = fake.count("PUT", "");
    push_all(&fake.host, &registry, Access::anonymous(), &s.store, &[b"layer"]).await.unwrap();
    assert_eq!(fake.count("PUT", ""), puts);
}

/// Content whose layers nobody has here: opening one fails the test.
struct Lazy(StoreContent, Vec<String>);

#[async_trait]
impl PushContent for Lazy {
    async fn document(&self, d: &Descriptor) -> std::io::Result<Vec<u8>> {
        self.0.document(d).await
    }

    async fn open(&self, d: &Descriptor) -> std::io::Result<ByteStream> {
        match d.media_type.as_str() {
            media_type::OCI_LAYER_GZIP => Err(std::io::Error::other("the layer is not here")),
            _ => self.0.open(d).await,
        }
    }

    async fn sources(&self, d: &Descriptor, _: &str) -> Vec<String> {
        if d.media_type == media_type::OCI_LAYER_GZIP { self.1.clone() } else { Vec::new() }
    }

    async fn pushed(&self, _: &Descriptor, _: &str, _: &str) {}
}

#[tokio::test]
async fn lazy_layers_are_mounted_and_never_opened() {
    let fake = Fake::start().await;
    fake.set(|s| s.auth = AuthMode::Bearer { anonymous: true, get: 200, expires: 300 });
    fake.put_blob("base/image", b"layer");
    let s = store();
    let root = image_in(&s.store, &[b"layer"]);
    let content = Lazy(StoreContent(s.store.clone()), vec!["base/image".into()]);
    let plan = PushPlan::load(&root, &content).await.unwrap();
    let repo = registry().push(&fake.reference("a/b"), Access::anonymous(), false).unwrap();
    repo.push(&plan, &PushTarget::Digest, &content, &()).await.unwrap();
    let mount = fake.requests("POST", "uploads").into_iter().find(|r| r.query.contains_key("mount")).unwrap();
    assert_eq!(mount.query["from"], "base/image");
    let scopes = &fake.state.lock().unwrap().tokens.iter().map(|t| t.1.clone()).collect::<Vec<_>>();
    assert!(
        scopes.contains(&"repository:a/b:pull,push repository:base/image:pull".to_string()),
        "{scopes:?}"
    );
}

/// Content that is downloaded from the same registry when it is opened.
struct Fetching(StoreContent, Repository);

#[async_trait]
impl PushContent for Fetching {
    async fn document(&self, d: &Descriptor) -> std::io::Result<Vec<u8>> {
        self.0.document(d).await
    }

    async fn open(&self, d: &Descriptor) -> std::io::Result<ByteStream> {
        self.1.fetch(d, &self.0.0, &|_| {}).await.map_err(std::io::Error::other)?;
        self.0.open(d).await
    }

    async fn sources(&self, _: &Descriptor, _: &str) -> Vec<String> {
        Vec::new()
    }

    async fn pushed(&self, _: &Descriptor, _: &str, _: &str) {}
}

#[tokio::test]
async fn pushing_what_is_fetched_from_the_same_registry_does_not_block_itself() {
    let fake = Fake::start().await;
    let layers: Vec<_> = (0..12).map(|i| data(3000, i)).collect();
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let (all, some, registry) = (store(), store(), registry());
    let root = image_in(&all.store, &layers);
    let plan = PushPlan::load(&root, &StoreContent(all.store.clone())).await.unwrap();
    for blob in &plan.blobs {
        fake.put_blob("base", &all.store.read(&blob.digest, 1 << 20).unwrap());
    }
    let from = registry.pull(&fake.reference("base"), Access::anonymous()).unwrap();
    let content = Fetching(StoreContent(some.store.clone()), from);
    let repo = registry.push(&fake.reference("a/b"), Access::anonymous(), false).unwrap();
    let push = repo.push_blobs(&plan, &content, &());
    tokio::time::timeout(PATIENCE, push).await.expect("blocked").unwrap();
    assert_eq!(fake.count("PUT", "/blobs/"), plan.blobs.len());
}

#[tokio::test]
async fn data_that_cannot_be_read_is_named() {
    let fake = Fake::start().await;
    let s = store();
    let root = image_in(&s.store, &[b"layer"]);
    let content = Lazy(StoreContent(s.store.clone()), vec![]);
    let plan = PushPlan::load(&root, &content).await.unwrap();
    let repo = registry().push(&fake.reference("a/b"), Access::anonymous(), false).unwrap();
    let error = repo.push(&plan, &PushTarget::Digest, &content, &()).await.unwrap_err().to_string();
    assert!(error.contains("the layer is not here"), "{error}");
    let layer = &plan.blobs.iter().find(|b| b.media_type == media_type::OCI_LAYER_GZIP).unwrap().digest;
    assert_eq!(fake.count("HEAD", &layer.to_string()), 1, "not retried");
}

#[tokio::test]
async fn refused_mounts_become_uploads() {
    for status in [202, 401, 403, 404, 405] {
        let fake = Fake::start().await;
        fake.set(|s| s.mount = status);
        let s = store();
        s.store.put(b"layer").unwrap();
        let digest = kiln_digest::Digest::sha256("layer");
        let name = format!("{}{}", annotation::DISTRIBUTION_SOURCE, fake.host);
        s.store.set_label(&digest, &name, Some("secret/repo")).unwrap();
        push_all(&fake.host, &registry(), Access::anonymous(), &s.store, &[b"layer"]).await.unwrap();
        assert!(
            fake.state.lock().unwrap().blobs.contains_key(&("a/b".into(), digest.to_string())),
            "{status}"
        );
        let labels = s.store.labels(&digest).unwrap();
        assert_eq!(distribution_sources(&labels, &fake.host), ["a/b", "secret/repo"]);
    }
}

#[tokio::test]
async fn uploads_to_another_host_carry_no_credentials() {
    let (fake, bucket) = (Fake::start().await, Fake::start().await);
    fake.set(|s| {
        s.auth = AuthMode::Basic;
        s.upload_to = Some(format!("http://{}/v2/x/blobs/uploads/id?sig=canary", bucket.host));
    });
    let s = store();
    push_all(&fake.host, &registry(), Access::new(Creds::password("u", "p")), &s.store, &[b"layer"])
        .await
        .unwrap();
    let put = &bucket.requests("PUT", "uploads")[0];
    assert_eq!((put.header("authorization"), put.query["sig"].as_str()), ("", "canary"));
    assert!(put.query.contains_key("digest"));
}

#[derive(Default)]
struct Seen(Mutex<Vec<(u64, u64)>>);

impl PushObserver for Seen {
    fn blob(&self, d: &Descriptor, current: u64) {
        self.0.lock().unwrap().push((current, d.size));
    }
}

#[tokio::test]
async fn uploads_that_stand_still_end() {
    let fake = Fake::start().await;
    fake.fail("PUT", "/blobs/", 99, Fault::Delay(Duration::from_secs(60)));
    let mut config = config();
    config.client.timeouts.upload = Duration::from_millis(300);
    config.retry.attempts = 1;
    let s = store();
    let registry = Registry::new(config).unwrap();
    let error =
        push_all(&fake.host, &registry, Access::anonymous(), &s.store, &[b"layer"]).await.unwrap_err();
    assert!(error.to_string().contains("no progress for"), "{error}");
}

/// A registry of the distribution project, ended when dropped.
struct Real {
    host: String,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Real {
    async fn start() -> Option<Self> {
        const BINARY: &str = "/usr/bin/docker-registry";
        if !std::path::Path::new(BINARY).exists() {
            eprintln!("SKIPPED: {BINARY} is not installed");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (config, log) = (dir.path().join("config.yml"), dir.path().join("log"));
        // It takes a port itself, which nobody can take in between, and tells which.
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n",
            dir.path().join("data").display()
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new(BINARY)
            .args(["serve".as_ref(), config.as_os_str()])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut real = Self { host: String::new(), child, _dir: dir };
        let told = async {
            loop {
                let said = std::fs::read_to_string(&log).unwrap();
                let rest = said.split_once("listening on ").map_or("", |(_, rest)| rest);
                if let Some((host, _)) = rest.split_once('"') {
                    return host.to_owned();
                }
                assert!(real.child.try_wait().unwrap().is_none(), "the registry ended: {said}");
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        };
        real.host = tokio::time::timeout(PATIENCE, told).await.expect("the registry starts");
        Some(real)
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn real_registry_round_trip() {
    let Some(real) = Real::start().await else { return };
    let big = data(3_000_000, 9);
    let (from, to, registry) = (store(), store(), registry());
    let seen = Seen::default();
    let content = StoreContent(from.store.clone());
    let root = image_in(&from.store, &[&big, b"small"]);
    let plan = PushPlan::load(&root, &content).await.unwrap();
    let reference = Reference::parse_normalized(&format!("{}/team/app:v1", real.host)).unwrap();
    let repo = registry.push(&reference, Access::anonymous(), false).unwrap();
    repo.push(&plan, &PushTarget::Tag("v1".into()), &content, &seen).await.unwrap();
    assert!(seen.0.lock().unwrap().contains(&(3_000_000, 3_000_000)));

    let repo = registry.pull(&reference, Access::anonymous()).unwrap();
    let resolved = repo.resolve("v1").await.unwrap();
    assert_eq!((resolved.descriptor.digest, resolved.descriptor.size), (root.digest, root.size));
    assert_eq!(resolved.descriptor.media_type, media_type::OCI_INDEX);
    for blob in &plan.blobs {
        repo.fetch(blob, &to.store, &|_| {}).await.unwrap();
    }
    assert!(repo.resolve("v2").await.unwrap_err().is_not_found());

    // The second repository mounts from the first.
    let other = Reference::parse_normalized(&format!("{}/team/other", real.host)).unwrap();
    let repo = registry.push(&other, Access::anonymous(), false).unwrap();
    let lazy = Lazy(StoreContent(from.store.clone()), vec!["team/app".into()]);
    repo.push(&plan, &PushTarget::Digest, &lazy, &()).await.unwrap();
    let repo = registry.pull(&other, Access::anonymous()).unwrap();
    assert_eq!(repo.document(&root).await.unwrap().len() as u64, root.size);
}

#[tokio::test]
async fn real_registry_resumes() {
    let Some(real) = Real::start().await else { return };
    let big = data(2_000_000, 8);
    let (s, registry) = (store(), registry());
    push_all(&real.host, &registry, Access::anonymous(), &s.store, &[&big]).await.unwrap();
    let to = store();
    let layer = Descriptor::of(media_type::OCI_LAYER_GZIP, &big);
    let key = format!("{}/{}", real.host, layer.digest);
    let mut partial = to.store.writer(Some(layer.digest), Some(&key)).unwrap();
    partial.write(&big[..700_000]).unwrap();
    drop(partial);
    let reference = Reference::parse_normalized(&format!("{}/a/b", real.host)).unwrap();
    let repo = registry.pull(&reference, Access::anonymous()).unwrap();
    let first = Mutex::new(None);
    let note = |n| {
        first.lock().unwrap().get_or_insert(n);
    };
    repo.fetch(&layer, &to.store, &note).await.unwrap();
    assert!(first.into_inner().unwrap() > Some(700_000));
}
