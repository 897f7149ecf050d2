//! The cache index: keys, how they derive from each other, and the results they name.
//!
//! A *root key* is named by a digest (of an operation without inputs, or of the content of an input). A *derived key*
//! has no name of its own: it is the target of links, one set per input, each saying "the key of that input, used
//! through that selector by that operation, gives this key" (spec section 3, "Cache storage queries").
//!
//! `random:` root keys and what hangs on them stay in memory: they can match only within the session that made them.

mod change;
mod lookup;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::SystemTime;

use kiln_digest::Digest;

pub use change::{Change, Journal, NoJournal};
pub(crate) use lookup::InputIdentity;

use crate::graph::ResultId;

/// Names a cache key. Stable across processes when the journal is replayed; never used again after removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub u64);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How one key derives from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link {
    /// Which input of the operation the source key is for.
    pub input: u32,
    /// Which output of the operation the target key is for.
    pub output: u32,
    /// The digest of the operation.
    pub digest: Digest,
    /// The part of the input that is used; `None` from content keys.
    pub selector: Option<Digest>,
}

/// A stored result of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub id: ResultId,
    /// When it was made.
    pub created_at: SystemTime,
}

/// A key as seen from outside; see [`CacheIndex::key`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyView {
    /// Its name.
    pub id: KeyId,
    /// For root keys, `sha256("<digest>@<output>")` (spec section 4).
    pub root: Option<Digest>,
    /// Newest first.
    pub records: Vec<Record>,
    /// The links that lead here.
    pub links: Vec<(KeyId, Link)>,
}

/// How far a key is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Made for an operation that is still running: no lookup finds it.
    Reserved,
    /// In memory only: `random:` roots.
    Session,
    /// In the journal.
    Durable,
}

#[derive(Debug)]
struct KeyData {
    root: Option<Digest>,
    standing: Standing,
    /// Newest first; among equals the one added last.
    records: Vec<Record>,
    links: HashMap<Link, BTreeSet<KeyId>>,
    backlinks: BTreeSet<(KeyId, Link)>,
}

impl KeyData {
    fn root(digest: Digest) -> Self {
        let standing = if digest.is_random() { Standing::Session } else { Standing::Durable };
        Self { root: Some(digest), ..Self::derived(standing) }
    }

    fn derived(standing: Standing) -> Self {
        Self { root: None, standing, records: Vec::new(), links: HashMap::new(), backlinks: BTreeSet::new() }
    }
}

/// See the module. Not synchronised: it belongs to the solver's task.
#[derive(Debug, Default)]
pub struct CacheIndex {
    keys: HashMap<KeyId, KeyData>,
    roots: HashMap<Digest, KeyId>,
    by_result: HashMap<ResultId, BTreeSet<KeyId>>,
    next: u64,
    changes: Vec<Change>,
}

impl CacheIndex {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// What changed since the last call, in order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// All results that are named by a key.
    pub fn results(&self) -> impl Iterator<Item = &ResultId> {
        self.by_result.keys()
    }

    /// One key.
    pub fn key(&self, id: KeyId) -> Option<KeyView> {
        let data = self.keys.get(&id).filter(|d| d.standing != Standing::Reserved)?;
        Some(KeyView {
            id,
            root: data.root,
            records: data.records.clone(),
            links: data.backlinks.iter().copied().collect(),
        })
    }

    /// The results of a key, newest first.
    pub fn records(&self, key: KeyId) -> &[Record] {
        self.keys.get(&key).map_or(&[], |d| &d.records)
    }

    /// Adds a result to a key and makes a reserved key known.
    pub(crate) fn save(&mut self, key: KeyId, id: ResultId, created_at: SystemTime) {
        self.publish(key);
        let Some(data) = self.keys.get_mut(&key) else { return };
        if let Some(old) = data.records.iter().position(|r| r.id == id) {
            if data.records[old].created_at >= created_at {
                return;
            }
            data.records.remove(old);
        }
        let at = data.records.partition_point(|r| r.created_at > created_at);
        data.records.insert(at, Record { id: id.clone(), created_at });
        let durable = data.standing == Standing::Durable;
        self.by_result.entry(id.clone()).or_default().insert(key);
        if durable {
            self.changes.push(Change::AddResult { key, id, created_at });
        }
    }

    /// Removes a result everywhere, and the keys and links that nothing needs any more.
    pub fn forget(&mut self, result: &ResultId) {
        let Some(keys) = self.by_result.remove(result) else { return };
        self.changes.push(Change::RemoveResult { id: result.clone() });
        for key in keys {
            if let Some(data) = self.keys.get_mut(&key) {
                data.records.retain(|r| r.id != *result);
            }
            self.remove_unused(key);
        }
    }

    /// Removes a key without results and without keys that derive from it, then its sources likewise.
    fn remove_unused(&mut self, key: KeyId) {
        let mut open = vec![key];
        while let Some(key) = open.pop() {
            let used = |d: &KeyData| {
                d.standing == Standing::Reserved || !d.records.is_empty() || !d.links.is_empty()
            };
            if self.keys.get(&key).is_none_or(used) {
                continue;
            }
            let Some(data) = self.keys.remove(&key) else { continue };
            if let Some(root) = data.root {
                self.roots.remove(&root);
            }
            for (from, link) in &data.backlinks {
                self.unlink(*from, link, key);
                open.push(*from);
            }
            if data.standing == Standing::Durable {
                self.changes.push(Change::RemoveKey { key });
            }
        }
    }

    fn unlink(&mut self, from: KeyId, link: &Link, to: KeyId) {
        let Some(data) = self.keys.get_mut(&from) else { return };
        if let Some(targets) = data.links.get_mut(link) {
            targets.remove(&to);
            if targets.is_empty() {
                data.links.remove(link);
            }
        }
    }

    fn insert(&mut self, data: KeyData) -> KeyId {
        let id = KeyId(self.next);
        self.next += 1;
        if let Some(root) = data.root {
            self.roots.insert(root, id);
        }
        if data.standing == Standing::Durable {
            self.changes.push(Change::AddKey { key: id, root: data.root });
        }
        self.keys.insert(id, data);
        id
    }

    fn link(&mut self, from: KeyId, link: Link, to: KeyId) {
        let Some(target) = self.keys.get_mut(&to) else { return };
        let target_durable = target.standing == Standing::Durable;
        let Some(source) = self.keys.get_mut(&from) else { return };
        if !source.links.entry(link).or_default().insert(to) {
            return;
        }
        let durable = target_durable && source.standing == Standing::Durable;
        if let Some(target) = self.keys.get_mut(&to) {
            target.backlinks.insert((from, link));
        }
        if durable {
            self.changes.push(Change::AddLink { from, link, to });
        }
    }

    /// Makes a reserved key known, with its links.
    fn publish(&mut self, key: KeyId) {
        let Some(data) = self.keys.get_mut(&key).filter(|d| d.standing == Standing::Reserved) else { return };
        data.standing = Standing::Durable;
        let links: Vec<_> = data.backlinks.iter().copied().collect();
        self.changes.push(Change::AddKey { key, root: None });
        for (from, link) in links {
            if self.keys.get(&from).is_some_and(|d| d.standing == Standing::Durable) {
                self.changes.push(Change::AddLink { from, link, to: key });
            }
        }
    }

    /// Drops a key that was made for an operation which came to no result, unless something else uses it.
    pub(crate) fn release(&mut self, key: KeyId) {
        if let Some(data) = self.keys.get_mut(&key)
            && data.standing == Standing::Reserved
        {
            // Nothing derives from it and the journal does not know it: removed in silence.
            data.standing = Standing::Session;
        }
        self.remove_unused(key);
    }
}
