//! Random trees: whatever was there before, the result is the announced tree, or in a merge the union.

use std::os::unix::fs::symlink;

use proptest::collection::btree_map;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug, PartialEq)]
enum Node {
    File(u8),
    Link(u8),
    Dir(BTreeMap<String, Node>),
}

/// Names whose order differs between bytes, walks and alphabets.
fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "a-", "a.b", "a0", "B", "ä", "z z", ".h"]).prop_map(str::to_string)
}

fn tree() -> impl Strategy<Value = BTreeMap<String, Node>> {
    let leaf = prop_oneof![any::<u8>().prop_map(Node::File), any::<u8>().prop_map(Node::Link)];
    let node = leaf.prop_recursive(3, 20, 4, |inner| btree_map(name(), inner, 0..4).prop_map(Node::Dir));
    btree_map(name(), node, 0..5)
}

fn build(dir: &Path, tree: &BTreeMap<String, Node>) {
    for (name, node) in tree {
        let path = dir.join(name);
        match node {
            Node::File(n) => std::fs::write(path, vec![b'x'; usize::from(*n)]).unwrap(),
            Node::Link(n) => symlink(format!("../t{n}"), path).unwrap(),
            Node::Dir(inner) => {
                std::fs::create_dir(&path).unwrap();
                build(&path, inner);
            }
        }
    }
}

/// What a merge of `upper` into `lower` leaves.
fn merged(lower: &BTreeMap<String, Node>, upper: &BTreeMap<String, Node>) -> BTreeMap<String, Node> {
    let mut all = lower.clone();
    for (name, node) in upper {
        let node = match (all.get(name), node) {
            (Some(Node::Dir(below)), Node::Dir(above)) => Node::Dir(merged(below, above)),
            _ => node.clone(),
        };
        all.insert(name.clone(), node);
    }
    all
}

fn run(
    before: &BTreeMap<String, Node>,
    announced: &BTreeMap<String, Node>,
    options: ReceiveOptions,
) -> BTreeMap<String, String> {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    build(to.path(), before);
    build(from.path(), announced);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(transfer(from.path(), to.path(), options));
    listing(to.path())
}

fn expected(tree: &BTreeMap<String, Node>) -> BTreeMap<String, String> {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path(), tree);
    listing(dir.path())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_mirror_becomes_the_announced_tree(before in tree(), announced in tree()) {
        prop_assert_eq!(run(&before, &announced, mirror()), expected(&announced));
        let always = ReceiveOptions::new(Update::Mirror(Compare::Always), Style::Replace);
        prop_assert_eq!(run(&before, &announced, always), expected(&announced));
    }

    #[test]
    fn a_merge_becomes_the_union(before in tree(), announced in tree()) {
        prop_assert_eq!(run(&before, &announced, merge()), expected(&merged(&before, &announced)));
    }

    #[test]
    fn any_bytes_are_no_reason_to_panic(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (to, (ours, theirs)) = (tempfile::tempdir().unwrap(), RawStream::pair());
            for message in messages {
                theirs.outgoing.send(message.into()).await.unwrap();
            }
            drop(theirs);
            let _ = receive(ours, root(to.path()), mirror()).await;
        });
    }
}
