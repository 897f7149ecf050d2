//! The directory in which buildx and kiln keep builders (spec daemon-and-cli.md section 4).

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::Error;

/// Used by `create` when no configuration is named.
const DEFAULT_CONFIG: &str = "buildkitd.default.toml";

/// `$BUILDX_CONFIG`, else `buildx` in the directory of Docker's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigDir(PathBuf);

impl ConfigDir {
    /// The directory as the environment says; `docker` is that of Docker's configuration.
    pub fn new(env: impl Fn(&str) -> Option<String>, docker: &Path) -> Self {
        let named = env("BUILDX_CONFIG").filter(|v| !v.is_empty());
        Self(named.map_or_else(|| docker.join("buildx"), PathBuf::from))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The configuration of daemons for which none is named, if there is one.
    pub fn default_daemon_config(&self) -> Option<PathBuf> {
        let path = self.0.join(DEFAULT_CONFIG);
        path.exists().then_some(path)
    }

    pub(crate) fn create(&self, dir: &str) -> Result<(), Error> {
        let path = self.0.join(dir);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(Error::file("create directory", path))
    }

    /// Writes a file below the directory: whole, or not at all.
    pub(crate) fn write(&self, name: &str, data: &[u8], mode: u32) -> Result<(), Error> {
        let path = self.0.join(name);
        let write = || -> io::Result<()> {
            let dir = path.parent().unwrap_or(&self.0);
            let mut file = tempfile::Builder::new().prefix(".tmp-").tempfile_in(dir)?;
            file.write_all(data)?;
            file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(Error::file("write", &path))
    }

    /// Reads a file below the directory; None = it is not there.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.0.join(name);
        match std::fs::read(&path) {
            Ok(data) => Ok(Some(data)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::file("read", path)(e)),
        }
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.0.join(name);
        let removed = match std::fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(&path),
            Ok(_) => std::fs::remove_file(&path),
            Err(e) => Err(e),
        };
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path)(e)),
            _ => Ok(()),
        }
    }

    /// A random name of this machine, made on first use; it salts the keys under which contexts are shared.
    pub fn node_id(&self) -> Option<String> {
        const FILE: &str = ".buildNodeID";
        if let Ok(Some(id)) = self.read(FILE) {
            return String::from_utf8(id).ok();
        }
        let id = format!("{:016x}", rand::random::<u64>());
        self.write(FILE, id.as_bytes(), 0o600).ok()?;
        Some(id)
    }
}
