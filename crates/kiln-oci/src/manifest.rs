//! Manifests and indexes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::nullable::or_default;
use crate::{Descriptor, media_type};
use kiln_go::json;

/// The manifest of one image or artifact (OCI image spec, manifest.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Own media type, may be empty.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// Type of the artifact, empty for images.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub artifact_type: String,
    /// The image config.
    pub config: Descriptor,
    /// Bottom layer first.
    #[serde(default, deserialize_with = "or_default")]
    pub layers: Vec<Descriptor>,
    /// What this manifest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form pairs.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A list of manifests (OCI image spec, image-index.md; Docker's "manifest list").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Own media type, may be empty.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// Type of the artifact, usually empty.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub artifact_type: String,
    /// Entries in the order of the producer.
    #[serde(default, deserialize_with = "or_default")]
    pub manifests: Vec<Descriptor>,
    /// What this index is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form pairs.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Bytes found to be a manifest or an index.
#[expect(clippy::large_enum_variant, reason = "few exist at a time, and none for long")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

/// Why bytes are neither a manifest nor an index.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or a field of the wrong kind.
    #[error("malformed manifest: {0}")]
    Json(#[from] serde_json::Error),
    /// Docker schema 1.
    #[error("docker schema 1 manifests are not supported")]
    Schema1,
    /// The registry said one thing, the document says another.
    #[error("manifest says it is {inner:?} but was served as {outer:?}")]
    Disagree {
        /// The type given with the bytes.
        outer: String,
        /// The type in the bytes.
        inner: String,
    },
    /// Fields of a manifest and of an index at once: readers would disagree on what it is.
    #[error("ambiguous manifest: has both manifests and {0}")]
    Ambiguous(&'static str),
    /// A JSON object that is nothing known.
    #[error("unsupported manifest media type {0:?}")]
    Unknown(String),
}

/// The fields that tell what a document is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    #[serde(default, deserialize_with = "or_default")]
    media_type: String,
    #[serde(default)]
    schema_version: Option<u32>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
}

impl Probe {
    fn kind(&self) -> Result<&'static str, DocumentError> {
        if self.schema_version == Some(1) || self.fs_layers.is_some() {
            return Err(DocumentError::Schema1);
        }
        if self.manifests.is_some() {
            return match (&self.config, &self.layers) {
                (Some(_), _) => Err(DocumentError::Ambiguous("config")),
                (_, Some(_)) => Err(DocumentError::Ambiguous("layers")),
                _ => Ok(media_type::OCI_INDEX),
            };
        }
        if self.config.is_some() {
            return Ok(media_type::OCI_MANIFEST);
        }
        Err(DocumentError::Unknown(self.media_type.clone()))
    }
}

impl Document {
    /// Reads a document. `outer` is the type it was served with; empty or generic types are looked up in the bytes.
    /// A known type that contradicts the bytes is refused (CVE-2021-41190: a document must not be read two ways).
    pub fn parse(bytes: &[u8], outer: &str) -> Result<Self, DocumentError> {
        let probe: Probe = serde_json::from_slice(bytes)?;
        if outer == media_type::DOCKER_SCHEMA1 {
            return Err(DocumentError::Schema1);
        }
        let kind = probe.kind()?;
        for claim in [outer, probe.media_type.as_str()] {
            let known = media_type::is_index(claim) || media_type::is_manifest(claim);
            if known && media_type::to_oci(claim) != kind {
                return Err(DocumentError::Disagree { outer: outer.to_string(), inner: kind.to_string() });
            }
        }
        if kind == media_type::OCI_INDEX {
            return Ok(Self::Index(serde_json::from_slice(bytes)?));
        }
        Ok(Self::Manifest(serde_json::from_slice(bytes)?))
    }

    /// The media type to give the document when it is described: its own, else the one it was served with if that
    /// is known, else OCI's.
    pub fn media_type(&self, outer: &str) -> String {
        let (own, default) = match self {
            Self::Manifest(m) => (m.media_type.as_str(), media_type::OCI_MANIFEST),
            Self::Index(i) => (i.media_type.as_str(), media_type::OCI_INDEX),
        };
        let known = |t: &&str| media_type::is_index(t) || media_type::is_manifest(t);
        [own, outer].into_iter().find(known).unwrap_or(default).to_string()
    }

    /// What the document points at: config and layers, or manifests.
    pub fn children(&self) -> Vec<Descriptor> {
        match self {
            Self::Manifest(m) => std::iter::once(&m.config).chain(&m.layers).cloned().collect(),
            Self::Index(i) => i.manifests.clone(),
        }
    }
}

impl Manifest {
    /// A manifest with a config and layers.
    pub fn new(media_type: &str, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: media_type.to_string(),
            artifact_type: String::new(),
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// The bytes to store and push: indented by two spaces (spec outputs-and-cache.md section 2).
    pub fn to_vec(&self) -> serde_json::Result<Vec<u8>> {
        json::to_vec_indent(self)
    }
}

impl Index {
    /// An index of manifests.
    pub fn new(media_type: &str, manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: media_type.to_string(),
            artifact_type: String::new(),
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// The bytes to store and push: indented by two spaces (spec outputs-and-cache.md section 2).
    pub fn to_vec(&self) -> serde_json::Result<Vec<u8>> {
        json::to_vec_indent(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EMPTY_JSON;

    fn manifest() -> Manifest {
        let config = Descriptor::of(media_type::OCI_CONFIG, EMPTY_JSON);
        let layer = Descriptor::of(media_type::OCI_LAYER_GZIP, b"layer");
        Manifest::new(media_type::OCI_MANIFEST, config, vec![layer])
    }

    #[test]
    fn prints_as_go() {
        let text = String::from_utf8(manifest().to_vec().unwrap()).unwrap();
        assert_eq!(
            text,
            r#"{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": {
    "mediaType": "application/vnd.oci.image.config.v1+json",
    "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    "size": 2
  },
  "layers": [
    {
      "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
      "digest": "sha256:8f28a35bbdb7f6a9c1efa47fe6fce5e01ef061eef7fc155dcef4a89191ff3f75",
      "size": 5
    }
  ]
}"#
            .replace(
                "8f28a35bbdb7f6a9c1efa47fe6fce5e01ef061eef7fc155dcef4a89191ff3f75",
                &kiln_digest::Digest::sha256("layer").hex()
            )
        );
    }

    #[test]
    fn sniffs_the_kind() {
        let m = manifest();
        let bytes = m.to_vec().unwrap();
        for outer in ["", "text/plain", "application/json", media_type::OCI_MANIFEST] {
            assert_eq!(Document::parse(&bytes, outer).unwrap(), Document::Manifest(m.clone()));
        }
        let mut untyped = Index::new("", vec![Descriptor::of(media_type::OCI_MANIFEST, &bytes)]);
        let doc = Document::parse(&untyped.to_vec().unwrap(), "").unwrap();
        assert_eq!(doc.media_type(media_type::DOCKER_LIST), media_type::DOCKER_LIST);
        assert_eq!(doc.media_type("application/json"), media_type::OCI_INDEX);
        untyped.manifests.clear();
        assert!(matches!(Document::parse(&untyped.to_vec().unwrap(), ""), Ok(Document::Index(_))));
    }

    #[test]
    fn refuses_what_can_be_read_two_ways() {
        let bytes = manifest().to_vec().unwrap();
        assert!(matches!(
            Document::parse(&bytes, media_type::OCI_INDEX),
            Err(DocumentError::Disagree { .. })
        ));
        let both = br#"{"schemaVersion":2,"manifests":[],"config":{}}"#;
        assert!(matches!(Document::parse(both, ""), Err(DocumentError::Ambiguous("config"))));
        let both = br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
        assert!(matches!(Document::parse(both, ""), Err(DocumentError::Ambiguous("layers"))));
    }

    #[test]
    fn refuses_the_rest() {
        assert!(matches!(Document::parse(b"{\"schemaVersion\":1}", ""), Err(DocumentError::Schema1)));
        assert!(matches!(Document::parse(b"{}", media_type::OCI_MANIFEST), Err(DocumentError::Unknown(_))));
        for bad in [&b"null"[..], b"[]", b"<html>", b"", br#"{"schemaVersion":2,"config":null}"#] {
            assert!(Document::parse(bad, "").is_err());
        }
        let deep = "[".repeat(100_000);
        assert!(Document::parse(deep.as_bytes(), "").is_err());
    }
}
