//! Questions that the scheduler asks the index.

use std::collections::BTreeSet;

use kiln_digest::Digest;

use super::{CacheIndex, KeyData, KeyId, Link, Standing};

/// What identifies one input of an operation that is about to run.
#[derive(Clone, Debug)]
pub(crate) struct InputIdentity {
    /// Keys of the result that is used.
    pub(crate) keys: Vec<KeyId>,
    /// The part of it that is used.
    pub(crate) selector: Option<Digest>,
    /// Digest of its content; decides alone when it is known.
    pub(crate) content: Option<Digest>,
}

/// `rootKey(digest, output)` of spec section 4.
pub(crate) fn root_key(digest: &Digest, output: i64) -> Digest {
    if digest.is_random() { *digest } else { Digest::sha256(format!("{digest}@{output}")) }
}

impl CacheIndex {
    /// The root key of an operation, if anything is known of it.
    pub(crate) fn find_root(&self, digest: &Digest, output: u32) -> Option<KeyId> {
        let key = *self.roots.get(&root_key(digest, i64::from(output)))?;
        let data = self.keys.get(&key)?;
        let known = !data.records.is_empty() || data.links.values().flatten().any(|to| self.is_known(*to));
        known.then_some(key)
    }

    /// The root key of an operation, made if need be.
    pub(crate) fn intern_root(&mut self, digest: &Digest, output: u32) -> KeyId {
        self.intern(root_key(digest, i64::from(output)))
    }

    /// The key of some content, if it is known.
    pub(crate) fn find_content(&self, digest: &Digest) -> Option<KeyId> {
        self.roots.get(&root_key(digest, -1)).copied()
    }

    fn intern(&mut self, root: Digest) -> KeyId {
        match self.roots.get(&root) {
            Some(key) => *key,
            None => self.insert(KeyData::root(root)),
        }
    }

    fn is_known(&self, key: KeyId) -> bool {
        self.keys.get(&key).is_some_and(|d| d.standing != Standing::Reserved)
    }

    /// The keys to which a link leads.
    pub(crate) fn follow(&self, from: KeyId, link: &Link) -> impl Iterator<Item = KeyId> + '_ {
        let targets = self.keys.get(&from).and_then(|d| d.links.get(link));
        targets.into_iter().flatten().copied().filter(|k| self.is_known(*k))
    }

    /// Whether the key is used as that input by any operation.
    pub(crate) fn is_input(&self, from: KeyId, input: u32) -> bool {
        self.keys.get(&from).is_some_and(|d| {
            d.links.iter().any(|(l, to)| l.input == input && to.iter().any(|k| self.is_known(*k)))
        })
    }

    /// Adds links to a known key.
    pub(crate) fn add_link(&mut self, from: KeyId, link: Link, to: KeyId) {
        if self.is_known(to) {
            self.link(from, link, to);
        }
    }

    /// The key for a run of an operation with these inputs. One that exists already, or is reserved by a run that is
    /// under way, is found when it can be proved for each input that it was the same; otherwise a key is reserved.
    /// Links from all keys of all inputs are added.
    ///
    /// Where the content is known it is the only proof: one definition may give other content at another time (a run
    /// without cache), and a key must not name results of both.
    pub(crate) fn reserve(&mut self, digest: Digest, output: u32, inputs: &[InputIdentity]) -> KeyId {
        let mut found: Option<BTreeSet<KeyId>> = None;
        let mut sources = Vec::new();
        for (i, input) in inputs.iter().enumerate() {
            let link = |selector| Link { input: i as u32, output, digest, selector };
            let by_definition: Vec<_> = input.keys.iter().map(|k| (*k, link(input.selector))).collect();
            let by_content = input.content.map(|c| (self.intern(root_key(&c, -1)), link(None)));
            let proofs = by_content.as_ref().map_or(&by_definition[..], std::slice::from_ref);
            let here = self.targets(proofs);
            match &mut found {
                None => found = Some(here),
                Some(found) => found.retain(|k| here.contains(k)),
            }
            sources.extend(by_definition);
            sources.extend(by_content);
        }
        let key = match found.and_then(|f| f.first().copied()) {
            Some(key) => key,
            None => self.insert(KeyData::derived(Standing::Reserved)),
        };
        for (from, link) in sources {
            self.link(from, link, key);
        }
        key
    }

    /// Where links lead, reserved keys included.
    fn targets(&self, sources: &[(KeyId, Link)]) -> BTreeSet<KeyId> {
        let links = sources.iter().filter_map(|(from, link)| self.keys.get(from)?.links.get(link));
        links.flatten().copied().collect()
    }
}
