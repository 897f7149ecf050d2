//! Which image, and how to look for it.

use std::collections::BTreeMap;

use kiln_digest::Digest;
use kiln_llb::op::attr;
use kiln_oci::{Platform, Reference};
use kiln_snapshot::RecordKind;

use crate::{Result, SourceError};

/// Where a tag is looked up (`image.resolvemode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ResolveMode {
    /// At the registry; what the digest stands for may come from the store.
    #[default]
    Default,
    /// At the registry.
    ForcePull,
    /// What was resolved before, if its documents are at hand; else at the registry.
    PreferLocal,
}

impl ResolveMode {
    /// Reads the attribute.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" | "default" => Self::Default,
            "pull" => Self::ForcePull,
            "local" => Self::PreferLocal,
            _ => return None,
        })
    }
}

/// An image, from `docker-image://` identifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageId {
    /// Name with tag or digest.
    pub reference: Reference,
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
        Self { reference, platform, mode, kind, layer_limit: None, checksum: None }
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
                attr::IMAGE_LAYER_LIMIT => {
                    let limit = value.parse().ok().filter(|l| *l > 0);
                    id.layer_limit =
                        Some(limit.ok_or_else(|| invalid(format!("invalid layer limit {value}")))?);
                }
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
