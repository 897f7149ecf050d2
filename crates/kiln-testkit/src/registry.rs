//! Debian's `docker-registry` on a loopback port, with a folder of its own.

use crate::PATIENCE;
use crate::image::{Blob, Image};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

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
        let (config, log) = (dir.join("registry.yml"), dir.join("registry.log"));
        // It takes a port itself, which nobody can take in between, and tells which.
        let text = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:0\n{more}",
            data.display()
        );
        fs::write(&config, text).expect("the registry's configuration");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).expect("the registry's log"))
            .spawn()
            .expect("docker-registry starts");
        let mut registry = Self { child, port: 0, data };
        let end = Instant::now() + PATIENCE;
        loop {
            let said = fs::read_to_string(&log).expect("the registry's log");
            if let Some(port) = listens_on(&said) {
                registry.port = port;
                return registry;
            }
            let state = registry.child.try_wait().expect("the registry's state");
            assert!(state.is_none(), "docker-registry ended ({state:?}):\n{said}");
            assert!(Instant::now() < end, "docker-registry does not listen:\n{said}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
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

/// The port in a log that holds `listening on 127.0.0.1:PORT"`.
fn listens_on(log: &str) -> Option<u16> {
    let (_, rest) = log.split_once("listening on 127.0.0.1:")?;
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..end].parse().ok()
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
