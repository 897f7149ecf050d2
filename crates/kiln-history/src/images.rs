//! Which blobs belong to an image that a record names.

use kiln_content::ContentStore;
use kiln_digest::Digest;
use serde::Deserialize;

/// Largest manifest that is looked into, in bytes.
const MAX_MANIFEST: u64 = 4 << 20;

#[derive(Deserialize)]
struct Node {
    config: Option<Child>,
    #[serde(default)]
    manifests: Vec<Child>,
}

#[derive(Deserialize)]
struct Child {
    digest: String,
}

/// The blob `root` and what it names but for layers, as far as the store has them: a record keeps manifests and
/// configs, not the files.
pub(crate) fn blobs(content: &ContentStore, root: Digest) -> Vec<Digest> {
    let mut found = Vec::new();
    let mut open = vec![(root, 0)];
    while let Some((digest, depth)) = open.pop() {
        if found.contains(&digest) || !matches!(content.info(&digest), Ok(Some(_))) {
            continue;
        }
        found.push(digest);
        // An index, its manifests, their configs.
        if depth == 2 {
            continue;
        }
        let Ok(data) = content.read(&digest, MAX_MANIFEST) else { continue };
        let Ok(node) = serde_json::from_slice::<Node>(&data) else { continue };
        let children = node.manifests.into_iter().chain(node.config);
        open.extend(children.filter_map(|child| Some((child.digest.parse().ok()?, depth + 1))));
    }
    found
}
