//! Image layouts: directories that are lent to the daemon, and one that an export fills.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_fs::Root;
use kiln_go::json;
use kiln_llb::errdefs::{BuildError, Code};
use kiln_oci::{Descriptor, Index, Reference, annotation, media_type};
use kiln_session::LayoutDir;

use super::invalid;
use crate::{BuildRequest, Output};

/// The store that exports fill (spec wire.md section 4).
const EXPORT: &str = "export";
/// Largest `index.json` that is read, in bytes.
const INDEX_LIMIT: u64 = 4 << 20;

/// The layouts of one request.
pub(super) struct Layouts {
    pub(super) stores: Arc<kiln_session::Layouts>,
    /// Where the export goes.
    filled: Option<PathBuf>,
}

fn failed(step: &str, path: &Path, e: impl std::fmt::Display) -> BuildError {
    BuildError::new(Code::Unknown, format!("{step} {}: {e}", path.display()))
}

impl Layouts {
    pub(super) fn open(request: &BuildRequest) -> Result<Self, BuildError> {
        let mut stores = kiln_session::Layouts::new();
        for (id, path) in &request.layouts {
            let root = Root::open(path).map_err(|e| failed("open image layout", path, e))?;
            stores.insert(format!("oci:{id}"), LayoutDir::lend(root));
        }
        let mut filled = None;
        for export in request.exports.iter().filter(|e| matches!(e.kind.as_str(), "oci" | "docker")) {
            let Output::Dir { path, .. } = &export.output else { continue };
            std::fs::create_dir_all(path).map_err(|e| failed("create output directory", path, e))?;
            let root = Root::open(path).map_err(|e| failed("open output directory", path, e))?;
            if stores.insert(EXPORT.into(), LayoutDir::fill(root)).is_some() {
                return Err(invalid(format!("oci store key {EXPORT:?} already exists")));
            }
            filled = Some(path.clone());
        }
        Ok(Self { stores: Arc::new(stores), filled })
    }

    /// Lists the exported image in `index.json`, as the exporters of archives do themselves.
    pub(super) fn finish(&self, response: &BTreeMap<String, String>) -> Result<(), BuildError> {
        let Some((dir, text)) = self.filled.as_ref().zip(response.get("containerimage.descriptor")) else {
            return Ok(());
        };
        let wrong = |e: &dyn std::fmt::Display| invalid(format!("descriptor of the exported image: {e}"));
        let json = STANDARD.decode(text).map_err(|e| wrong(&e))?;
        let descriptor: Descriptor = serde_json::from_slice(&json).map_err(|e| wrong(&e))?;
        let names = response.get("image.name").map(|names| names.split(',').collect()).unwrap_or_default();
        list(dir, &descriptor, names).map_err(|e| failed("list the image in", &dir.join("index.json"), e))
    }
}

/// Adds an image under its names, or as `latest`; what had these names before loses them.
fn list(dir: &Path, descriptor: &Descriptor, names: Vec<&str>) -> Result<(), Box<dyn std::error::Error>> {
    let root = Root::open(dir)?;
    let mut index = match root.read("index.json", INDEX_LIMIT) {
        Ok(json) => serde_json::from_slice(&json)?,
        Err(e) if e.is_not_found() => Index::new(media_type::OCI_INDEX, Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let latest = vec![descriptor.clone().with_annotation(annotation::REF_NAME, "latest")];
    let named = |name: &&str| {
        let tag = Reference::parse_normalized(name).ok().and_then(|r| r.tag().map(str::to_string));
        let d = descriptor.clone().with_annotation(annotation::IMAGE_NAME, *name);
        d.with_annotation(annotation::REF_NAME, tag.unwrap_or_else(|| name.to_string()))
    };
    let added = if names.is_empty() { latest } else { names.iter().map(named).collect() };
    for new in added {
        let name = |d: &Descriptor| {
            let get = |key: &str| d.annotations.get(key).cloned().unwrap_or_default();
            (get(annotation::IMAGE_NAME), get(annotation::REF_NAME))
        };
        index.manifests.retain(|old| name(old) != name(&new));
        index.manifests.push(new);
    }
    // Under another name first, so that a reader never sees half of it.
    let partial = format!(".index-{:016x}", rand::random::<u64>());
    root.write_file(&partial, &json::to_vec(&index)?, 0o644)?;
    root.rename(&partial, "index.json")?;
    if !root.exists("oci-layout", false)? {
        root.write_file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Export, Work};

    fn export(kind: &str, dir: &Path) -> Export {
        let output = Output::Dir { path: dir.to_path_buf(), delete: false };
        Export { kind: kind.into(), attrs: [("tar".to_string(), "false".to_string())].into(), output }
    }

    fn request() -> BuildRequest {
        BuildRequest::new(Work::Frontend {
            name: String::new(),
            attrs: BTreeMap::new(),
            inputs: BTreeMap::new(),
        })
    }

    #[test]
    fn an_export_is_listed_under_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("new/out");
        let layouts =
            Layouts::open(&BuildRequest { exports: vec![export("oci", &out)], ..request() }).unwrap();
        assert_eq!(layouts.stores.keys().collect::<Vec<_>>(), ["export"]);
        let response = |image: &[u8], names: Option<&str>| {
            let json = serde_json::to_vec(&Descriptor::of(media_type::OCI_MANIFEST, image)).unwrap();
            let mut response: BTreeMap<_, _> =
                [("containerimage.descriptor".to_string(), STANDARD.encode(json))].into();
            response.extend(names.map(|n| ("image.name".to_string(), n.to_string())));
            response
        };
        let listed = || -> Vec<(String, String)> {
            let index: Index =
                serde_json::from_slice(&std::fs::read(out.join("index.json")).unwrap()).unwrap();
            let name = |d: Descriptor| d.annotations[annotation::REF_NAME].clone();
            index.manifests.into_iter().map(|d| (d.digest.hex()[..4].to_string(), name(d))).collect()
        };
        let short = |image: &[u8]| kiln_digest::Digest::sha256(image).hex()[..4].to_string();
        layouts.finish(&response(b"1", None)).unwrap();
        assert_eq!(listed(), [(short(b"1"), "latest".into())]);
        layouts.finish(&response(b"2", Some("docker.io/library/a:v1,h/b:v2"))).unwrap();
        layouts.finish(&response(b"3", Some("docker.io/library/a:v1"))).unwrap();
        let want = [(b"1", "latest"), (b"2", "v2"), (b"3", "v1")];
        assert_eq!(listed(), want.map(|(image, name)| (short(image), name.to_string())));
        assert!(out.join("oci-layout").exists());
        layouts.finish(&BTreeMap::new()).unwrap();
        assert!(layouts.finish(&[("containerimage.descriptor".into(), "?".into())].into()).is_err());
    }

    #[test]
    fn one_export_and_existing_directories() {
        let dir = tempfile::tempdir().unwrap();
        let two = vec![export("oci", dir.path()), export("docker", dir.path())];
        let error = Layouts::open(&BuildRequest { exports: two, ..request() }).err().unwrap();
        assert!(error.message.contains("already exists"), "{}", error.message);
        let lent = |path: PathBuf| BuildRequest { layouts: [("a".into(), path)].into(), ..request() };
        let stores = Layouts::open(&lent(dir.path().into())).unwrap().stores;
        assert_eq!(stores.keys().collect::<Vec<_>>(), ["oci:a"]);
        assert!(Layouts::open(&lent(dir.path().join("none"))).is_err());
    }
}
