//! Keys of sources, made from what they found.

use crate::json::{self, Object};
use kiln_digest::Digest;
use kiln_oci::Platform;

/// The digest of a source from its key text. Keys of one session become `random:` digests.
pub fn source_digest(key: &str) -> Digest {
    let digest = Digest::sha256(format!("buildkit.source.v0:{key}"));
    if key.starts_with("session:") { digest.to_random() } else { digest }
}

/// What the first key of an image is made of. The second key is the chain id of its layers.
#[derive(Clone, Debug)]
pub struct ImageKey<'a> {
    /// Of the manifest or index that the reference resolved to.
    pub digest: &'a Digest,
    /// The requested platform, normalised.
    pub platform: &'a Platform,
    /// `image.layerlimit`
    pub layer_limit: Option<u32>,
}

/// The first key of an image.
pub fn image_key(k: &ImageKey<'_>) -> Digest {
    let mut o = Object::new();
    o.always("Digest", &k.digest.to_string()).always("OS", &k.platform.os);
    o.always("Arch", &k.platform.architecture).str("Variant", &k.platform.variant);
    o.str("OSVersion", &k.platform.os_version).strings("OSFeatures", &k.platform.os_features);
    o.object("Limit", k.layer_limit.map(|l| l.to_string()));
    Digest::sha256(o.finish())
}

/// The key of a single blob used as a file.
pub fn image_blob_key(digest: &Digest, filename: &str, perm: u32, uid: u32, gid: u32) -> Digest {
    let mut o = Object::new();
    o.always("Digest", &digest.to_string()).always("Filename", filename);
    o.raw("Perm", &perm.to_string()).raw("UID", &uid.to_string()).raw("GID", &gid.to_string());
    Digest::sha256(o.finish())
}

/// What the key of a checkout is made of.
#[derive(Clone, Debug, Default)]
pub struct GitKey<'a> {
    /// Commit; with `keep_git_dir` the id of an annotated tag object where that was asked for.
    pub sha: &'a str,
    /// `git.keepgitdir`
    pub keep_git_dir: bool,
    /// As asked for; may be empty.
    pub reference: &'a str,
    /// Sub directory, cleaned; empty for the root.
    pub subdir: &'a str,
    /// `git.skipsubmodules`
    pub skip_submodules: bool,
    /// `git.mtime`, when it is `commit`.
    pub commit_mtime: bool,
    /// `git.checkoutbundle`
    pub bundle: bool,
}

/// The key of a checkout.
pub fn git_key(k: &GitKey<'_>) -> String {
    let mut key = k.sha.to_string();
    if k.keep_git_dir {
        key.push_str(".git");
        if !k.reference.is_empty() {
            key.push('#');
            key.push_str(k.reference);
        }
    }
    if !k.subdir.is_empty() {
        key.push(':');
        key.push_str(k.subdir);
    }
    let flags = [
        (k.skip_submodules, "(skip-submodules)"),
        (k.commit_mtime, "(mtime=commit)"),
        (k.bundle, "(bundle)"),
    ];
    for (_, text) in flags.into_iter().filter(|(on, _)| *on) {
        key.push_str(text);
    }
    key
}

/// What the key of a download is made of.
#[derive(Clone, Debug, Default)]
pub struct HttpKey<'a> {
    /// Name of the file made.
    pub filename: &'a str,
    /// Permission bits; 0 when not given.
    pub perm: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of the content, as text.
    pub checksum: String,
    /// `Last-Modified` in the HTTP date format, or empty.
    pub last_modified: &'a str,
    /// `http.authheadersecret`
    pub auth_header_secret: &'a str,
    /// Header fields that were sent, by name.
    pub header: &'a [(String, String)],
}

/// The key of a download.
pub fn http_key(k: &HttpKey<'_>) -> Digest {
    let field = |(name, value): &(String, String)| {
        let mut o = Object::new();
        o.always("Name", name).always("Value", value);
        o.finish()
    };
    let mut o = Object::new();
    o.always("Filename", k.filename);
    o.raw("Perm", &k.perm.to_string()).raw("UID", &k.uid.to_string()).raw("GID", &k.gid.to_string());
    o.always("Checksum", &k.checksum).str("LastModTime", k.last_modified);
    o.str("AuthHeaderSecret", k.auth_header_secret).list("Header", k.header.iter().map(field).collect());
    Digest::sha256(o.finish())
}

/// What the key of a client directory is made of. `None` is a list that was not given.
#[derive(Clone, Debug, Default)]
pub struct LocalKey<'a> {
    /// Name of the directory, with the session's prefix where it has one.
    pub name: &'a str,
    /// `local.session`, else `local.unique` or the session that serves it.
    pub session_id: &'a str,
    /// `local.includepattern`
    pub include_patterns: Option<&'a [String]>,
    /// `local.excludepatterns`
    pub exclude_patterns: Option<&'a [String]>,
    /// `local.followpaths`
    pub follow_paths: Option<&'a [String]>,
    /// `local.metadatatransfer`
    pub metadata_transfer: bool,
    /// `local.metadatatransferexclude`
    pub metadata_exceptions: &'a [String],
}

/// The key of a client directory; it holds for one session only.
pub fn local_key(k: &LocalKey<'_>) -> String {
    let list = |l: Option<&[String]>| match l {
        None => "null".to_string(),
        Some(l) => json::array(l.iter().map(|s| kiln_go::json::string(s))),
    };
    let mut o = Object::new();
    o.always("SessionID", k.session_id);
    o.raw("IncludePatterns", &list(k.include_patterns)).raw("ExcludePatterns", &list(k.exclude_patterns));
    o.raw("FollowPaths", &list(k.follow_paths)).bool("MetadataTransfer", k.metadata_transfer);
    o.strings("MetadataExceptions", k.metadata_exceptions);
    format!("session:{}:{}", k.name, Digest::sha256(o.finish()))
}
