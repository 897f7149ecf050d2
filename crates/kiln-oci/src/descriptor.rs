//! Descriptors: type, digest and size of one blob.

use std::collections::BTreeMap;

use kiln_digest::Digest;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::Platform;
use crate::nullable::{base64_bytes, or_default};

/// The content of the OCI empty blob.
pub const EMPTY_JSON: &[u8] = b"{}";

/// Annotation keys used on descriptors.
pub mod annotation {
    /// Digest of the unpacked layer (diff id).
    pub const UNCOMPRESSED: &str = "containerd.io/uncompressed";
    /// Creation time of a layer, RFC 3339.
    pub const CREATED_AT: &str = "buildkit/createdat";
    /// Prefix; the host follows, the value is a comma list of repositories the blob was seen in.
    pub const DISTRIBUTION_SOURCE: &str = "containerd.io/distribution.source.";
    /// Kind of an attestation entry of an index.
    pub const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
    /// The image manifest that an attestation entry of an index is about.
    pub const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
    /// Tag in the index of a layout (OCI image spec, annotations.md).
    pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
    /// Full image name in the index of a layout.
    pub const IMAGE_NAME: &str = "io.containerd.image.name";
    /// Creation time in the index of a layout.
    pub const CREATED: &str = "org.opencontainers.image.created";
}

/// What a blob is and how to know it (OCI image spec, descriptor.md). Printed in the field order of OCI's Go types.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type; empty when the producer left it out.
    #[serde(default, deserialize_with = "or_default")]
    pub media_type: String,
    /// Digest of the bytes; never a `random:` one.
    #[serde(deserialize_with = "content_digest")]
    pub digest: Digest,
    /// Length in bytes; -1, which some producers write for unknown, is refused.
    pub size: u64,
    /// Other places to fetch the blob from. kiln keeps them and never follows them.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free-form pairs.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The content itself, if small.
    #[serde(default, with = "base64_bytes", skip_serializing_if = "Option::is_none")]
    pub data: Option<Vec<u8>>,
    /// For an entry of an index: where the image runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// For an entry of an index: type of the artifact.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub artifact_type: String,
}

impl Descriptor {
    /// A descriptor with the three mandatory fields.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            platform: None,
            artifact_type: String::new(),
        }
    }

    /// The descriptor of bytes at hand.
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::sha256(bytes), bytes.len() as u64)
    }

    /// The same with one more annotation.
    pub fn with_annotation(mut self, key: &str, value: impl Into<String>) -> Self {
        self.annotations.insert(key.to_string(), value.into());
        self
    }

    /// The diff id that travels with a layer as annotation, if it is there and well-formed.
    pub fn diff_id(&self) -> Option<Digest> {
        let digest: Digest = self.annotations.get(annotation::UNCOMPRESSED)?.parse().ok()?;
        (!digest.is_random()).then_some(digest)
    }

    /// Whether an index entry is an attestation of an image, not an image.
    pub fn is_attestation(&self) -> bool {
        self.annotations.contains_key(annotation::REFERENCE_TYPE)
    }
}

/// A digest that names content.
pub(crate) fn content_digest<'de, D: Deserializer<'de>>(d: D) -> Result<Digest, D::Error> {
    let digest = Digest::deserialize(d)?;
    if digest.is_random() {
        return Err(D::Error::custom(format!("invalid digest \"{digest}\": unsupported digest algorithm")));
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_go::json;

    #[test]
    fn prints_fields_in_order() {
        let mut d = Descriptor::of("t", EMPTY_JSON).with_annotation("b", "<").with_annotation("a", "1");
        d.data = Some(EMPTY_JSON.to_vec());
        d.platform = Some(Platform::parse("linux/arm/v6").unwrap());
        d.artifact_type = "x".into();
        let text = String::from_utf8(json::to_vec(&d).unwrap()).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"mediaType":"t","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","#,
                r#""size":2,"annotations":{"a":"1","b":"\u003c"},"data":"e30=","#,
                r#""platform":{"architecture":"arm","os":"linux","variant":"v6"},"artifactType":"x"}"#
            )
        );
        assert_eq!(serde_json::from_str::<Descriptor>(&text).unwrap(), d);
    }

    #[test]
    fn refuses_hostile_values() {
        let hex = "0".repeat(64);
        for (digest, size) in [
            (format!("random:{hex}"), "1"),
            (format!("sha256:{hex}"), "-1"),
            (format!("sha256:../{}", &hex[3..]), "1"),
            (format!("sha512:{hex}"), "1"),
            (String::new(), "1"),
        ] {
            let json = format!(r#"{{"mediaType":"t","digest":"{digest}","size":{size}}}"#);
            assert!(serde_json::from_str::<Descriptor>(&json).is_err(), "{json}");
        }
    }

    #[test]
    fn reads_nulls() {
        let json = format!(
            r#"{{"digest":"sha256:{}","size":1,"urls":null,"annotations":null,"platform":null,"data":null}}"#,
            "0".repeat(64)
        );
        let d: Descriptor = serde_json::from_str(&json).unwrap();
        assert_eq!((d.urls.len(), d.annotations.len(), d.data, d.platform), (0, 0, None, None));
    }
}
