//! How many transfers run against one registry at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Registries remembered before idle ones are forgotten.
const HOSTS_KEPT: usize = 256;

/// What is transferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Layers and other blobs.
    Blob,
    /// Manifests, configs, questions: small, and much waits for them, so they have a place of their own.
    Json,
}

/// Places per registry: `size` for blobs, one more in all.
#[derive(Debug)]
pub(crate) struct Limiter {
    size: usize,
    hosts: Mutex<HashMap<String, Places>>,
}

#[derive(Clone, Debug)]
struct Places {
    blobs: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// A place; dropped when the transfer is over.
#[derive(Debug)]
pub(crate) struct Permit {
    _places: [Option<OwnedSemaphorePermit>; 2],
}

impl Limiter {
    pub(crate) fn new(size: usize) -> Self {
        Self { size: size.max(1), hosts: Mutex::default() }
    }

    /// Waits for a place.
    pub(crate) async fn acquire(&self, domain: &str, load: Load) -> Permit {
        let places = self.places(domain);
        // The semaphores are never closed, so there is always a permit to come.
        let blob = match load {
            Load::Blob => places.blobs.acquire_owned().await.ok(),
            Load::Json => None,
        };
        let any = places.all.acquire_owned().await.ok();
        Permit { _places: [blob, any] }
    }

    fn places(&self, domain: &str) -> Places {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Places {
            blobs: Arc::new(Semaphore::new(self.size)),
            all: Arc::new(Semaphore::new(self.size + 1)),
        };
        if hosts.len() >= HOSTS_KEPT {
            hosts.retain(|_, places| Arc::strong_count(&places.all) > 1);
        }
        hosts.entry(domain.to_string()).or_insert_with(new).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn free(limiter: &Limiter, domain: &str, load: Load) -> Option<Permit> {
        tokio::time::timeout(Duration::from_millis(20), limiter.acquire(domain, load)).await.ok()
    }

    #[tokio::test]
    async fn blobs_leave_a_place_for_json() {
        let limiter = Limiter::new(2);
        let a = free(&limiter, "r", Load::Blob).await.unwrap();
        let _b = free(&limiter, "r", Load::Blob).await.unwrap();
        assert!(free(&limiter, "r", Load::Blob).await.is_none());
        assert!(free(&limiter, "other", Load::Blob).await.is_some());
        let json = free(&limiter, "r", Load::Json).await.unwrap();
        assert!(free(&limiter, "r", Load::Json).await.is_none());
        drop((a, json));
        assert!(free(&limiter, "r", Load::Blob).await.is_some());
    }
}
