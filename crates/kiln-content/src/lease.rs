//! Protection from collection while work is going on.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kiln_digest::Digest;

use crate::store::Inner;

/// While a lease is held, [`ContentStore::gc`](crate::ContentStore::gc) keeps every blob that was written, looked up,
/// opened or protected since the lease was taken, by anybody. Held by each build; ends with the process.
#[derive(Debug)]
pub struct Lease {
    pub(crate) store: Arc<Inner>,
    pub(crate) id: u64,
}

impl Lease {
    /// Keeps `digest` for as long as this lease is held.
    pub fn protect(&self, digest: &Digest) {
        self.store.state().leases.touch(digest);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.store.state().leases.end(self.id);
    }
}

/// Who holds a lease since when, and what was touched since the oldest of them.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    clock: u64,
    held: BTreeSet<u64>,
    touched: HashMap<Digest, u64>,
}

impl Leases {
    /// Lease ids are points in time of the touch clock.
    pub(crate) fn begin(&mut self) -> u64 {
        self.clock += 1;
        self.held.insert(self.clock);
        self.clock
    }

    fn end(&mut self, id: u64) {
        self.held.remove(&id);
        let oldest = self.held.first().copied();
        match oldest {
            None => self.touched = HashMap::new(),
            Some(oldest) => self.touched.retain(|_, at| *at >= oldest),
        }
    }

    pub(crate) fn touch(&mut self, digest: &Digest) {
        if !self.held.is_empty() {
            self.clock += 1;
            self.touched.insert(*digest, self.clock);
        }
    }

    pub(crate) fn protects(&self, digest: &Digest) -> bool {
        self.touched.contains_key(digest)
    }
}
