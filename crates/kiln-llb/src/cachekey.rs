//! BuildKit's cache keys, exactly (spec llb-and-solver section 4).

mod deps;
mod digest;
mod source;

pub use deps::{ContentSelector, DepKey, KeyError, deps};
pub use digest::op_digest;
pub use source::{
    GitKey, HttpKey, ImageKey, LocalKey, git_key, http_key, image_blob_key, image_key, local_key,
    source_digest,
};

use kiln_digest::Digest;

/// The id of the root key of `digest` with `output`: SHA-256 of `<digest>@<output>`.
///
/// Content keys use output -1. A `random:` digest is its own key.
pub fn root_key(digest: &Digest, output: i64) -> Digest {
    if digest.is_random() { *digest } else { Digest::sha256(format!("{digest}@{output}")) }
}

/// The content key of an input: the checksums of its selectors, joined.
///
/// `checksums` are in the order of the [`ContentSelector`]s; even one is hashed again.
pub fn content_digest(checksums: &[Digest]) -> Digest {
    let texts: Vec<String> = checksums.iter().map(Digest::to_string).collect();
    Digest::sha256(texts.join("\0"))
}
