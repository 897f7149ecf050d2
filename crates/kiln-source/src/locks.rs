//! One at a time, by name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Locks that exist only while somebody holds or wants them.
#[derive(Debug, Default)]
pub(crate) struct Locks(Mutex<HashMap<String, Weak<AsyncMutex<()>>>>);

impl Locks {
    /// Waits for the lock of that name.
    pub(crate) async fn lock(&self, name: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, lock| lock.strong_count() > 0);
            match all.get(name).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::new(AsyncMutex::new(()));
                    all.insert(name.to_string(), Arc::downgrade(&lock));
                    lock
                }
            }
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn same_name_excludes_and_nothing_stays() {
        let locks = Locks::default();
        let a = locks.lock("a").await;
        let _b = locks.lock("b").await;
        let wait = tokio::time::timeout(std::time::Duration::from_millis(20), locks.lock("a"));
        assert!(wait.await.is_err());
        drop(a);
        drop(locks.lock("a").await);
        assert_eq!(locks.0.lock().unwrap().len(), 2);
        drop(locks.lock("c").await);
        assert!(!locks.0.lock().unwrap().contains_key("a"));
    }
}
