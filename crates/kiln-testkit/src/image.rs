//! Base images made on the spot.

use kiln_digest::Digest;
use std::io::Write;
use std::path::Path;

/// One layer: an uncompressed tar.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

impl Layer {
    /// Without entries.
    pub fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Adds an empty directory.
    pub fn dir(mut self, path: &str, mode: u32) -> Self {
        self.add(tar::EntryType::Directory, path, mode, b"", None);
        self
    }

    /// Adds a regular file.
    pub fn file(mut self, path: &str, mode: u32, data: impl AsRef<[u8]>) -> Self {
        self.add(tar::EntryType::Regular, path, mode, data.as_ref(), None);
        self
    }

    /// Adds a symbolic link.
    pub fn symlink(mut self, path: &str, target: &str) -> Self {
        self.add(tar::EntryType::Symlink, path, 0o777, b"", Some(target));
        self
    }

    /// Adds a hard link to an earlier entry.
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.add(tar::EntryType::Link, path, 0o755, b"", Some(target));
        self
    }

    /// The bytes of the tar.
    pub fn into_tar(self) -> Vec<u8> {
        self.0.into_inner().expect("a tar in memory")
    }

    fn add(&mut self, kind: tar::EntryType, path: &str, mode: u32, data: &[u8], link: Option<&str>) {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        if let Some(link) = link {
            header.set_link_name(link).expect("a short link");
        }
        self.0.append_data(&mut header, path, data).expect("a tar in memory");
    }
}

/// An image: its layers and its config.
#[derive(Debug)]
pub struct Image {
    /// Uncompressed tars, the lowest first.
    pub layers: Vec<Vec<u8>>,
    /// The `config` part of the image config.
    pub config: serde_json::Value,
}

/// A blob with its digest.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) data: Vec<u8>,
}

impl Blob {
    fn new(data: Vec<u8>) -> Self {
        Self { digest: Digest::sha256(&data), data }
    }
}

impl Image {
    /// An image with one layer and the usual `PATH`.
    pub fn new(layer: Layer) -> Self {
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        Self { layers: vec![layer.into_tar()], config: serde_json::json!({"Env": [path], "Cmd": ["sh"]}) }
    }

    /// All blobs, the manifest last.
    pub(crate) fn blobs(&self) -> Vec<Blob> {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let mut blobs: Vec<Blob> = self.layers.iter().map(|tar| Blob::new(gzip(tar))).collect();
        let describe = |kind: &str, b: &Blob| serde_json::json!({"mediaType": kind, "digest": b.digest, "size": b.data.len()});
        let layers: Vec<_> =
            blobs.iter().map(|b| describe("application/vnd.oci.image.layer.v1.tar+gzip", b)).collect();
        let diff_ids: Vec<Digest> = self.layers.iter().map(Digest::sha256).collect();
        let config = Blob::new(json(&serde_json::json!({
            "architecture": arch, "os": "linux", "created": "2024-01-02T03:04:05Z", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": diff_ids.iter().map(|_| serde_json::json!({"created_by": "kiln-testkit"})).collect::<Vec<_>>(),
        })));
        let manifest = Blob::new(json(&serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("application/vnd.oci.image.config.v1+json", &config), "layers": layers,
        })));
        blobs.extend([config, manifest]);
        blobs
    }
}

fn json(value: &serde_json::Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("a JSON value")
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).expect("a write to memory");
    encoder.finish().expect("a write to memory")
}

/// A root file system of `/bin/busybox` (Debian's busybox-static) with all its names, users and groups.
///
/// # Panics
/// If the package is not installed.
pub fn busybox() -> Layer {
    let binary =
        std::fs::read(Path::new("/bin/busybox")).expect("/bin/busybox of the package busybox-static");
    let list = std::process::Command::new("/bin/busybox").arg("--list").output().expect("busybox runs");
    let mut layer = Layer::new();
    for dir in [
        "bin", "dev", "etc", "home", "lib", "proc", "sbin", "sys", "usr", "usr/bin", "usr/sbin", "var",
        "var/www",
    ] {
        layer = layer.dir(dir, 0o755);
    }
    layer = layer.dir("root", 0o700).dir("tmp", 0o1777).file("bin/busybox", 0o755, binary);
    for name in String::from_utf8_lossy(&list.stdout).lines().filter(|n| *n != "busybox") {
        layer = layer.link(&format!("bin/{name}"), "bin/busybox");
    }
    layer
        .symlink("usr/bin/env", "/bin/env")
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n")
        .file("etc/group", 0o644, "root:x:0:\ndaemon:x:1:\nwheel:x:10:root,daemon\nwww-data:x:33:\nusers:x:100:daemon\nnobody:x:65534:\n")
}
