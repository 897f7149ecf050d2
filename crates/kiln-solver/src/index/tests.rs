use std::time::{Duration, SystemTime};

use kiln_digest::Digest;
use proptest::prelude::*;

use super::lookup::root_key;
use super::*;

fn digest(text: &str) -> Digest {
    Digest::sha256(text)
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn id(text: &str) -> ResultId {
    ResultId::new(text)
}

fn by_key(key: KeyId) -> InputIdentity {
    InputIdentity { keys: vec![key], selector: None, content: None }
}

fn link(op: &str) -> Link {
    Link { input: 0, output: 0, digest: digest(op), selector: None }
}

#[test]
fn root_keys_are_those_of_the_reference() {
    // Vectors of spec llb-and-solver.md section 9.
    let foo: Digest =
        "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae".parse().unwrap();
    assert_eq!(root_key(&foo, 0).hex(), "9b33d7158456f4029a31acce539a475537fd97242e02e3f98add3d26322e2686");
    assert_eq!(root_key(&foo, -1).hex(), "afd857754863d340ca78995ad7d030056d58a7f3ad99e778b906ac768d427a74");
    assert_eq!(root_key(&foo.to_random(), 3), foo.to_random());
}

#[test]
fn newest_record_first_and_a_repeated_one_moves_up() {
    let mut index = CacheIndex::new();
    let key = index.intern_root(&digest("a"), 0);
    for (name, when) in [("old", 1), ("new", 3), ("middle", 2), ("old", 4)] {
        index.save(key, id(name), at(when));
    }
    let names: Vec<_> = index.records(key).iter().map(|r| r.id.as_str().to_string()).collect();
    assert_eq!(names, ["old", "new", "middle"]);
}

#[test]
fn a_root_is_known_only_by_results_or_derived_keys() {
    let mut index = CacheIndex::new();
    let root = index.intern_root(&digest("a"), 0);
    assert_eq!(index.find_root(&digest("a"), 0), None);
    let key = index.reserve(digest("op"), 0, &[by_key(root)]);
    assert_eq!(index.find_root(&digest("a"), 0), None, "a reservation shows nothing");
    index.save(key, id("r"), at(1));
    assert_eq!(index.find_root(&digest("a"), 0), Some(root));
    assert_eq!(index.find_root(&digest("a"), 1), None);
}

#[test]
fn runs_with_equal_inputs_reserve_one_key() {
    let mut index = CacheIndex::new();
    let (a, b) = (index.intern_root(&digest("a"), 0), index.intern_root(&digest("b"), 0));
    let content = Some(digest("content"));
    let one = index.reserve(digest("op"), 0, &[InputIdentity { keys: vec![a], selector: None, content }]);
    let two = index.reserve(digest("op"), 0, &[InputIdentity { keys: vec![b], selector: None, content }]);
    assert_eq!(one, two);
    let other = Some(digest("other content"));
    let three =
        index.reserve(digest("op"), 0, &[InputIdentity { keys: vec![a], selector: None, content: other }]);
    assert_ne!(one, three, "the definition is no proof where the content is known");
    index.save(one, id("r"), at(1));
    let by_b: Vec<_> = index.follow(b, &link("op")).collect();
    assert_eq!(by_b, [one], "links of all who shared the run are kept");
}

#[test]
fn an_unused_reservation_leaves_nothing() {
    let mut index = CacheIndex::new();
    let root = index.intern_root(&digest("a"), 0);
    index.save(root, id("r"), at(1));
    index.take_changes();
    let content = Some(digest("c"));
    let key = index.reserve(digest("op"), 0, &[InputIdentity { keys: vec![root], selector: None, content }]);
    index.release(key);
    assert_eq!(index.len(), 1);
    assert!(index.find_content(&digest("c")).is_none());
    let replayed = CacheIndex::load(index.take_changes());
    assert!(replayed.is_empty(), "{replayed:?}");
}

#[test]
fn forgetting_keeps_what_later_keys_need() {
    let mut index = CacheIndex::new();
    let a = index.intern_root(&digest("a"), 0);
    index.save(a, id("ra"), at(1));
    let b = index.reserve(digest("op"), 0, &[by_key(a)]);
    index.save(b, id("rb"), at(2));
    index.forget(&id("ra"));
    assert_eq!(index.find_root(&digest("a"), 0), Some(a));
    assert!(index.records(a).is_empty());
    index.forget(&id("rb"));
    assert!(index.is_empty());
    assert_eq!(CacheIndex::load(index.take_changes()).len(), 0);
}

#[test]
fn session_keys_stay_out_of_the_journal() {
    let mut index = CacheIndex::new();
    let local = index.intern_root(&digest("session").to_random(), 0);
    index.save(local, id("context"), at(1));
    let content = Some(digest("files"));
    let key =
        index.reserve(digest("copy"), 0, &[InputIdentity { keys: vec![local], selector: None, content }]);
    index.save(key, id("copied"), at(2));
    let replayed = CacheIndex::load(index.take_changes());
    assert!(replayed.find_root(&digest("session").to_random(), 0).is_none());
    let by_content = replayed.find_content(&digest("files")).unwrap();
    let reached: Vec<_> = replayed.follow(by_content, &link("copy")).collect();
    assert_eq!(reached, [key]);
    assert_eq!(replayed.records(key).len(), 1);
}

#[test]
fn a_torn_journal_gives_a_smaller_index() {
    let mut index = CacheIndex::new();
    let a = index.intern_root(&digest("a"), 0);
    index.save(a, id("ra"), at(1));
    let b = index.reserve(digest("op"), 0, &[by_key(a)]);
    index.save(b, id("rb"), at(2));
    let changes = index.take_changes();
    for end in 0..changes.len() {
        let index = CacheIndex::load(changes[..end].iter().cloned());
        for result in index.results() {
            assert!(["ra", "rb"].contains(&result.as_str()));
        }
    }
}

/// What the index says about itself, in an order that does not depend on hashing.
fn dump(index: &CacheIndex) -> Vec<KeyView> {
    let mut all: Vec<_> = index.keys.keys().filter_map(|k| index.key(*k)).collect();
    all.sort_by_key(|k| k.id);
    all
}

#[derive(Clone, Debug)]
enum Step {
    Root(u8, u8),
    Derive(u8, u8, Option<u8>, u8),
    Abort(u8, u8),
    Forget(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..4, 0u8..8).prop_map(|(a, b)| Step::Root(a, b)),
        (0u8..16, 0u8..3, prop::option::of(0u8..3), 0u8..8).prop_map(|(a, b, c, d)| Step::Derive(a, b, c, d)),
        (0u8..16, 0u8..3).prop_map(|(a, b)| Step::Abort(a, b)),
        (0u8..8).prop_map(Step::Forget),
    ]
}

proptest! {
    #[test]
    fn replaying_the_journal_gives_the_same_index(steps in prop::collection::vec(step(), 0..60)) {
        let mut index = CacheIndex::new();
        let mut keys: Vec<KeyId> = Vec::new();
        for (time, step) in steps.into_iter().enumerate() {
            let when = at(time as u64);
            match step {
                Step::Root(n, r) => {
                    let key = index.intern_root(&digest(&n.to_string()), 0);
                    index.save(key, id(&r.to_string()), when);
                    keys.push(key);
                }
                Step::Derive(from, op, content, r) if !keys.is_empty() => {
                    let from = keys[usize::from(from) % keys.len()];
                    let content = content.map(|c| digest(&format!("content {c}")));
                    let input = InputIdentity { keys: vec![from], selector: None, content };
                    let key = index.reserve(digest(&format!("op {op}")), 0, &[input]);
                    index.save(key, id(&r.to_string()), when);
                    keys.push(key);
                }
                Step::Abort(from, op) if !keys.is_empty() => {
                    let from = keys[usize::from(from) % keys.len()];
                    let key = index.reserve(digest(&format!("op {op}")), 0, &[by_key(from)]);
                    index.release(key);
                }
                Step::Forget(r) => index.forget(&id(&r.to_string())),
                _ => {}
            }
        }
        let replayed = CacheIndex::load(index.take_changes());
        prop_assert_eq!(dump(&index), dump(&replayed));
        for key in index.keys.values() {
            prop_assert!(!key.records.is_empty() || !key.links.is_empty(), "a key that nothing needs: {:?}", key);
        }
    }
}
