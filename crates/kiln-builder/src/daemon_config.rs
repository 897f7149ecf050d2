//! `--buildkitd-config`: the file and the certificates that it names, to be put into a container.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use toml::{Table, Value};

use crate::Error;

/// Where the files are in the container.
const CONTAINER_DIR: &str = "/etc/buildkit";
/// What is read of each file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// A configuration of a daemon.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DaemonConfig {
    table: Table,
}

impl DaemonConfig {
    pub(crate) fn load(path: &Path) -> Result<Self, Error> {
        if !path.exists() {
            let why = format!(
                "buildkit configuration file not found: {0}: stat {0}: no such file or directory",
                path.display()
            );
            return Err(Error::Invalid(why));
        }
        let data = read("failed to read buildkit configuration file:", path)?;
        let wrong = |why: String| Error::Invalid(format!("failed to parse config {}: {why}", path.display()));
        let text = String::from_utf8(data).map_err(|e| wrong(e.to_string()))?;
        let table = text.parse::<Table>().map_err(|e| wrong(e.message().to_owned()))?;
        Ok(Self { table })
    }

    /// Whether it allows builds something that needs to be allowed.
    pub(crate) fn allows(&self, entitlement: &str) -> bool {
        let list = self.table.get("insecure-entitlements").and_then(Value::as_array);
        list.is_some_and(|l| l.iter().any(|e| e.as_str() == Some(entitlement)))
    }

    /// The files for the container: certificates are copied, and named by their place there.
    pub(crate) fn files(mut self) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let mut files = BTreeMap::new();
        let registries = self.table.get_mut("registry").and_then(Value::as_table_mut);
        for (name, registry) in registries.into_iter().flatten() {
            let Some(registry) = registry.as_table_mut() else {
                return Err(Error::Invalid(format!("invalid registry config for {name:?}")));
            };
            let dir = format!("certs/{}", dir_name(name));
            for ca in registry.get_mut("ca").and_then(Value::as_array_mut).into_iter().flatten() {
                copy(ca, &dir, "failed to read CA file:", &mut files)?;
            }
            for pair in registry.get_mut("keypair").and_then(Value::as_array_mut).into_iter().flatten() {
                for (key, doing) in
                    [("key", "failed to read key file:"), ("cert", "failed to read cert file:")]
                {
                    if let Some(value) = pair.get_mut(key) {
                        copy(value, &dir, doing, &mut files)?;
                    }
                }
            }
        }
        files.insert("buildkitd.toml".into(), self.table.to_string().into_bytes());
        Ok(files)
    }
}

/// Takes the file that a value names, and lets it name the copy.
fn copy(
    value: &mut Value,
    dir: &str,
    doing: &'static str,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), Error> {
    let Some(path) = value.as_str().filter(|p| !p.is_empty()) else { return Ok(()) };
    let path = Path::new(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let place = format!("{dir}/{name}");
    files.insert(place.clone(), read(doing, path)?);
    *value = Value::String(format!("{CONTAINER_DIR}/{place}"));
    Ok(())
}

fn read(doing: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let read = || {
        let mut data = Vec::new();
        std::fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut data)?;
        Ok(data)
    };
    read().map_err(Error::file(doing, path))
}

/// A registry's name as that of a directory: `[^a-zA-Z0-9.-]+` becomes `_`.
fn dir_name(registry: &str) -> String {
    let mut out = String::new();
    for c in registry.chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' => out.push(c),
            _ if out.ends_with('_') => {}
            _ => out.push('_'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_copied_and_renamed() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (ca, key, cert) = (file("ca.pem", "CA"), file("k.pem", "K"), file("c.pem", "C"));
        let config = file(
            "b.toml",
            &format!(
                "debug = true\ninsecure-entitlements = [\"network.host\"]\n[registry.\"r.io:5000\"]\nca = [{ca:?}]\nhttp = true\n\
                 [[registry.\"r.io:5000\".keypair]]\nkey = {key:?}\ncert = {cert:?}\n"
            ),
        );
        let config = DaemonConfig::load(Path::new(&config)).unwrap();
        assert!(config.allows("network.host") && !config.allows("security.insecure"));
        let files = config.files().unwrap();
        assert_eq!(files["certs/r.io_5000/ca.pem"], b"CA");
        assert_eq!(files["certs/r.io_5000/k.pem"], b"K");
        let text = String::from_utf8(files["buildkitd.toml"].clone()).unwrap();
        let table: Table = text.parse().unwrap();
        let registry = &table["registry"]["r.io:5000"];
        assert_eq!(registry["ca"][0].as_str(), Some("/etc/buildkit/certs/r.io_5000/ca.pem"));
        assert_eq!(registry["keypair"][0]["cert"].as_str(), Some("/etc/buildkit/certs/r.io_5000/c.pem"));
        assert_eq!(registry["http"].as_bool(), Some(true));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = DaemonConfig::load(Path::new("/nonexistent/b.toml")).unwrap_err().to_string();
        assert!(error.starts_with("buildkit configuration file not found: /nonexistent/b.toml"), "{error}");
    }
}
