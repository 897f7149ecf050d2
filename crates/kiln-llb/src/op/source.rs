//! Source: an identifier with a scheme and attributes.

use std::collections::BTreeMap;

/// Brings something into the graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceOp {
    /// Such as `docker-image://docker.io/library/alpine:3`.
    pub identifier: String,
    /// Names as in [`attr`].
    pub attrs: BTreeMap<String, String>,
}

impl SourceOp {
    /// The part before `://`, and the part after it. `None` when there is no scheme.
    pub fn split(&self) -> Option<(&str, &str)> {
        self.identifier.split_once("://")
    }
}

/// Where the tag of an image is looked up (`image.resolvemode`).
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
    /// The value of the attribute.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::ForcePull => "pull",
            Self::PreferLocal => "local",
        }
    }

    /// Reads the attribute; nothing is the default.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "default" => Some(Self::Default),
            "pull" => Some(Self::ForcePull),
            "local" => Some(Self::PreferLocal),
            _ => None,
        }
    }
}

/// Names of source attributes (solver/pb/attr.go).
#[expect(missing_docs, reason = "the value is the documentation")]
pub mod attr {
    pub const GIT_KEEP_DIR: &str = "git.keepgitdir";
    pub const GIT_FULL_URL: &str = "git.fullurl";
    pub const GIT_AUTH_HEADER_SECRET: &str = "git.authheadersecret";
    pub const GIT_AUTH_TOKEN_SECRET: &str = "git.authtokensecret";
    pub const GIT_KNOWN_SSH_HOSTS: &str = "git.knownsshhosts";
    pub const GIT_MOUNT_SSH_SOCK: &str = "git.mountsshsock";
    pub const GIT_CHECKSUM: &str = "git.checksum";
    pub const GIT_SKIP_SUBMODULES: &str = "git.skipsubmodules";
    pub const GIT_MTIME: &str = "git.mtime";
    pub const GIT_FETCH_BY_COMMIT: &str = "git.fetchbycommit";
    pub const GIT_BUNDLE: &str = "git.bundle";
    pub const GIT_CHECKOUT_BUNDLE: &str = "git.checkoutbundle";
    pub const GIT_SIG_PUBKEY: &str = "git.sig.pubkey";
    pub const GIT_SIG_REJECT_EXPIRED: &str = "git.sig.rejectexpired";
    pub const GIT_SIG_REQUIRE_SIGNED_TAG: &str = "git.sig.requiresignedtag";
    pub const GIT_SIG_IGNORE_SIGNED_TAG: &str = "git.sig.ignoresignedtag";
    pub const LOCAL_SESSION: &str = "local.session";
    pub const LOCAL_UNIQUE: &str = "local.unique";
    pub const LOCAL_INCLUDE_PATTERN: &str = "local.includepattern";
    pub const LOCAL_FOLLOW_PATHS: &str = "local.followpaths";
    pub const LOCAL_EXCLUDE_PATTERNS: &str = "local.excludepatterns";
    pub const LOCAL_SHARED_KEY_HINT: &str = "local.sharedkeyhint";
    pub const LOCAL_DIFFER: &str = "local.differ";
    pub const LOCAL_METADATA_TRANSFER: &str = "local.metadatatransfer";
    pub const LOCAL_METADATA_TRANSFER_EXCLUDE: &str = "local.metadatatransferexclude";
    pub const LLB_DEFINITION_FILENAME: &str = "llbbuild.filename";
    pub const HTTP_CHECKSUM: &str = "http.checksum";
    pub const HTTP_FILENAME: &str = "http.filename";
    pub const HTTP_PERM: &str = "http.perm";
    pub const HTTP_UID: &str = "http.uid";
    pub const HTTP_GID: &str = "http.gid";
    pub const HTTP_AUTH_HEADER_SECRET: &str = "http.authheadersecret";
    pub const HTTP_HEADER_PREFIX: &str = "http.header.";
    pub const HTTP_SIG_PUBKEY: &str = "http.sig.pubkey";
    pub const HTTP_SIG_SIGNATURE: &str = "http.sig.signature";
    pub const IMAGE_RESOLVE_MODE: &str = "image.resolvemode";
    pub const IMAGE_RECORD_TYPE: &str = "image.recordtype";
    pub const IMAGE_LAYER_LIMIT: &str = "image.layerlimit";
    pub const IMAGE_CHECKSUM: &str = "image.checksum";
    pub const OCI_SESSION: &str = "oci.session";
    pub const OCI_STORE: &str = "oci.store";
    pub const OCI_LAYER_LIMIT: &str = "oci.layerlimit";
}
