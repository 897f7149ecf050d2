//! The instances of a user, in buildx's own files: both read what the other wrote.

use std::fs::File;

use jiff::Timestamp;
use kiln_digest::Digest;
use serde::{Deserialize, Serialize};

use crate::config::ConfigDir;
use crate::instance::Instance;
use crate::refs::Refs;
use crate::{Error, names};

const INSTANCES: &str = "instances";
const DEFAULTS: &str = "defaults";
const ACTIVITY: &str = "activity";

/// The store, locked against other commands until it is dropped.
#[derive(Debug)]
pub struct Store {
    config: ConfigDir,
    _lock: File,
}

/// `current`: the builder that is used when none is named.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Current {
    /// Endpoint for which it holds.
    key: String,
    name: String,
    /// It holds for every endpoint.
    global: bool,
}

/// Reach of `use`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// For every Docker endpoint.
    pub global: bool,
    /// Also after another builder was used and removed.
    pub default: bool,
}

impl Store {
    /// Opens it; makes what is missing.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn open(config: &ConfigDir) -> Result<Self, Error> {
        for dir in [INSTANCES, DEFAULTS, ACTIVITY] {
            config.create(dir)?;
        }
        let path = config.path().join(".lock");
        let open = File::options().create(true).append(true).open(&path);
        let lock = open.map_err(Error::file("open", &path))?;
        let locked =
            rustix::io::retry_on_intr(|| rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive));
        locked.map_err(|e| Error::file("lock", &path)(e.into()))?;
        Ok(Self { config: config.clone(), _lock: lock })
    }

    /// The directory it is in.
    pub fn config(&self) -> &ConfigDir {
        &self.config
    }

    /// All instances by name.
    ///
    /// # Errors
    /// A file cannot be read, or is none of an instance.
    pub fn list(&self) -> Result<Vec<Instance>, Error> {
        let dir = self.config.path().join(INSTANCES);
        let entries = std::fs::read_dir(&dir).map_err(Error::file("list", &dir))?;
        let mut list = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::file("list", &dir))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if names::validate(&name).is_err() {
                continue;
            }
            list.extend(self.get(&name)?);
        }
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(list)
    }

    /// An instance by name.
    ///
    /// # Errors
    /// As [`Store::list`]; or it is a name that no instance has.
    pub fn get(&self, name: &str) -> Result<Option<Instance>, Error> {
        let file = format!("{INSTANCES}/{}", names::validate(name)?);
        let Some(data) = self.config.read(&file)? else { return Ok(None) };
        let wrong = |e: serde_json::Error| Error::Invalid(format!("builder {name}: {file}: {e}"));
        let mut instance: Instance = serde_json::from_slice(&data).map_err(wrong)?;
        instance.last_activity = self.last_activity(&instance.name)?;
        Ok(Some(instance))
    }

    /// Writes an instance.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn save(&self, instance: &Instance) -> Result<(), Error> {
        let name = names::validate(&instance.name)?;
        self.touch(instance)?;
        let data = serde_json::to_vec(instance).map_err(|e| Error::Invalid(e.to_string()))?;
        self.config.write(&format!("{INSTANCES}/{name}"), &data, 0o600)
    }

    /// Removes an instance and what is known of its builds.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let name = names::validate(name)?;
        self.config.remove(&format!("{ACTIVITY}/{name}"))?;
        Refs::new(&self.config).remove_builder(&name)?;
        self.config.remove(&format!("{INSTANCES}/{name}"))
    }

    /// A name for a new instance.
    ///
    /// # Errors
    /// Bad luck.
    pub fn random_name(&self) -> Result<String, Error> {
        let is_taken = |name: &str| !matches!(self.get(name), Ok(None));
        names::random(is_taken).ok_or_else(|| Error::invalid("failed to generate random name"))
    }

    /// Notes that a builder was used now.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn touch(&self, instance: &Instance) -> Result<(), Error> {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        self.config.write(&format!("{ACTIVITY}/{}", activity_name(&instance.name)), now.as_bytes(), 0o600)
    }

    /// When a builder was last used.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn last_activity(&self, name: &str) -> Result<Option<Timestamp>, Error> {
        let data = self.config.read(&format!("{ACTIVITY}/{}", activity_name(name)))?;
        Ok(data.and_then(|d| String::from_utf8(d).ok()?.trim().parse().ok()))
    }

    /// Makes a builder the one that is used at an endpoint; the empty name stands for the Docker context itself.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn set_current(&self, key: &str, name: &str, reach: Reach) -> Result<(), Error> {
        let current = Current { key: key.to_owned(), name: name.to_owned(), global: reach.global };
        self.write_current(&current)?;
        let file = default_file(key);
        match reach.default {
            true => self.config.write(&file, name.as_bytes(), 0o600),
            false => self.config.remove(&file),
        }
    }

    /// The builder that is used at an endpoint; None = the Docker context itself.
    ///
    /// # Errors
    /// A file cannot be read, or has another form.
    pub fn current(&self, key: &str) -> Result<Option<Instance>, Error> {
        if let Some(data) = self.config.read("current")? {
            let wrong = |e: serde_json::Error| Error::Invalid(format!("the current builder: {e}"));
            let current: Current = serde_json::from_slice(&data).map_err(wrong)?;
            if !current.name.is_empty() && (current.global || current.key == key) {
                let found = self.get(&current.name).ok().flatten();
                if found.is_some() || current.key == key {
                    return Ok(found);
                }
            }
        }
        let Some(name) = self.config.read(&default_file(key))? else {
            let _ = self.write_current(&Current { key: key.to_owned(), ..Current::default() });
            return Ok(None);
        };
        let name = String::from_utf8_lossy(&name).into_owned();
        self.set_current(key, &name, Reach { default: true, global: false })?;
        Ok(self.get(&name).ok().flatten())
    }

    fn write_current(&self, current: &Current) -> Result<(), Error> {
        let data = serde_json::to_vec(current).map_err(|e| Error::Invalid(e.to_string()))?;
        self.config.write("current", &data, 0o600)
    }
}

/// Names of Docker contexts may not leave the directory either.
fn activity_name(name: &str) -> String {
    name.replace('/', "_")
}

fn default_file(key: &str) -> String {
    let digest = Digest::sha256(key.as_bytes()).to_string();
    let hex = digest.rsplit(':').next().unwrap_or_default();
    format!("{DEFAULTS}/{}", &hex[..20.min(hex.len())])
}
