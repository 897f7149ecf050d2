use super::*;
use crate::CompressionOpts;

const BOTH: [DriverChoice; 2] = [DriverChoice::Overlay, DriverChoice::Native];

async fn merged(store: &Store, parts: &[Snapshot]) -> Snapshot {
    let merged = store.merge(parts, NewRef::default()).unwrap().unwrap();
    store.ensure(&merged, &(), &()).await.unwrap();
    merged
}

async fn difference(store: &Store, lower: Option<&Snapshot>, upper: Option<&Snapshot>) -> Snapshot {
    let diff = store.diff(lower, upper, NewRef::default()).unwrap().unwrap();
    store.ensure(&diff, &(), &()).await.unwrap();
    diff
}

#[test]
fn later_parts_win_and_deletions_count_root() {
    private_async(|| async {
        for driver in BOTH {
            let store = Store::new(driver);
            let base = store.layer(None, &["a = base", "d/", "d/x = x", "d/y = y"]);
            let one = store.layer(None, &["a = one", "b = one"]);
            let two = store.layer(None, &["b = two", "d/", "d/x = two"]);
            let all = merged(&store, &[base.clone(), one.clone(), two.clone()]).await;
            assert_eq!(
                store.listing(&all),
                ["a = one 644", "b = two 644", "d/ 755", "d/x = two 644", "d/y = y 644"]
            );
            // A part whose own layers delete something that another part has.
            let deleting = store.layer(Some(&store.layer(None, &["a = 1", "c = 1"])), &["- a"]);
            let without = merged(&store, &[base.clone(), deleting.clone()]).await;
            assert_eq!(
                store.listing(&without),
                ["c = 1 644", "d/ 755", "d/x = x 644", "d/y = y 644"],
                "{driver:?}"
            );
            assert_eq!(store.merge(&[], NewRef::default()).unwrap(), None);
            assert_eq!(
                store.merge(std::slice::from_ref(&one), NewRef::default()).unwrap(),
                Some(one.clone())
            );
            // The same layer twice.
            let twice =
                merged(&store, &[base.clone(), store.layer(Some(&base), &["a = x"]), base.clone()]).await;
            assert_eq!(store.listing(&twice)[0], "a = base 644");
            let nested = merged(
                &store,
                &[
                    store.merge(&[base.clone(), one.clone()], NewRef::default()).unwrap().unwrap(),
                    two.clone(),
                ],
            )
            .await;
            assert_eq!(store.listing(&nested), store.listing(&all), "{driver:?}");
            drop(nested);
            // Something built on a merge.
            let step = store.layer(Some(&all), &["- d/x", "new = 1"]);
            assert_eq!(store.listing(&step).len(), 5);
            let blobs = store.layer_blobs(&step, &CompressionOpts::default()).await.unwrap();
            assert_eq!(blobs.len(), 4, "base, one, two and the step");
            let one_blob = store.layer_blobs(&one, &CompressionOpts::default()).await.unwrap();
            assert_eq!(one_blob[0], blobs[1], "a part keeps its blob");
            let id = step.id().clone();
            let listing = store.listing(&step);
            drop((base, one, two, all, deleting, without, twice, step));
            let store = store.reopen();
            assert_eq!(store.listing(&store.get(&id).unwrap()), listing);
        }
    });
}

#[test]
fn a_replaced_directory_removes_only_what_its_own_layers_had_root() {
    private_async(|| async {
        for driver in BOTH {
            let store = Store::new(driver);
            let base = store.layer(None, &["d/", "d/keep = k", "d/both = base"]);
            let own = store.layer(None, &["d/", "d/both = own", "d/mine = m"]);
            let replaced = store.layer(Some(&own), &["- d", "d/", "d/new = n"]);
            let all = merged(&store, &[base, replaced]).await;
            assert_eq!(store.listing(&all), ["d/ 755", "d/keep = k 644", "d/new = n 644"], "{driver:?}");
        }
    });
}

#[test]
fn differences_root() {
    private_async(|| async {
        for driver in BOTH {
            let store = Store::new(driver);
            let base = store.layer(None, &["a = 1", "d/", "d/x = x"]);
            let mid = store.layer(Some(&base), &["a = 2", "- d/x", "d/y = y"]);
            let top = store.layer(Some(&mid), &["b = 3", "- d"]);
            assert_eq!(store.diff(None, Some(&top), NewRef::default()).unwrap(), Some(top.clone()));
            assert_eq!(store.diff(Some(&top), Some(&top), NewRef::default()).unwrap(), None);
            let diff = difference(&store, Some(&base), Some(&top)).await;
            assert_eq!(store.listing(&diff), ["a = 2 644", "b = 3 644"], "{driver:?}: no deletion shows");
            let one = difference(&store, Some(&base), Some(&mid)).await;
            assert_eq!(store.listing(&one), ["a = 2 644", "d/ 755", "d/y = y 644"], "{driver:?}");
            // Put on something else, deletions count.
            let other = store.layer(None, &["d/", "d/x = other", "d/z = z", "z = 1"]);
            let on_other = merged(&store, &[other.clone(), one.clone()]).await;
            let expected = ["a = 2 644", "d/ 755", "d/y = y 644", "d/z = z 644", "z = 1 644"];
            assert_eq!(store.listing(&on_other), expected, "{driver:?}");
            // Of filesystems that were not made on each other.
            let unrelated = difference(&store, Some(&other), Some(&mid)).await;
            assert_eq!(store.listing(&unrelated), ["a = 2 644", "d/ 755", "d/y = y 644"], "{driver:?}");
            let patched = merged(&store, &[other.clone(), unrelated.clone()]).await;
            assert_eq!(
                store.listing(&patched),
                store.listing(&mid),
                "{driver:?}: lower plus difference is upper"
            );
            let emptied = difference(&store, Some(&other), None).await;
            assert!(store.listing(&emptied).is_empty());
            let nothing = merged(&store, &[other.clone(), emptied]).await;
            assert!(store.listing(&nothing).is_empty(), "{driver:?}");
            let blobs = store.layer_blobs(&patched, &CompressionOpts::default()).await.unwrap();
            assert_eq!(blobs.len(), 2);
        }
    });
}

#[test]
fn merging_plain_copies_makes_no_directories_root() {
    private_async(|| async {
        let store = Store::new(DriverChoice::Overlay);
        let parts: Vec<Snapshot> = (0..5).map(|n| store.layer(None, &[&format!("f{n} = {n}")])).collect();
        let all = merged(&store, &parts).await;
        assert_eq!(store.entries("snapshots"), 5);
        assert_eq!(store.listing(&all).len(), 5);
    });
}

#[test]
fn both_drivers_merge_the_same_root() {
    private_async(|| async {
        for seed in 0..10 {
            let mut random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
            let stores = [Store::new(DriverChoice::Overlay), Store::new(DriverChoice::Native)];
            let [one, two] = [0, 1].map(|_| random_chain(&stores, &mut random, 3));
            let mut listings = Vec::new();
            for (i, store) in stores.iter().enumerate() {
                let all = merged(store, &[one[i].clone(), two[i].clone()]).await;
                let diff = difference(store, Some(&one[i]), Some(&two[i])).await;
                let patched = merged(store, &[one[i].clone(), diff.clone()]).await;
                assert_eq!(
                    store.listing(&patched),
                    store.listing(&two[i]),
                    "seed {seed}, store {i}: a difference is one"
                );
                listings.push([store.listing(&all), store.listing(&diff)]);
            }
            assert_eq!(listings[0], listings[1], "seed {seed}");
        }
    });
}

#[test]
fn merges_may_be_nested_by_the_thousand_and_differences_not_root() {
    private_async(|| async {
        let store = Store::new(DriverChoice::Overlay);
        let layers: Vec<Snapshot> = (0..20).map(|n| store.layer(None, &[&format!("f{n} = {n}")])).collect();
        let mut all = layers[0].clone();
        for n in 1..3000 {
            all = store.merge(&[all, layers[n % 20].clone()], NewRef::default()).unwrap().unwrap();
        }
        assert_eq!(store.layers(&all).len(), 3000);
        let mut diff = store.layer(Some(&layers[0]), &["x = 1"]);
        let error = (0..200).find_map(|n| {
            let next = store.diff(Some(&layers[n % 20]), Some(&diff), NewRef::default());
            next.map(|next| diff = next.unwrap()).err()
        });
        assert!(matches!(error, Some(SnapshotError::TooDeep { .. })), "{error:?}");
        drop((all, diff));
        let removed = store.prune(&crate::PruneOpts::default(), &Default::default(), |_| ()).await;
        removed.unwrap();
        assert_eq!(store.list(&Default::default()).await.unwrap().len(), 20);
    });
}
