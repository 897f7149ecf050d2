use super::*;
use crate::RecordKind;
use crate::contenthash::{ChecksumOpts, FileHasher, FileHeader};

fn put(update: &mut crate::KeyedUpdate, name: &str, text: &str) {
    edit(&update.active, &[&format!("{name} = {text}")]);
    let header = FileHeader { mode: 0o100_644, size: text.len() as u64, ..FileHeader::default() };
    let mut hasher = FileHasher::new(&header);
    hasher.write(text.as_bytes());
    update.hashes.set_file(Path::new(name), hasher.finish());
}

fn new() -> NewRef {
    NewRef::new(RecordKind::LocalSource, "local source for context")
}

#[test]
fn a_context_is_updated_in_place_root() {
    private_async(|| async {
        let store = Store::new(DriverChoice::Overlay);
        let key = "context:../../etc:shared";
        let mut update = store.update_keyed(key, new()).unwrap();
        assert!(!update.incremental);
        put(&mut update, "a", "1");
        put(&mut update, "b", "2");
        let first = update.commit().unwrap();
        let opts = ChecksumOpts::default();
        let (a, b) = (
            store.checksum(Some(&first), "a", &opts).await.unwrap(),
            store.checksum(Some(&first), "b", &opts).await.unwrap(),
        );
        let first_id = first.id().clone();
        drop(first);
        let gone = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let told = gone.clone();
        store.on_removed(move |id| told.lock().unwrap().push(id.clone()));
        let mut update = store.update_keyed(key, new()).unwrap();
        assert!(update.incremental);
        assert_eq!(*gone.lock().unwrap(), std::slice::from_ref(&first_id), "the old version is no more");
        assert!(store.get(&first_id).is_none());
        put(&mut update, "a", "changed");
        let second = update.commit().unwrap();
        assert_eq!(store.listing(&second), ["a = changed 644", "b = 2 644"]);
        assert_ne!(store.checksum(Some(&second), "a", &opts).await.unwrap(), a);
        assert_eq!(store.checksum(Some(&second), "b", &opts).await.unwrap(), b);
        assert_eq!(store.entries("snapshots"), 1);
        drop(second);
        let store = store.reopen();
        let update = store.update_keyed(key, new()).unwrap();
        assert!(update.incremental);
        assert_eq!(listing(update.active.mount().unwrap().root()).len(), 2);
        drop(update);
        store.wait_for_entries("snapshots", 0);
        assert!(
            !store.update_keyed(key, new()).unwrap().incremental,
            "an update that was given up starts over"
        );
    });
}

#[test]
fn a_context_in_use_is_left_alone_root() {
    private_async(|| async {
        let store = Store::new(DriverChoice::Overlay);
        let mut update = store.update_keyed("k", new()).unwrap();
        put(&mut update, "a", "1");
        put(&mut update, "b", "1");
        let first = update.commit().unwrap();
        let mut update = store.update_keyed("k", new()).unwrap();
        assert!(update.incremental);
        put(&mut update, "a", "2");
        update.hashes.remove(Path::new("b"));
        edit(&update.active, &["- b"]);
        let second = update.commit().unwrap();
        assert_eq!(store.listing(&first), ["a = 1 644", "b = 1 644"]);
        assert_eq!(store.listing(&second), ["a = 2 644"]);
        let opts = ChecksumOpts::default();
        assert!(store.checksum(Some(&first), "b", &opts).await.is_ok());
        assert!(store.checksum(Some(&second), "b", &opts).await.unwrap_err().is_not_found());
        drop((first, second));
        // Stacked versions end in a fresh transfer.
        let mut fresh = false;
        for n in 0..40 {
            let update = store.update_keyed("k", new()).unwrap();
            fresh |= !update.incremental;
            let version = update.commit().unwrap();
            if n % 2 == 0 {
                std::mem::forget(version);
            }
        }
        assert!(fresh);
    });
}

#[test]
fn snapshots_are_found_by_key_root() {
    private(|| {
        let store = Store::new(DriverChoice::Overlay);
        let one = store.new_active(None, NewRef::default()).unwrap().commit_with_key("http:x").unwrap();
        let two = store.layer(None, &["a = 1"]);
        store.set_key("http:x", &two).unwrap();
        assert_eq!(store.find_by_key("http:x"), [one.clone(), two.clone()]);
        assert!(store.find_by_key("http:y").is_empty());
        let ids = [one.id().clone(), two.id().clone()];
        drop((one, two));
        let store = store.reopen();
        let found: Vec<_> = store.find_by_key("http:x").iter().map(|s| s.id().clone()).collect();
        assert_eq!(found, ids);
    });
}
