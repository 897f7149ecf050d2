//! What the sources of one build were found to stand for.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kiln_digest::Digest;
use kiln_snapshot::Snapshot;

use crate::SourceContext;

/// Answers of remotes that hold for one build: a name that was asked about stands for the same until the build ends,
/// whatever happens at the remote meanwhile. The content found is kept from being pruned as long.
#[derive(Default)]
pub struct Memo {
    git: Mutex<HashMap<String, crate::git::Resolved>>,
    http: Mutex<HashMap<Digest, (crate::http::Resolved, Snapshot)>>,
}

impl std::fmt::Debug for Memo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memo")
    }
}

fn get<K: std::hash::Hash + Eq, V: Clone>(map: &Mutex<HashMap<K, V>>, key: &K) -> Option<V> {
    map.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
}

/// The first answer stays.
fn put<K: std::hash::Hash + Eq, V>(map: &Mutex<HashMap<K, V>>, key: K, value: V) {
    map.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert(value);
}

impl SourceContext {
    pub(crate) fn known_git(&self, key: &String) -> Option<crate::git::Resolved> {
        self.memos.iter().find_map(|m| get(&m.git, key))
    }

    pub(crate) fn learn_git(&self, key: &str, found: &crate::git::Resolved) {
        self.memos.iter().for_each(|m| put(&m.git, key.to_string(), found.clone()));
    }

    pub(crate) fn known_http(&self, key: &Digest) -> Option<(crate::http::Resolved, Snapshot)> {
        self.memos.iter().find_map(|m| get(&m.http, key))
    }

    pub(crate) fn learn_http(&self, key: &Digest, found: &(crate::http::Resolved, Snapshot)) {
        self.memos.iter().for_each(|m| put(&m.http, *key, found.clone()));
    }
}
