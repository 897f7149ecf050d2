//! Changes of the index, to be persisted and replayed.

use std::collections::hash_map::Entry;
use std::time::SystemTime;

use kiln_digest::Digest;

use super::{CacheIndex, KeyData, KeyId, Link, Standing};
use crate::graph::ResultId;

/// One change of the index. Applying all changes in order to an empty index gives the same index again (without what
/// is valid in one session only).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A key appeared; `root` is its name if it is a root key.
    AddKey {
        /// Its name.
        key: KeyId,
        /// `sha256("<digest>@<output>")` for root keys.
        root: Option<Digest>,
    },
    /// `to` derives from `from`.
    AddLink {
        /// The key of an input.
        from: KeyId,
        /// How.
        link: Link,
        /// The key of an output.
        to: KeyId,
    },
    /// A key has a result. Said again with a later time, it replaces the earlier one.
    AddResult {
        /// The key.
        key: KeyId,
        /// The result.
        id: ResultId,
        /// When it was made.
        created_at: SystemTime,
    },
    /// A key is gone, with all links from and to it.
    RemoveKey {
        /// Its name.
        key: KeyId,
    },
    /// A result is gone from all keys.
    RemoveResult {
        /// Its name.
        id: ResultId,
    },
}

/// Where changes go. Called from the solver's task, in order: queue, never wait.
pub trait Journal: Send + Sync + 'static {
    /// Takes what changed together; to be made durable together.
    fn append(&self, changes: Vec<Change>);
}

/// Keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoJournal;

impl Journal for NoJournal {
    fn append(&self, _changes: Vec<Change>) {}
}

impl CacheIndex {
    /// The index after `changes`. Links to keys that do not exist and keys that nothing needs are left out, so that
    /// a journal that lost its end gives a smaller index, not a wrong one.
    pub fn load(changes: impl IntoIterator<Item = Change>) -> Self {
        let mut index = Self::default();
        for change in changes {
            index.apply(change);
        }
        let keys: Vec<KeyId> = index.keys.keys().copied().collect();
        for key in keys {
            index.remove_unused(key);
        }
        index.changes.clear();
        index
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::AddKey { key, root } => {
                self.next = self.next.max(key.0.saturating_add(1));
                if let Entry::Vacant(slot) = self.keys.entry(key) {
                    slot.insert(root.map_or(KeyData::derived(Standing::Durable), KeyData::root));
                    if let Some(root) = root {
                        self.roots.insert(root, key);
                    }
                }
            }
            Change::AddLink { from, link, to } if self.keys.contains_key(&to) => self.link(from, link, to),
            Change::AddLink { .. } => {}
            Change::AddResult { key, id, created_at } => self.save(key, id, created_at),
            Change::RemoveKey { key } => self.remove_key(key),
            Change::RemoveResult { id } => {
                for key in self.by_result.remove(&id).unwrap_or_default() {
                    if let Some(data) = self.keys.get_mut(&key) {
                        data.records.retain(|r| r.id != id);
                    }
                }
            }
        }
    }

    fn remove_key(&mut self, key: KeyId) {
        let Some(data) = self.keys.remove(&key) else { return };
        if let Some(root) = data.root {
            self.roots.remove(&root);
        }
        for (from, link) in data.backlinks {
            self.unlink(from, &link, key);
        }
        for (link, targets) in data.links {
            for to in targets {
                if let Some(target) = self.keys.get_mut(&to) {
                    target.backlinks.remove(&(key, link));
                }
            }
        }
        for record in data.records {
            if let Some(keys) = self.by_result.get_mut(&record.id) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.by_result.remove(&record.id);
                }
            }
        }
    }
}
