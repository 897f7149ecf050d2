//! The devices of this machine.

use crate::spec::{Edits, Scalar, Spec, SpecDevice};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest specification file, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Says that a device needs no entitlement.
const AUTO_ALLOW: &str = "org.mobyproject.buildkit.device.autoallow";

/// Where the files are; the default is nowhere.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    dirs: Vec<PathBuf>,
    auto_allowed: Vec<String>,
}

/// A device.
#[derive(Clone, Debug)]
pub struct Device {
    /// `vendor/class=name`
    pub name: String,
    /// Of its file, and its own over them.
    pub annotations: BTreeMap<String, String>,
    /// Needs no entitlement: the configuration or the vendor says so.
    pub auto_allowed: bool,
    pub(crate) own: Edits,
    pub(crate) shared: Arc<Edits>,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Devices {
    /// By name.
    pub(crate) devices: BTreeMap<String, Device>,
    /// Files that could not be used, and why.
    pub problems: Vec<String>,
}

impl Registry {
    /// Files in later directories win. `auto_allowed` are devices, or kinds of devices, that need no entitlement.
    pub fn new(dirs: Vec<PathBuf>, auto_allowed: Vec<String>) -> Self {
        Self { dirs, auto_allowed }
    }

    /// Reads all files.
    pub fn scan(&self) -> Devices {
        let mut found = Devices::default();
        for dir in &self.dirs {
            let (mut of_dir, mut twice) = (BTreeMap::new(), BTreeSet::new());
            for path in files(dir) {
                match read(&path) {
                    Ok(spec) => twice.extend(self.add(spec, &mut of_dir)),
                    Err(why) => found.problems.push(format!("{}: {why}", path.display())),
                }
            }
            found.devices.extend(of_dir);
            // Which of them is meant nobody knows.
            for name in twice {
                found.devices.remove(&name);
                found.problems.push(format!("{}: two files describe {name}", dir.display()));
            }
        }
        found
    }

    /// Returns the names of what was there already.
    fn add(&self, spec: Spec, to: &mut BTreeMap<String, Device>) -> Vec<String> {
        let mut twice = Vec::new();
        let shared = Arc::new(spec.container_edits);
        for SpecDevice { name, annotations, container_edits } in spec.devices {
            let full = format!("{}={name}", spec.kind);
            let both = spec.annotations.iter().chain(&annotations);
            let annotations: BTreeMap<_, _> =
                both.map(|(k, v): (_, &Scalar)| (k.clone(), v.to_string())).collect();
            let by_vendor = annotations.get(AUTO_ALLOW).and_then(|v| kiln_go::parse_bool(v)) == Some(true);
            let auto_allowed = by_vendor || self.auto_allowed.iter().any(|a| *a == full || *a == spec.kind);
            let shared = Arc::clone(&shared);
            let device =
                Device { name: full.clone(), annotations, auto_allowed, own: container_edits, shared };
            if to.insert(full.clone(), device).is_some() {
                twice.push(full);
            }
        }
        twice
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    let is_spec = |p: &PathBuf| p.extension().is_some_and(|e| e == "yaml" || e == "json") && p.is_file();
    let mut files: Vec<_> = entries.filter(is_spec).collect();
    files.sort();
    files
}

fn read(path: &Path) -> Result<Spec, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let length = file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    if length as u64 > MAX_FILE {
        return Err(format!("larger than {MAX_FILE} bytes"));
    }
    // JSON is YAML.
    let spec: Spec = serde_saphyr::from_str(&text).map_err(|e| e.to_string())?;
    check(&spec)?;
    Ok(spec)
}

fn check(spec: &Spec) -> Result<(), String> {
    if spec.cdi_version.is_empty() {
        return Err("no cdiVersion".into());
    }
    let is_word = |w: &str, more: &str| {
        w.starts_with(|c: char| c.is_ascii_alphanumeric())
            && w.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    match spec.kind.split_once('/') {
        Some((vendor, class)) if is_word(vendor, "-_.") && is_word(class, "-_") => {}
        _ => return Err(format!("kind {:?}: expected vendor/class", spec.kind)),
    }
    spec.container_edits.check()?;
    for device in &spec.devices {
        if !is_word(&device.name, "-_.:") {
            return Err(format!("invalid name of a device: {:?}", device.name));
        }
        device.container_edits.check().map_err(|why| format!("device {}: {why}", device.name))?;
    }
    Ok(())
}
