//! `index.json` of a layout and `manifest.json` of `docker load`.

use crate::ExportError;
use crate::image::{Image, ImageManifest};
use kiln_go::json;
use kiln_oci::{Descriptor, Index, Reference, annotation, media_type};
use serde::Serialize;

/// The descriptors of `index.json`: one per name, or one without a name.
fn descriptors(root: &Descriptor, names: &[Reference]) -> Vec<Descriptor> {
    let named = |name: &Reference| {
        root.clone()
            .with_annotation(annotation::IMAGE_NAME, name.to_string())
            .with_annotation(annotation::REF_NAME, ref_name(name))
    };
    if names.is_empty() { vec![root.clone()] } else { names.iter().map(named).collect() }
}

/// A tag where there is one; a name by digest is given whole.
fn ref_name(name: &Reference) -> String {
    match (name.tag(), name.digest()) {
        (Some(tag), Some(digest)) => format!("{tag}@{digest}"),
        (Some(tag), None) => tag.to_string(),
        (None, _) => name.to_string(),
    }
}

/// `index.json`
pub(crate) fn index(root: &Descriptor, names: &[Reference]) -> Result<Vec<u8>, ExportError> {
    json::to_vec(&Index::new(media_type::OCI_INDEX, descriptors(root, names))).map_err(ExportError::json)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// `manifest.json`, for the only manifest of an image.
pub(crate) fn docker(image: &Image, names: &[Reference]) -> Result<Vec<u8>, ExportError> {
    let entry = |manifest: &ImageManifest| DockerManifest {
        config: blob_path(&manifest.config),
        repo_tags: (!names.is_empty()).then(|| names.iter().map(Reference::familiar).collect()),
        layers: manifest.layers.iter().map(blob_path).collect(),
    };
    let all: Vec<_> = image.manifests.iter().take(1).map(entry).collect();
    json::to_vec(&all).map_err(ExportError::json)
}

/// Where a blob is in a layout.
pub(crate) fn blob_path(d: &Descriptor) -> String {
    format!("blobs/sha256/{}", d.digest.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_annotations() {
        let root = Descriptor::of(media_type::OCI_MANIFEST, b"x");
        let name = |text: &str| Reference::parse_normalized(text).unwrap().with_default_tag();
        let by_digest = name("b").with_digest(root.digest).name_only().with_digest(root.digest);
        let index = index(&root, &[name("a:1"), by_digest]).unwrap();
        let d = root.digest;
        assert_eq!(
            String::from_utf8(index).unwrap(),
            format!(
                concat!(
                    r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":["#,
                    r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{d}","size":1,"annotations":"#,
                    r#"{{"io.containerd.image.name":"docker.io/library/a:1","org.opencontainers.image.ref.name":"1"}}}},"#,
                    r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{d}","size":1,"annotations":"#,
                    r#"{{"io.containerd.image.name":"docker.io/library/b@{d}","org.opencontainers.image.ref.name":"docker.io/library/b@{d}"}}}}]}}"#,
                ),
                d = d
            )
        );
    }
}
