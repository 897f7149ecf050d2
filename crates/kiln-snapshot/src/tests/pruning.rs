use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::{CacheMountSpec, Filter, PruneOpts, RecordKind, Sharing, SnapshotId, UsageRecord};

async fn prune(store: &Store, opts: PruneOpts) -> Vec<UsageRecord> {
    let removed = Arc::new(Mutex::new(Vec::new()));
    let list = removed.clone();
    store
        .prune(&opts, &CancellationToken::new(), move |record| list.lock().unwrap().push(record))
        .await
        .unwrap();
    let mut removed = removed.lock().unwrap();
    std::mem::take(&mut *removed)
}

fn ids(records: &[UsageRecord]) -> Vec<SnapshotId> {
    records.iter().map(|record| record.id.clone()).collect()
}

async fn all(store: &Store) -> Vec<UsageRecord> {
    store.list(&Filter::default()).await.unwrap()
}

fn filter(entries: &[&str]) -> Filter {
    Filter::parse_all(entries).unwrap()
}

#[test]
fn only_what_nobody_needs_goes_root() {
    private_async(|| async {
        let store = Store::new(DriverChoice::Overlay);
        let gone = Arc::new(Mutex::new(Vec::new()));
        let told = gone.clone();
        store.on_removed(move |id| told.lock().unwrap().push(id.clone()));
        let base = store.layer(None, &["a = 1"]);
        let top = store.layer(Some(&base), &["b = 1"]);
        let side = store.layer(Some(&base), &["c = 1"]);
        let (base_id, side_id) = (base.id().clone(), side.id().clone());
        drop((base, side));
        let list = all(&store).await;
        assert_eq!(list.len(), 3);
        assert!(list.iter().find(|r| r.id == base_id).unwrap().in_use, "by its child");
        assert!(!list.iter().find(|r| r.id == side_id).unwrap().in_use);
        assert!(list.iter().all(|r| r.size >= 4096), "{list:?}");
        assert_eq!(list.iter().find(|r| r.id == side_id).unwrap().parents, std::slice::from_ref(&base_id));
        let removed = prune(&store, PruneOpts { all: true, ..PruneOpts::default() }).await;
        assert_eq!(ids(&removed), std::slice::from_ref(&side_id));
        assert!(removed[0].size >= 4096);
        assert_eq!(*gone.lock().unwrap(), [side_id]);
        assert_eq!(store.entries("snapshots"), 2);
        let top_id = top.id().clone();
        drop(top);
        assert_eq!(ids(&prune(&store, PruneOpts::default()).await), [top_id, base_id], "children first");
        assert!(all(&store).await.is_empty());
        assert_eq!(store.entries("snapshots"), 0);
        let store = store.reopen();
        assert!(all(&store).await.is_empty());
    });
}

#[test]
fn kinds_filters_and_age_root() {
    private_async(|| async {
        let store = Store::new(DriverChoice::Overlay);
        let make = |kind, description: &str| {
            let snapshot = store.new_active(None, NewRef::new(kind, description)).unwrap().commit().unwrap();
            snapshot.id().clone()
        };
        let regular = make(RecordKind::Regular, "mount / from exec make");
        let internal = make(RecordKind::Internal, "internal");
        let frontend = make(RecordKind::Frontend, "frontend");
        let local = make(RecordKind::LocalSource, "local source for context");
        let spec = CacheMountSpec {
            key: "k",
            base: None,
            sharing: Sharing::Shared,
            description: "c".into(),
            kind: RecordKind::CacheMount,
        };
        let cache = store.cache_mount(spec).await.unwrap().id().clone();
        assert_eq!(all(&store).await.len(), 5);
        let found = store.list(&filter(&["type==source.local", "description~=make$"])).await.unwrap();
        assert_eq!(found.len(), 2);
        let hour = PruneOpts { all: true, keep_duration: Duration::from_secs(3600), ..PruneOpts::default() };
        assert!(prune(&store, hour).await.is_empty(), "used within the hour");
        let only = PruneOpts {
            filter: filter(&["type==source.local", "type==exec.cachemount"]),
            ..PruneOpts::default()
        };
        let mut removed = ids(&prune(&store, only).await);
        removed.sort();
        let mut expected = vec![local, cache];
        expected.sort();
        assert_eq!(removed, expected);
        assert_eq!(ids(&prune(&store, PruneOpts::default()).await), [regular]);
        let shared = internal.clone();
        store.set_shared_check(move |id| *id == shared);
        assert!(all(&store).await.iter().find(|r| r.id == internal).unwrap().shared);
        assert!(
            prune(
                &store,
                PruneOpts { all: true, filter: filter(&["shared,type==frontend"]), ..PruneOpts::default() }
            )
            .await
            .is_empty()
        );
        let mut removed = ids(&prune(&store, PruneOpts { all: true, ..PruneOpts::default() }).await);
        removed.sort();
        let mut expected = vec![internal, frontend];
        expected.sort();
        assert_eq!(removed, expected);
    });
}

#[test]
fn a_budget_removes_the_least_used_first_root() {
    private_async(|| async {
        let store = Store::new(DriverChoice::Overlay);
        let text = "x".repeat(100_000);
        let made: Vec<SnapshotId> = (0..5)
            .map(|n| {
                let id = store.layer(None, &[&format!("f{n} = {text}")]).id().clone();
                std::thread::sleep(Duration::from_millis(5));
                id
            })
            .collect();
        // The oldest is the most used.
        for _ in 0..3 {
            store.get(&made[0]).unwrap();
            store.get(&made[3]).unwrap();
        }
        let used: u64 = all(&store).await.iter().map(|r| r.size).sum();
        let keep = PruneOpts { max_used: used * 3 / 5 + 1, ..PruneOpts::default() };
        assert_eq!(ids(&prune(&store, keep).await), made[1..=2]);
        let nothing = PruneOpts { max_used: used, ..PruneOpts::default() };
        assert!(prune(&store, nothing).await.is_empty());
        let reserved = PruneOpts { max_used: 1, reserved: used, ..PruneOpts::default() };
        assert!(prune(&store, reserved).await.is_empty());
        let held = store.get(&made[4]).unwrap();
        let rest = prune(&store, PruneOpts { max_used: 1, ..PruneOpts::default() }).await;
        assert_eq!(rest.len(), 2);
        assert_eq!(ids(&all(&store).await), [held.id().clone()]);
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        let error = store.prune(&PruneOpts::default(), &cancelled, |_| ()).await.unwrap_err();
        assert!(matches!(error, SnapshotError::Cancelled));
    });
}

#[test]
fn use_is_counted_and_survives_root() {
    private_async(|| async {
        let store = Store::new(DriverChoice::Overlay);
        let id = store.layer(None, &["a = 1"]).id().clone();
        for _ in 0..3 {
            store.get(&id).unwrap();
        }
        let before = all(&store).await.remove(0);
        assert_eq!((before.usage_count, before.in_use), (3, false));
        assert!(before.last_used_at.is_some());
        store.flush_usage().unwrap();
        let store = store.reopen();
        let after = all(&store).await.remove(0);
        assert_eq!((after.usage_count, after.size), (3, before.size));
        assert!(after.last_used_at.is_some());
    });
}
