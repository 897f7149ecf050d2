//! Which image, and how to look for it.

use std::collections::BTreeMap;

use kiln_digest::Digest;
use kiln_llb::op::{ResolveMode, attr};
use kiln_oci::{Platform, Reference};
use kiln_snapshot::RecordKind;

use crate::{Layout, Result, SourceError};

/// Where an image comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The registry in its name.
    #[default]
    Registry,
    /// A layout that a client lends.
    Layout(Layout),
}

/// An image, from `docker-image://` or `oci-layout://` identifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageId {
    /// Name with tag or digest.
    pub reference: Reference,
    /// Where it comes from.
    pub origin: Origin,
    /// Platform to choose from an index.
    pub platform: Platform,
    /// Where to look.
    pub mode: ResolveMode,
    /// What the snapshots count as.
    pub kind: RecordKind,
    /// Only so many layers from the bottom.
    pub layer_limit: Option<u32>,
    /// Digest that the reference must stand for.
    pub checksum: Option<Digest>,
}

impl ImageId {
    /// An image to look up in the usual way.
    pub fn new(reference: Reference, platform: Platform) -> Self {
        let (mode, kind) = (ResolveMode::Default, RecordKind::Regular);
        let origin = Origin::Registry;
        Self { reference, origin, platform, mode, kind, layer_limit: None, checksum: None }
    }

    /// Reads the part behind `docker-image://` and the attributes of a source operation.
    pub fn parse(reference: &str, attrs: &BTreeMap<String, String>, platform: &Platform) -> Result<Self> {
        let invalid = |message: String| SourceError::Invalid {
            identifier: format!("docker-image://{reference}"),
            message,
        };
        let name = Reference::parse_normalized(reference).map_err(|e| invalid(e.to_string()))?;
        let mut id = Self::new(name.with_default_tag(), platform.clone());
        for (key, value) in attrs {
            match key.as_str() {
                attr::IMAGE_RESOLVE_MODE => {
                    let mode = ResolveMode::parse(value);
                    id.mode = mode.ok_or_else(|| invalid(format!("invalid resolvemode: {value}")))?;
                }
                attr::IMAGE_RECORD_TYPE => id.kind = record_kind(value).map_err(invalid)?,
                attr::IMAGE_LAYER_LIMIT => id.layer_limit = Some(layer_limit(value).map_err(invalid)?),
                attr::IMAGE_CHECKSUM => {
                    let digest: Digest = value.parse().map_err(|e| invalid(format!("{key}: {e}")))?;
                    if digest.is_random() {
                        return Err(invalid(format!("{key}: unsupported digest algorithm")));
                    }
                    id.checksum = Some(digest);
                }
                _ => tracing::warn!(key, "unknown attribute of an image source"),
            }
        }
        Ok(id)
    }

    /// Reads the part behind `oci-layout://` and the attributes of a source operation. Layouts have no tags here.
    pub fn parse_layout(
        reference: &str,
        attrs: &BTreeMap<String, String>,
        platform: &Platform,
    ) -> Result<Self> {
        let invalid = |message: String| SourceError::Invalid {
            identifier: format!("oci-layout://{reference}"),
            message,
        };
        let name = Reference::parse_normalized(reference).map_err(|e| invalid(e.to_string()))?;
        if name.digest().is_none_or(|d| d.is_random()) {
            return Err(invalid(format!("reference {reference:?} must have digest")));
        }
        let text = |key: &str| attrs.get(key).cloned().unwrap_or_default();
        let layout = Layout { session: text(attr::OCI_SESSION), store: text(attr::OCI_STORE) };
        if layout.store.is_empty() {
            return Err(invalid(format!("{} is missing", attr::OCI_STORE)));
        }
        let mut id = Self { origin: Origin::Layout(layout), ..Self::new(name, platform.clone()) };
        if let Some(value) = attrs.get(attr::OCI_LAYER_LIMIT) {
            id.layer_limit = Some(layer_limit(value).map_err(invalid)?);
        }
        Ok(id)
    }
}

fn layer_limit(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|l| *l > 0).ok_or_else(|| format!("invalid layer limit {text}"))
}

fn record_kind(text: &str) -> Result<RecordKind, String> {
    match text {
        "" | "regular" => Ok(RecordKind::Regular),
        "internal" => Ok(RecordKind::Internal),
        "frontend" => Ok(RecordKind::Frontend),
        _ => Err(format!("invalid record type {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(reference: &str, attrs: &[(&str, &str)]) -> Result<ImageId> {
        let attrs = attrs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        ImageId::parse(reference, &attrs, &Platform::new("linux", "arm64"))
    }

    #[test]
    fn attributes() {
        let d = Digest::sha256("x");
        let id = parse(
            "docker.io/library/a",
            &[
                ("image.resolvemode", "local"),
                ("image.recordtype", "frontend"),
                ("image.layerlimit", "3"),
                ("image.checksum", &d.to_string()),
                ("image.new", "ignored"),
            ],
        )
        .unwrap();
        assert_eq!(id.reference.to_string(), "docker.io/library/a:latest");
        assert_eq!((id.mode, id.kind), (ResolveMode::PreferLocal, RecordKind::Frontend));
        assert_eq!((id.layer_limit, id.checksum), (Some(3), Some(d)));
    }

    #[test]
    fn layouts() {
        let digest = Digest::sha256("x");
        let parse = |name: &str, attrs: &[(&str, &str)]| {
            let attrs = attrs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            ImageId::parse_layout(name, &attrs, &Platform::new("linux", "arm64"))
        };
        let name = format!("not/real@{digest}");
        let id = parse(&name, &[("oci.store", "s"), ("oci.layerlimit", "2")]).unwrap();
        assert_eq!(id.origin, Origin::Layout(Layout { session: String::new(), store: "s".into() }));
        assert_eq!((id.layer_limit, id.reference.digest()), (Some(2), Some(digest)));
        assert!(
            parse("not/real:tag", &[("oci.store", "s")])
                .unwrap_err()
                .to_string()
                .contains("must have digest")
        );
        assert!(parse(&name, &[]).unwrap_err().to_string().contains("oci.store is missing"));
    }

    #[test]
    fn refusals() {
        for (reference, attrs) in [
            ("A", &[][..]),
            ("a", &[("image.resolvemode", "maybe")]),
            ("a", &[("image.recordtype", "x")]),
            ("a", &[("image.layerlimit", "0")]),
            ("a", &[("image.layerlimit", "-1")]),
            (
                "a",
                &[(
                    "image.checksum",
                    "random:0000000000000000000000000000000000000000000000000000000000000000",
                )],
            ),
        ] {
            assert!(parse(reference, attrs).is_err(), "{reference} {attrs:?}");
        }
    }
}
