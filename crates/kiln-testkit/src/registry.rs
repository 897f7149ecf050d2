//! Debian's `docker-registry` on a loopback port, with a folder of its own.

use crate::image::{Blob, Image};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running registry; killed when dropped.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    port: u16,
    data: PathBuf,
}

impl Registry {
    /// Starts one below `dir`.
    ///
    /// # Panics
    /// If the program `docker-registry` is missing or does not come up.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, "")
    }

    /// As [`Registry::start`], with more lines for its configuration file.
    ///
    /// # Panics
    /// As [`Registry::start`].
    pub fn start_with(dir: &Path, more: &str) -> Self {
        let data = dir.join("registry");
        fs::create_dir_all(&data).expect("a folder for the registry");
        let port = free_port();
        let config = dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n{more}",
            data.display()
        );
        fs::write(&config, text).expect("the registry's configuration");
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry starts");
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(child.try_wait().expect("the registry's state").is_none(), "docker-registry ended");
            assert!(Instant::now() < end, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, port, data }
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Puts an image under `name:tag`, straight into the registry's storage (the layout of distribution v2).
    ///
    /// # Panics
    /// If the folder cannot be written.
    pub fn add(&self, name: &str, tag: &str, image: &Image) {
        let blobs = image.blobs();
        for blob in &blobs {
            self.add_blob(name, blob);
        }
        let manifest = blobs.last().expect("an image has a manifest");
        let manifests = self.repository(name).join("_manifests");
        link(&manifests.join(format!("revisions/sha256/{}", manifest.digest.hex())), manifest);
        link(&manifests.join(format!("tags/{tag}/current")), manifest);
        link(&manifests.join(format!("tags/{tag}/index/sha256/{}", manifest.digest.hex())), manifest);
    }

    /// Whether `name:tag` has been pushed.
    pub fn has(&self, name: &str, tag: &str) -> bool {
        self.repository(name).join(format!("_manifests/tags/{tag}/current/link")).exists()
    }

    fn add_blob(&self, name: &str, blob: &Blob) {
        let hex = blob.digest.hex();
        let dir = self.data.join(format!("docker/registry/v2/blobs/sha256/{}/{hex}", &hex[..2]));
        fs::create_dir_all(&dir).expect("the registry's folder");
        fs::write(dir.join("data"), &blob.data).expect("the registry's folder");
        link(&self.repository(name).join(format!("_layers/sha256/{hex}")), blob);
    }

    fn repository(&self, name: &str) -> PathBuf {
        self.data.join("docker/registry/v2/repositories").join(name)
    }
}

fn link(dir: &Path, blob: &Blob) {
    fs::create_dir_all(dir).expect("the registry's folder");
    fs::write(dir.join("link"), blob.digest.to_string()).expect("the registry's folder");
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    listener.local_addr().expect("a bound port").port()
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
