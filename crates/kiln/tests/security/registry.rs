//! Registries that lie (CVE-2024-3727, CVE-2024-23650): every document is refused by name, the daemon stays up.

use crate::canary::{Canary, attempt};
use crate::common::world;
use crate::server::{Answer, Request, serve};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const EMPTY_SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What the registry answers: the document at every manifest address, the other at every blob address.
#[derive(Clone, Default)]
struct Documents {
    manifest: Vec<u8>,
    kind: &'static str,
    blob: Vec<u8>,
}

fn answer(now: &Mutex<Documents>, r: &Request) -> Answer {
    let now = now.lock().unwrap().clone();
    match &r.target {
        t if t.contains("/manifests/") => Answer::ok(now.kind, now.manifest),
        t if t.contains("/blobs/") => Answer::ok("application/octet-stream", now.blob),
        _ => Answer::ok("application/json", "{}"),
    }
}

fn manifest(config: Value, layers: Value) -> Value {
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers})
}

fn described(kind: &str, digest: &str, size: Value) -> Value {
    json!({"mediaType": kind, "digest": digest, "size": size})
}

/// Manifests of which a part cannot be.
fn manifests(canary: &str) -> Vec<Value> {
    let digests = [
        format!("sha256:../../../../../../../../..{canary}/secret"),
        format!("../../../../..{canary}/secret"),
        format!("sha256:{}/../x", "0".repeat(59)),
        "sha256:".into(),
        "sha256".into(),
        String::new(),
        format!("sha256:{}", "A".repeat(64)),
        format!("sha256:{}", "a".repeat(63)),
        format!("sha256:{}\0", "a".repeat(63)),
        format!("md5:{}", "a".repeat(32)),
        format!("sha256:{}", "a".repeat(100_000)),
        "sha512:abcd".into(),
    ];
    let good = || described(CONFIG, EMPTY_SHA, json!(0));
    let mut all: Vec<Value> = digests
        .iter()
        .flat_map(|d| {
            let (config, layer) = (described(CONFIG, d, json!(2)), described(LAYER, d, json!(2)));
            [manifest(config, json!([])), manifest(good(), json!([layer]))]
        })
        .collect();
    for size in [
        json!(-1),
        json!(i64::MIN),
        json!(1e300),
        json!("2"),
        json!(null),
        json!(i64::MAX),
        json!(7),
        json!(1.5),
    ] {
        all.push(manifest(described(CONFIG, EMPTY_SHA, size.clone()), json!([])));
        all.push(manifest(good(), json!([described(LAYER, EMPTY_SHA, size)])));
    }
    all.extend([
        manifest(json!(null), json!(null)),
        manifest(json!([]), json!({})),
        json!(null),
        json!([]),
        json!("x"),
        json!({}),
    ]);
    all
}

/// Indexes of which the entries cannot be.
fn indexes(canary: &str) -> Vec<Value> {
    let entry = |digest: &str, platform: Value| json!({"mediaType": MANIFEST, "digest": digest, "size": 2, "platform": platform});
    let linux = || json!({"os": "linux", "architecture": "amd64"});
    let index = |entries: Value| json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    vec![
        index(json!([entry(&format!("sha256:../../..{canary}/secret"), linux())])),
        index(json!([entry(EMPTY_SHA, json!({"os": "../..", "architecture": "\u{0}"}))])),
        index(json!([entry(EMPTY_SHA, json!([]))])),
        index(json!([null])),
        index(json!(null)),
        index(json!([{"mediaType": INDEX, "digest": EMPTY_SHA, "size": 0, "platform": linux()}])),
    ]
}

#[test]
fn documents_that_cannot_be_are_refused_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    let now = Arc::new(Mutex::new(Documents::default()));
    let host = serve({
        let now = now.clone();
        move |r| answer(&now, r)
    });
    let all = manifests(canary.path()).into_iter().map(|m| (MANIFEST, m));
    for (n, (kind, document)) in all.chain(indexes(canary.path()).into_iter().map(|i| (INDEX, i))).enumerate()
    {
        *now.lock().unwrap() =
            Documents { manifest: document.to_string().into_bytes(), kind, blob: Vec::new() };
        let said = w.build(&format!("FROM {host}/evil/app:{n}\nRUN true\n"), &[]);
        canary.unharmed(&w, &said);
        assert_eq!(said.status, 1, "{document}");
        assert!(said.stderr.contains(&format!("{host}/evil/app:{n}")), "{document}: {}", said.stderr);
        assert!(said.stderr.len() < 20_000, "{document}: {} bytes", said.stderr.len());
    }
    let _ = w.build("FROM busybox\nRUN true\n", &[]).success();
}

/// Image configs that cannot be; the manifest is honest about them.
#[test]
fn configs_that_cannot_be_are_refused_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    for (n, (config, wanted)) in [
        (json!({"Env": ["NOEQUALS", "=x", "A=\u{0}b"], "WorkingDir": "../../.."}), None),
        (json!({"User": "-1:99999999999"}), Some(1)),
        (json!({"User": "\u{0}"}), Some(1)),
        (json!({"WorkingDir": "/proc/self/fd/7"}), None),
        (json!({"WorkingDir": format!("../../../..{}", canary.path())}), Some(0)),
        (json!({"Shell": ["/proc/self/exe"]}), Some(1)),
        (json!({"Shell": []}), Some(0)),
        (json!({"Env": null, "Labels": {"containerd.io/x": "$(touch /tmp/x)"}}), Some(0)),
        (json!({"OnBuild": ["RUN cat /proc/1/environ", "ONBUILD RUN true"]}), Some(1)),
        (json!(null), Some(0)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut image = kiln_testkit::Image::new(kiln_testkit::busybox());
        image.config.clone_from(&config);
        w.registry.add("evil/config", &n.to_string(), &image);
        let (said, out) =
            attempt(&w, &format!("FROM {}/evil/config:{n}\nRUN /bin/busybox true\n", w.registry.host()), &[]);
        canary.unread(&w, &said, &out);
        assert!(wanted.is_none_or(|s| s == said.status), "{config}: {}", said.stderr);
    }
}

/// More or other bytes than the manifest says, and documents without end.
#[test]
fn blobs_and_documents_are_bounded_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    let config = json!({"os": "linux", "architecture": std::env::consts::ARCH, "config": {}, "rootfs": {"type": "layers", "diff_ids": []}}).to_string();
    let wrong = manifest(described(CONFIG, EMPTY_SHA, json!(config.len())), json!([]));
    for (what, kind, document, blob) in [
        ("other bytes", MANIFEST, wrong.to_string().into_bytes(), config.clone().into_bytes()),
        ("more bytes", MANIFEST, wrong.to_string().into_bytes(), vec![b' '; 30_000_000]),
        ("a huge manifest", MANIFEST, vec![b' '; 60_000_000], Vec::new()),
        ("deep nesting", MANIFEST, "[".repeat(1_000_000).into_bytes(), Vec::new()),
        ("deep objects", INDEX, "{\"a\":".repeat(200_000).into_bytes(), Vec::new()),
    ] {
        let documents = Arc::new(Mutex::new(Documents { manifest: document, kind, blob }));
        let host = serve(move |r| answer(&documents, r));
        let before = crate::images::peak(&w);
        let said = w.build(&format!("FROM {host}/evil/big:1\nRUN true\n"), &[]);
        canary.unharmed(&w, &said);
        let said = said.failure();
        assert!(said.stderr.contains("/evil/big:1"), "{what}: {}", said.stderr);
        let grown = crate::images::peak(&w) - before;
        assert!(grown < 40_000, "{what}: the daemon grew by {grown} kB");
    }
}
