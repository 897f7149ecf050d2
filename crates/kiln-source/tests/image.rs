//! Images from a registry.

mod common;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use common::*;
use kiln_digest::Digest;
use kiln_oci::{Descriptor, Index, Manifest, Platform, Reference, chain_id, media_type};
use kiln_registry::Access;
use kiln_source::SourceContext;
use kiln_source::image::{ImageId, LayerStatuses, RegistryLayers};

/// A registry with fixed content.
#[derive(Clone, Default)]
struct Content(Arc<Mutex<Documents>>);

/// Type and bytes by path.
type Documents = HashMap<String, (String, Vec<u8>)>;

impl Content {
    fn put(&self, repo: &str, kind: &str, media_type: &str, data: &[u8], tag: Option<&str>) -> Descriptor {
        let d = Descriptor::of(media_type, data);
        let names = [Some(d.digest.to_string()), tag.map(str::to_string)];
        for name in names.into_iter().flatten() {
            let path = format!("/v2/{repo}/{kind}/{name}");
            self.0.lock().unwrap().insert(path, (media_type.to_string(), data.to_vec()));
        }
        d
    }

    fn image(&self, repo: &str, platform: &str, layers: &[Vec<u8>]) -> Descriptor {
        let p = Platform::parse(platform).unwrap();
        let diff_ids: Vec<_> = layers.iter().map(Digest::sha256).collect();
        let config = serde_json::json!({
            "architecture": p.architecture, "os": p.os, "variant": p.variant,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = self.put(repo, "blobs", media_type::OCI_CONFIG, config.to_string().as_bytes(), None);
        let layers = layers.iter().map(|l| self.put(repo, "blobs", media_type::OCI_LAYER, l, None)).collect();
        let manifest = Manifest::new(media_type::OCI_MANIFEST, config, layers);
        let mut d = self.put(repo, "manifests", media_type::OCI_MANIFEST, &manifest.to_vec().unwrap(), None);
        d.platform = Some(p);
        d
    }

    fn index(&self, repo: &str, tag: &str, manifests: Vec<Descriptor>) -> Descriptor {
        let index = Index::new(media_type::OCI_INDEX, manifests);
        self.put(repo, "manifests", media_type::OCI_INDEX, &index.to_vec().unwrap(), Some(tag))
    }

    async fn serve(&self) -> Server {
        let content = self.0.clone();
        Server::start(move |r| match content.lock().unwrap().get(r.target.split('?').next().unwrap()) {
            Some((kind, data)) => Answer::new(200, data.clone())
                .with("Content-Type", kind)
                .with("Docker-Content-Digest", Digest::sha256(data)),
            None => Answer::new(404, ""),
        })
        .await
    }
}

fn layer(name: &str) -> Vec<u8> {
    let mut header = vec![0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(b"00000000004");
    header[136..147].copy_from_slice(b"00000000000");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut out = header;
    out.extend(b"data");
    out.extend(vec![0; 508 + 1024]);
    out
}

#[tokio::test]
async fn lazy_until_needed_and_known_without_the_registry() {
    let content = Content::default();
    let layers = vec![layer("a"), layer("b")];
    let amd = content.image("x/y", "linux/amd64", &layers);
    let arm = content.image("x/y", "linux/arm64", &[layer("c")]);
    let root = content.index("x/y", "t", vec![arm, amd]);
    let server = content.serve().await;
    let rooms = rooms();
    let (cx, seen) = context(TestClient::default());
    let source = rooms.open(&format!("docker-image://{}/x/y:t", server.host), &[]).unwrap();
    let keys = source.keys(&cx).await.unwrap();
    assert_eq!(keys.pin, root.digest.to_string());
    let diff_ids: Vec<_> = layers.iter().map(Digest::sha256).collect();
    assert_eq!(keys.keys[1], chain_id(&diff_ids).unwrap().to_string());
    let snapshot = source.snapshot(&cx).await.unwrap().unwrap();
    assert!(snapshot.is_lazy());
    assert_eq!(snapshot.description(), format!("pulled from {}/x/y:t", server.host));
    assert_eq!(server.count("GET", "/blobs/"), 1, "only the config");
    assert!(seen.0.lock().unwrap()[0].contains(&format!("resolve {}/x/y:t", server.host)));

    let provider =
        RegistryLayers::new(rooms.registry.clone(), rooms.snapshots.content().clone(), Access::anonymous());
    let statuses = LayerStatuses::new(seen.clone());
    rooms.snapshots.ensure(&snapshot, &provider, &statuses).await.unwrap();
    let view = rooms.view(&snapshot);
    assert_eq!(view.root().read("/b", 9).unwrap(), b"data");
    let shown = format!("{:?}", seen.0.lock().unwrap());
    assert!(
        shown.contains("downloading") && shown.contains(&format!("extracting {}", diff_ids[0])),
        "{shown}"
    );

    // By digest, nothing is asked any more.
    let before = server.requests().len();
    let pinned = rooms.open(&format!("docker-image://{}/x/y:t@{}", server.host, root.digest), &[]).unwrap();
    assert_eq!(pinned.keys(&cx).await.unwrap(), keys);
    assert_eq!(pinned.snapshot(&cx).await.unwrap().unwrap(), snapshot);
    let local = rooms
        .open(&format!("docker-image://{}/x/y:t", server.host), &[("image.resolvemode", "local")])
        .unwrap();
    assert_eq!(local.keys(&cx).await.unwrap(), keys);
    assert_eq!(server.requests().len(), before);
    // By tag, one question tells that nothing changed.
    rooms.open(&format!("docker-image://{}/x/y:t", server.host), &[]).unwrap().keys(&cx).await.unwrap();
    assert_eq!(server.requests().len(), before + 1);
}

#[tokio::test]
async fn layer_limit_checksum_and_platform() {
    let content = Content::default();
    let amd = content.image("r", "linux/amd64", &[layer("a"), layer("b")]);
    let root = content.index("r", "t", vec![amd]);
    let server = content.serve().await;
    let (rooms, cx) = (rooms(), SourceContext::anonymous());
    let name = format!("docker-image://{}/r:t", server.host);
    let limited = rooms.open(&name, &[("image.layerlimit", "1")]).unwrap();
    assert_eq!(limited.keys(&cx).await.unwrap().keys[1], Digest::sha256(layer("a")).to_string());
    let too_many = rooms.open(&name, &[("image.layerlimit", "3")]).unwrap();
    assert!(too_many.keys(&cx).await.unwrap_err().to_string().contains("layer limit 3 is greater"));
    let other = Digest::sha256("other").to_string();
    let wrong = rooms.open(&name, &[("image.checksum", &other)]).unwrap();
    let error = wrong.keys(&cx).await.unwrap_err().to_string();
    assert!(
        error.contains(&format!("image digest {}", root.digest)) && error.contains("does not match"),
        "{error}"
    );
    let reference = Reference::parse_normalized(&format!("{}/r:t", server.host)).unwrap();
    let id = ImageId::new(reference, Platform::new("linux", "s390x"));
    let error = rooms.sources.images().resolve(&id, &cx).await.unwrap_err().to_string();
    assert!(error.contains("no match for platform in manifest"), "{error}");
}

#[tokio::test]
async fn indexes_without_platforms_and_with_attestations() {
    let content = Content::default();
    let mut amd = content.image("r", "linux/amd64", &[layer("a")]);
    let mut arm = content.image("r", "linux/arm64", &[layer("c")]);
    (amd.platform, arm.platform) = (None, None);
    let attestation = content
        .image("r", "unknown/unknown", &[])
        .with_annotation("vnd.docker.reference.type", "attestation-manifest");
    content.index("r", "t", vec![attestation, arm, amd.clone()]);
    let single = content.index(
        "r",
        "nested",
        vec![Descriptor { platform: None, ..content.index("r", "t2", vec![amd.clone()]) }],
    );
    let server = content.serve().await;
    let (rooms, cx) = (rooms(), SourceContext::anonymous());
    let resolve = async |tag: &str| {
        let reference = Reference::parse_normalized(&format!("{}/r:{tag}", server.host)).unwrap();
        rooms.sources.images().resolve(&ImageId::new(reference, Platform::new("linux", "amd64")), &cx).await
    };
    assert_eq!(resolve("t").await.unwrap().manifest.digest, amd.digest);
    let nested = resolve("nested").await.unwrap();
    assert_eq!((nested.root.digest, nested.manifest.digest), (single.digest, amd.digest));
}

#[tokio::test]
async fn an_image_without_layers_is_empty() {
    let content = Content::default();
    let amd = content.image("r", "linux/amd64", &[]);
    let server = content.serve().await;
    let (rooms, cx) = (rooms(), SourceContext::anonymous());
    let source = rooms.open(&format!("docker-image://{}/r@{}", server.host, amd.digest), &[]).unwrap();
    assert_eq!(source.keys(&cx).await.unwrap().keys.len(), 1);
    assert!(source.snapshot(&cx).await.unwrap().is_none());
}

#[tokio::test]
async fn mismatched_layers_are_refused() {
    let content = Content::default();
    let config = content.put(
        "r",
        "blobs",
        media_type::OCI_CONFIG,
        br#"{"rootfs":{"type":"layers","diff_ids":[]}}"#,
        None,
    );
    let l = content.put("r", "blobs", media_type::OCI_LAYER, b"x", None);
    let manifest = Manifest::new(media_type::OCI_MANIFEST, config, vec![l]);
    content.put("r", "manifests", media_type::OCI_MANIFEST, &manifest.to_vec().unwrap(), Some("t"));
    let server = content.serve().await;
    let (rooms, cx) = (rooms(), SourceContext::anonymous());
    let source = rooms.open(&format!("docker-image://{}/r:t", server.host), &[]).unwrap();
    let error = source.snapshot(&cx).await.unwrap_err().to_string();
    assert!(error.contains("mismatched image rootfs and manifest layers"), "{error}");
    let missing = rooms.open(&format!("docker-image://{}/r:none", server.host), &[]).unwrap();
    let error = missing.keys(&cx).await.unwrap_err().to_string();
    assert_eq!(error, format!("{}/r:none: not found", server.host));
}

#[tokio::test]
async fn other_schemes() {
    let rooms = rooms();
    for (id, text) in [
        ("oci-layout://a@sha256:00", "source scheme oci-layout is not supported"),
        ("what://x", "unknown scheme"),
        ("nothing", "no scheme"),
        ("https://u:canary@h:bad/", "invalid source"),
    ] {
        let error = rooms.open(id, &[]).err().unwrap().to_string();
        assert!(error.contains(text) && !error.contains("canary"), "{error}");
    }
}
