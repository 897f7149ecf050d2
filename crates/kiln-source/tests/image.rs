//! Images from a registry.

mod common;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use common::*;
use kiln_digest::Digest;
use kiln_oci::{Descriptor, Index, Manifest, Platform, Reference, chain_id, media_type};
use kiln_registry::Access;
use kiln_source::image::{ImageId, LayerStatuses, RegistryLayers};
use kiln_source::{ByteReader, ByteStream, Client, ClientError, Duplex, Layout, NoClient, SourceContext};

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
        ("oci-layout://a@sha256:00", "invalid reference format"),
        ("oci-layout+blob://a", "named by its digest"),
        ("what://x", "unknown scheme"),
        ("nothing", "no scheme"),
        ("https://u:canary@h:bad/", "invalid source"),
    ] {
        let error = rooms.open(id, &[]).err().unwrap().to_string();
        assert!(error.contains(text) && !error.contains("canary"), "{error}");
    }
}

/// A client that lends an image with these layers; the image's root.
fn lent(layers: &[Vec<u8>]) -> (TestClient, Descriptor) {
    let content = Content::default();
    let amd = content.image("r", "linux/amd64", layers);
    let root = content.index("r", "t", vec![amd]);
    let blobs = content.0.lock().unwrap().values().map(|(_, b)| (Digest::sha256(b), b.clone())).collect();
    (TestClient { blobs, ..TestClient::default() }, root)
}

#[tokio::test]
async fn a_layout_of_the_client() {
    let layers = vec![layer("a"), layer("b")];
    let (client, root) = lent(&layers);
    let (rooms, (cx, _)) = (rooms(), context(client));
    let name = format!("oci-layout://not/real@{}", root.digest);
    let source = rooms.open(&name, &[("oci.store", "s"), ("oci.session", "x")]).unwrap();
    let keys = source.keys(&cx).await.unwrap();
    assert_eq!(keys.pin, root.digest.to_string());
    let snapshot = source.snapshot(&cx).await.unwrap().unwrap();
    // The client may go now.
    let (provider, seen) = (rooms.registry.clone(), Arc::new(Seen::default()));
    let provider = RegistryLayers::new(provider, rooms.snapshots.content().clone(), Access::anonymous());
    rooms.snapshots.ensure(&snapshot, &provider, &LayerStatuses::new(seen)).await.unwrap();
    assert_eq!(rooms.view(&snapshot).root().read("/b", 9).unwrap(), b"data");
    // By keys it is the same image as in a registry.
    let id = ImageId::parse_layout(
        &format!("not/real@{}", root.digest),
        &[("oci.store".to_string(), "s".to_string())].into(),
        &Platform::new("linux", "amd64"),
    )
    .unwrap();
    assert_eq!(rooms.sources.images().resolve(&id, &cx).await.unwrap().root.digest, root.digest);
    let other =
        rooms.open(&format!("oci-layout://x@{}", Digest::sha256("no")), &[("oci.store", "s")]).unwrap();
    assert!(other.keys(&cx).await.unwrap_err().to_string().contains("unknown blob"));
}

#[tokio::test]
async fn a_client_that_lies_about_blobs() {
    let layers = vec![layer("a")];
    let (honest, root) = lent(&layers);
    for kind in ["manifest", "layer", "long layer", "short layer"] {
        let mut client = TestClient { blobs: honest.blobs.clone(), ..TestClient::default() };
        let victim = if kind == "manifest" { root.digest } else { Digest::sha256(&layers[0]) };
        let blob = client.blobs.get_mut(&victim).unwrap();
        match kind {
            "long layer" => blob.extend([0; 512]),
            "short layer" => blob.truncate(512),
            _ => blob[0] ^= 1,
        }
        let (rooms, (cx, _)) = (rooms(), context(client));
        let source = rooms.open(&format!("oci-layout://x@{}", root.digest), &[("oci.store", "s")]).unwrap();
        assert!(source.snapshot(&cx).await.is_err(), "{kind}");
        assert!(rooms.snapshots.content().info(&victim).unwrap().is_none(), "{kind}");
    }
}

#[tokio::test]
async fn single_blobs_become_files() {
    let content = Content::default();
    let blob = content.put("x/y", "blobs", "any/thing", b"payload", None);
    let server = content.serve().await;
    let client = TestClient { blobs: [(blob.digest, b"payload".to_vec())].into(), ..TestClient::default() };
    let (rooms, (cx, _)) = (rooms(), context(client));
    let file = [("http.filename", "f"), ("http.perm", "0640"), ("oci.store", "s")];
    for name in [
        format!("docker-image+blob://{}/x/y@{}", server.host, blob.digest),
        format!("oci-layout+blob://not/real@{}", blob.digest),
    ] {
        let source = rooms.open(&name, &file).unwrap();
        assert_eq!(source.keys(&cx).await.unwrap().pin, blob.digest.to_string());
        let snapshot = source.snapshot(&cx).await.unwrap().unwrap();
        let view = rooms.view(&snapshot);
        assert_eq!(view.root().read("/f", 99).unwrap(), b"payload", "{name}");
        let meta = view.root().metadata("/f", false).unwrap();
        assert_eq!((meta.mode, meta.mtime), (0o640, kiln_fs::FileTime::EPOCH));
    }
    let wrong = TestClient { blobs: [(blob.digest, b"other".to_vec())].into(), ..TestClient::default() };
    let source = rooms.open(&format!("oci-layout+blob://not/real@{}", blob.digest), &file).unwrap();
    let error = source.snapshot(&context(wrong).0).await.unwrap_err().to_string();
    assert!(error.contains("digest mismatch"), "{error}");
}

/// A client that never ends what it said would be three bytes.
struct Endless;

#[async_trait::async_trait]
impl Client for Endless {
    async fn secret(&self, _: &str) -> Result<Option<Vec<u8>>, ClientError> {
        Ok(None)
    }
    async fn ssh_agent(&self, id: &str) -> Result<Box<dyn Duplex>, ClientError> {
        NoClient.ssh_agent(id).await
    }
    async fn check_ssh_agent(&self, id: &str) -> Result<(), ClientError> {
        NoClient.check_ssh_agent(id).await
    }
    async fn upload(&self, host: &str, path: &str) -> Result<ByteReader, ClientError> {
        NoClient.upload(host, path).await
    }
    async fn layout_blob(&self, _: &Layout, _: &Digest) -> Result<ByteStream, ClientError> {
        let pieces = futures::stream::repeat_with(|| Ok(bytes::Bytes::from_static(&[0; 1 << 16])));
        Ok(ByteStream { size: Some(3), data: Box::pin(pieces) })
    }
}

#[tokio::test]
async fn a_blob_of_a_client_ends_at_its_size() {
    let (rooms, digest) = (rooms(), Digest::sha256("x"));
    let cx = SourceContext { client: Arc::new(Endless), ..SourceContext::anonymous() };
    for (scheme, wanted) in [("oci-layout+blob", "3 bytes"), ("oci-layout", "larger than")] {
        let name = format!("{scheme}://not/real@{digest}");
        let source = rooms.open(&name, &[("oci.store", "s")]).unwrap();
        let work = tokio::time::timeout(std::time::Duration::from_secs(20), source.snapshot(&cx)).await;
        let error = work.expect("it ends").unwrap_err().to_string();
        assert!(error.contains(wanted) && error.contains(&digest.to_string()), "{error}");
        assert!(rooms.snapshots.content().info(&digest).unwrap().is_none());
    }
}

/// What is in the store is given only to those who name a repository that has it.
#[tokio::test]
async fn a_digest_alone_proves_nothing() {
    let content = Content::default();
    let amd = content.image("private/a", "linux/amd64", &[layer("a")]);
    let server = content.serve().await;
    let (rooms, cx) = (rooms(), SourceContext::anonymous());
    let open = |repo: &str| {
        rooms.open(&format!("docker-image://{}/{repo}@{}", server.host, amd.digest), &[]).unwrap()
    };
    open("private/a").keys(&cx).await.unwrap();
    let error = open("public/b").keys(&cx).await.unwrap_err().to_string();
    assert!(error.contains("not found"), "{error}");
    let asked = server.requests().len();
    open("private/a").keys(&cx).await.unwrap();
    assert_eq!(server.requests().len(), asked, "known, so nothing is asked");
}
