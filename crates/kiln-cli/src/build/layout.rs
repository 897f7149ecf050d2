//! Image layouts of this machine as contexts: `oci-layout://DIR[:TAG][@DIGEST]`.

use std::path::{Path, PathBuf};

/// Largest `index.json` that is read, in bytes.
const LIMIT: u64 = 4 << 20;

/// A directory in the form of an OCI layout, served to the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The daemon's name for it.
    pub id: String,
    /// Where it is.
    pub path: PathBuf,
}

/// Takes an address apart: the directory, and the image in it by digest. A tag, mostly `latest`, is looked up.
///
/// # Errors
/// If the layout cannot be read or has no such image.
pub(crate) fn resolve(address: &str) -> Result<(PathBuf, String), String> {
    let rest = address.strip_prefix("oci-layout://").unwrap_or(address);
    let (rest, digest) = match rest.rsplit_once('@') {
        Some((path, digest)) if looks_like_digest(digest) => (path, Some(digest.to_owned())),
        _ => (rest, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if is_tag(tag) => (path, tag),
        _ => (rest, "latest"),
    };
    let path = PathBuf::from(path);
    match digest {
        Some(digest) => Ok((path, digest)),
        None => {
            let digest = find(&path, tag)?;
            Ok((path, digest))
        }
    }
}

fn looks_like_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// As in image references: a word of at most 128 characters.
fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    !text.is_empty() && text.len() <= 128 && text.chars().all(word) && !text.starts_with(['.', '-'])
}

/// The image of that name or tag; `latest` also means the only one.
fn find(dir: &Path, tag: &str) -> Result<String, String> {
    let path = dir.join("index.json");
    let failed = |e: &dyn std::fmt::Display| format!("could not read {}: {e}", path.display());
    let size = std::fs::metadata(&path).map_err(|e| failed(&e))?.len();
    if size > LIMIT {
        return Err(failed(&format!("larger than {LIMIT} bytes")));
    }
    let json = std::fs::read(&path).map_err(|e| failed(&e))?;
    let index: serde_json::Value = serde_json::from_slice(&json).map_err(|e| failed(&e))?;
    let images = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = |key: &str| images.iter().find(|image| image["annotations"][key] == tag);
    let found = named("io.containerd.image.name").or_else(|| named("org.opencontainers.image.ref.name"));
    let only = match images {
        [image] if tag == "latest" => Some(image),
        _ => None,
    };
    match found.or(only).map(|image| image["digest"].as_str().unwrap_or_default()) {
        Some(digest) if looks_like_digest(digest) => Ok(digest.to_owned()),
        Some(digest) => Err(format!("unsupported digest {digest:?} in {}", path.display())),
        None => Err(format!("no image {tag:?} in {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_tags_and_digests() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (format!("sha256:{}", "a".repeat(64)), format!("sha256:{}", "b".repeat(64)));
        let index = |entries: &[(&str, &str)]| {
            let entries: Vec<_> = entries
                .iter()
                .map(|(digest, name)| {
                    serde_json::json!({"digest": digest, "annotations": {"org.opencontainers.image.ref.name": name}})
                })
                .collect();
            let json = serde_json::json!({"manifests": entries}).to_string();
            std::fs::write(dir.path().join("index.json"), json).unwrap();
        };
        let at = |tail: &str| {
            let address = format!("oci-layout://{}{tail}", dir.path().display());
            resolve(&address).map(|(path, digest)| {
                assert_eq!(path, dir.path(), "{tail}");
                digest
            })
        };
        assert!(at("").unwrap_err().contains("could not read"));
        assert_eq!(at(&format!("@{a}")).unwrap(), a);
        assert_eq!(at(&format!(":v1@{a}")).unwrap(), a);
        index(&[(&a, "v1")]);
        assert_eq!((at("").unwrap(), at(":v1").unwrap()), (a.clone(), a.clone()));
        index(&[(&a, "v1"), (&b, "latest")]);
        assert_eq!((at("").unwrap(), at(":v1").unwrap()), (b, a));
        assert!(at(":v2").unwrap_err().contains("no image \"v2\""));
        index(&[("sha512:00", "latest")]);
        assert!(at("").unwrap_err().contains("unsupported digest"));
        assert!(resolve("oci-layout:///a/@/b").unwrap_err().contains("/a/@/b/index.json"));
    }
}
