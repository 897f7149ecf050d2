//! Media types of image parts, and the way between Docker's and OCI's names.

/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The value `{}` (OCI image spec 1.1, "empty descriptor").
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// OCI layer, plain tar.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI layer, gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// OCI layer, zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// OCI layer that must not be pushed, plain tar.
pub const OCI_FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
/// OCI layer that must not be pushed, gzip.
pub const OCI_FOREIGN_GZIP: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
/// OCI layer that must not be pushed, zstd.
pub const OCI_FOREIGN_ZSTD: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd";

/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker schema 2 manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker layer, plain tar.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker layer, gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker layer, zstd (not in Docker's own list, but used).
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
/// Docker layer that must not be pushed, plain tar.
pub const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
/// Docker layer that must not be pushed, gzip.
pub const DOCKER_FOREIGN_GZIP: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
/// Docker schema 1, which is recognised only to be refused.
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// In-toto statement.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// Artifact type of an attestation manifest.
pub const ATTESTATION_MANIFEST: &str = "application/vnd.docker.attestation.manifest.v1+json";
/// Config of a cache manifest (spec outputs-and-cache.md section 9).
pub const CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";

const PAIRS: [(&str, &str); 8] = [
    (DOCKER_LIST, OCI_INDEX),
    (DOCKER_MANIFEST, OCI_MANIFEST),
    (DOCKER_CONFIG, OCI_CONFIG),
    (DOCKER_LAYER, OCI_LAYER),
    (DOCKER_LAYER_GZIP, OCI_LAYER_GZIP),
    (DOCKER_LAYER_ZSTD, OCI_LAYER_ZSTD),
    (DOCKER_FOREIGN, OCI_FOREIGN),
    (DOCKER_FOREIGN_GZIP, OCI_FOREIGN_GZIP),
];

/// How a layer's tar stream is packed, as its media type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerCompression {
    /// Plain tar.
    Uncompressed,
    /// gzip
    Gzip,
    /// zstd
    Zstd,
}

/// Docker's name for an OCI type; other types pass unchanged.
pub fn to_docker(media_type: &str) -> &str {
    PAIRS.iter().find(|(_, oci)| *oci == media_type).map_or(media_type, |(docker, _)| docker)
}

/// OCI's name for a Docker type; other types pass unchanged.
pub fn to_oci(media_type: &str) -> &str {
    PAIRS.iter().find(|(docker, _)| *docker == media_type).map_or(media_type, |(_, oci)| oci)
}

/// Whether this is one of Docker's names.
pub fn is_docker(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.")
}

/// An index or manifest list.
pub fn is_index(media_type: &str) -> bool {
    to_oci(media_type) == OCI_INDEX
}

/// A manifest of one image.
pub fn is_manifest(media_type: &str) -> bool {
    to_oci(media_type) == OCI_MANIFEST
}

/// An image config.
pub fn is_config(media_type: &str) -> bool {
    to_oci(media_type) == OCI_CONFIG
}

/// A filesystem layer, pushable or not.
pub fn is_layer(media_type: &str) -> bool {
    layer_compression(media_type).is_some()
}

/// A layer that is not to be pushed (Docker: "foreign").
pub fn is_nondistributable(media_type: &str) -> bool {
    matches!(to_oci(media_type), OCI_FOREIGN | OCI_FOREIGN_GZIP | OCI_FOREIGN_ZSTD)
}

/// The pushable type of the same packing; types that are pushable already pass unchanged.
pub fn to_distributable(media_type: &str) -> &str {
    match media_type {
        OCI_FOREIGN => OCI_LAYER,
        OCI_FOREIGN_GZIP => OCI_LAYER_GZIP,
        OCI_FOREIGN_ZSTD => OCI_LAYER_ZSTD,
        DOCKER_FOREIGN => DOCKER_LAYER,
        DOCKER_FOREIGN_GZIP => DOCKER_LAYER_GZIP,
        other => other,
    }
}

/// The packing of a layer type, `None` for what is not a layer.
pub fn layer_compression(media_type: &str) -> Option<LayerCompression> {
    match to_oci(media_type) {
        OCI_LAYER | OCI_FOREIGN => Some(LayerCompression::Uncompressed),
        OCI_LAYER_GZIP | OCI_FOREIGN_GZIP => Some(LayerCompression::Gzip),
        OCI_LAYER_ZSTD | OCI_FOREIGN_ZSTD => Some(LayerCompression::Zstd),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_both_ways() {
        for (docker, oci) in PAIRS {
            assert_eq!(to_docker(oci), docker);
            assert_eq!(to_oci(docker), oci);
            assert!(is_docker(docker) && !is_docker(oci));
        }
        assert_eq!(to_docker("x/y"), "x/y");
    }

    #[test]
    fn tells_kinds_apart() {
        assert!(is_index(DOCKER_LIST) && is_index(OCI_INDEX) && !is_index(OCI_MANIFEST));
        assert!(is_manifest(DOCKER_MANIFEST) && !is_manifest(DOCKER_SCHEMA1));
        assert!(is_config(OCI_CONFIG) && is_nondistributable(DOCKER_FOREIGN_GZIP) && !is_layer(OCI_CONFIG));
        assert_eq!(layer_compression(DOCKER_LAYER_ZSTD), Some(LayerCompression::Zstd));
        assert_eq!(to_distributable(DOCKER_FOREIGN_GZIP), DOCKER_LAYER_GZIP);
    }
}
