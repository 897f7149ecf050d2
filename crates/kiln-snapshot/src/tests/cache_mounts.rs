use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::{CacheMount, CacheMountSpec, Filter, RecordKind, Sharing};

fn spec(key: &str, sharing: Sharing) -> CacheMountSpec<'_> {
    CacheMountSpec {
        key,
        base: None,
        sharing,
        description: "cached mount /c".into(),
        kind: RecordKind::CacheMount,
    }
}

async fn take(store: &Store, key: &str, sharing: Sharing) -> CacheMount {
    timeout(Duration::from_secs(60), store.cache_mount(spec(key, sharing))).await.unwrap().unwrap()
}

async fn blocked(store: &Store, key: &str) -> bool {
    timeout(Duration::from_millis(50), store.cache_mount(spec(key, Sharing::Locked))).await.is_err()
}

#[test]
fn shared_users_see_the_same_files_root() {
    private_async(|| async {
        let store = Store::new(DriverChoice::Overlay);
        let key = "../../etc/passwd\0//x";
        let (a, b) = (take(&store, key, Sharing::Shared).await, take(&store, key, Sharing::Shared).await);
        assert_eq!(a.id(), b.id());
        a.mount().unwrap().root().write_file("f", b"1", 0o644).unwrap();
        assert_eq!(b.mount().unwrap().root().read("f", 9).unwrap(), b"1");
        let id = a.id().clone();
        drop((a, b));
        let store = store.reopen();
        let again = take(&store, key, Sharing::Shared).await;
        assert_eq!((again.id(), again.mount().unwrap().root().read("f", 9).unwrap()), (&id, b"1".to_vec()));
        assert_ne!(take(&store, "other", Sharing::Shared).await.id(), &id);
        let list = store.list(&Filter::parse_all(["type==exec.cachemount,mutable"]).unwrap()).await.unwrap();
        assert_eq!(list.len(), 2);
        assert!(list.iter().any(|record| record.in_use));
        assert!(store.get(&id).is_none(), "a cache mount is no snapshot");
    });
}

#[test]
fn private_users_get_their_own_root() {
    private_async(|| async {
        let store = Store::new(DriverChoice::Overlay);
        let a = take(&store, "k", Sharing::Private).await;
        let b = take(&store, "k", Sharing::Private).await;
        assert_ne!(a.id(), b.id());
        let ids = [a.id().clone(), b.id().clone()];
        drop((a, b));
        let again = take(&store, "k", Sharing::Private).await;
        assert!(ids.contains(again.id()), "kept for later");
        assert_ne!(take(&store, "k", Sharing::Shared).await.id(), again.id());
    });
}

#[test]
fn locked_users_wait_in_turn_root() {
    private_async(|| async {
        let store = Store::new(DriverChoice::Overlay);
        let first = take(&store, "k", Sharing::Locked).await;
        let id = first.id().clone();
        assert!(blocked(&store, "k").await);
        let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for n in 0..5 {
            let (snapshots, order, id) = (store.snapshots.clone(), order.clone(), id.clone());
            tasks.push(tokio::spawn(async move {
                let mount = snapshots.cache_mount(spec("k", Sharing::Locked)).await.unwrap();
                assert_eq!(mount.id(), &id);
                order.lock().unwrap().push(n);
                if n == 1 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }));
            // Into the queue one after the other.
            let queued = async {
                while store.snapshots.0.cache_mounts.waiting() <= n {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(Duration::from_secs(60), queued).await.unwrap();
        }
        tasks.remove(2).abort();
        let clone = first.clone();
        drop(first);
        assert!(order.lock().unwrap().is_empty(), "a clone still holds it");
        drop(clone);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [0, 1, 3, 4]);
        let shared = take(&store, "k", Sharing::Shared).await;
        assert!(blocked(&store, "k").await, "a shared user also keeps it");
        drop(shared);
        assert!(!blocked(&store, "k").await);
    });
}

#[test]
fn a_base_gives_the_first_files_root() {
    private_async(|| async {
        let store = Store::new(DriverChoice::Overlay);
        let base = store.layer(None, &["cache/", "cache % 700", "cache/seed = s"]);
        let with_base = CacheMountSpec { base: Some(&base), ..spec("k", Sharing::Shared) };
        let mount = store.cache_mount(with_base.clone()).await.unwrap();
        mount.mount().unwrap().root().write_file("cache/new", b"n", 0o644).unwrap();
        let id = mount.id().clone();
        drop(mount);
        assert_ne!(take(&store, "k", Sharing::Shared).await.id(), &id);
        for _ in 0..2 {
            let mount = store.cache_mount(with_base.clone()).await.unwrap();
            assert_eq!(mount.id(), &id);
            assert_eq!(
                listing(mount.mount().unwrap().root()),
                ["cache/ 700", "cache/new = n 644", "cache/seed = s 644"]
            );
        }
    });
}

#[test]
fn no_cache_starts_over_root() {
    private_async(|| async {
        let store = Store::new(DriverChoice::Overlay);
        let used = take(&store, "used", Sharing::Shared).await;
        let id = used.id().clone();
        let free = take(&store, "free", Sharing::Shared).await.id().clone();
        store.drop_cache_mounts(&["used", "free", "unknown"]).unwrap();
        assert!(!store.contains(&free));
        assert!(store.contains(&id), "in use");
        let next = take(&store, "used", Sharing::Private).await;
        assert_ne!(next.id(), &id);
        drop(used);
        assert!(!store.contains(&id), "gone when given back");
        assert!(store.contains(next.id()));
        drop(next);
        store.wait_for_entries("snapshots", 1);
    });
}
