//! Random seeds per registry, shared with Docker's tools: the client's part in the keys that stand for credentials.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiln_fs::Root;
use kiln_fs::atomic::TempFile;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

const FILE: &str = ".token_seed";
const LOCK: &str = ".token_seed.lock";

#[derive(Default, Serialize, Deserialize)]
struct Seed {
    #[serde(rename = "Seed")]
    seed: String,
}

/// The seed of `host` in `dir`, made when there is none. Where it cannot be stored it is new every time.
pub(super) fn seed(dir: &Path, host: &str) -> io::Result<Vec<u8>> {
    match stored(dir, host) {
        Err(e) if matches!(e.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) => {
            Ok(new_seed())
        }
        other => other,
    }
}

fn new_seed() -> Vec<u8> {
    rand::random::<[u8; 16]>().to_vec()
}

fn stored(dir: &Path, host: &str) -> io::Result<Vec<u8>> {
    std::fs::create_dir_all(dir)?;
    let lock = File::options().create(true).append(true).open(dir.join(LOCK))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    // A file that was cut short by a crash is begun anew.
    let mut seeds: BTreeMap<String, Seed> = match std::fs::read(dir.join(FILE)) {
        Ok(text) => serde_json::from_slice(&text).unwrap_or_default(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
        Err(e) => return Err(e),
    };
    if let Some(seed) = seeds.get(host).and_then(|s| STANDARD.decode(&s.seed).ok()) {
        return Ok(seed);
    }
    let seed = new_seed();
    seeds.insert(host.to_string(), Seed { seed: STANDARD.encode(&seed) });
    let mut file = TempFile::create_in(&Root::open(dir)?)?;
    file.file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    serde_json::to_writer_pretty(&mut file, &seeds)?;
    file.persist(FILE)?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_stay_the_same_per_host_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let a = seed(&path, "a").unwrap();
        assert_eq!((a.len(), &seed(&path, "a").unwrap()), (16, &a));
        assert_ne!(seed(&path, "b").unwrap(), a);
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&path.join(FILE).metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(path.join(FILE), "{").unwrap();
        assert_ne!(seed(&path, "a").unwrap(), a);
    }

    #[test]
    fn a_file_of_the_reference_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let json = "{\n  \"a\": {\n    \"Seed\": \"AAECAwQFBgcICQoLDA0ODw==\"\n  }\n}";
        std::fs::write(dir.path().join(FILE), json).unwrap();
        assert_eq!(seed(dir.path(), "a").unwrap(), (0..16).collect::<Vec<u8>>());
    }
}
