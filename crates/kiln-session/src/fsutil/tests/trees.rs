//! Honest transfers.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::StreamExt;
use kiln_fs::FileKind;

use super::*;
use crate::DirectoryRequest;

fn write(dir: &Path, path: &str, content: &str) {
    let path = dir.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn set_time(path: &Path, secs: u64) {
    let file = std::fs::File::open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(secs)).unwrap();
}

/// The tree of the recorded exchange in spec wire.md section 5.
fn recorded(dir: &Path) {
    write(dir, "a", "x");
    std::fs::set_permissions(dir.join("a"), PermissionsExt::from_mode(0o600)).unwrap();
    write(dir, "b/c", "hello");
    write(dir, "b.txt", "");
    write(dir, "big", &"y".repeat(70_000));
    symlink("a", dir.join("l")).unwrap();
    std::fs::hard_link(dir.join("a"), dir.join("z")).unwrap();
}

#[tokio::test]
async fn the_sender_speaks_as_recorded() {
    let from = tempfile::tempdir().unwrap();
    recorded(from.path());
    let (ours, mut theirs) = RawStream::pair();
    let tree = Arc::new(DirTree::new(Arc::new(root(from.path()))));
    let sender = tokio::spawn(send(ours, tree));
    let mut next = async || Packet::decode(theirs.incoming.next().await.unwrap().unwrap()).unwrap();
    let mut stats = vec![];
    while let Packet::Stat(Some(s)) = next().await {
        stats.push((
            s.path.clone(),
            s.mode,
            if s.kind() == Some(Kind::Dir) { 0 } else { s.size },
            s.linkname.clone(),
        ));
    }
    let expected: [(&'static str, u32, i64, &'static str); 7] = [
        ("a", 0o600, 1, ""),
        ("b", 0x8000_01ed, 0, ""),
        ("b/c", 0o644, 5, ""),
        ("b.txt", 0o644, 0, ""),
        ("big", 0o644, 70_000, ""),
        ("l", 0x0800_01ff, 1, "a"),
        ("z", 0o600, 1, "a"),
    ];
    assert_eq!(stats, expected.map(|(p, m, s, l)| (Bytes::from(p), m, s, Bytes::from(l))));
    for (id, sizes) in [(0, vec![1, 0]), (2, vec![5, 0]), (3, vec![0]), (4, vec![32768, 32768, 4464, 0])] {
        theirs.outgoing.send(Packet::Request(id).encode()).await.unwrap();
        for size in sizes {
            match next().await {
                Packet::Data(got, data) => assert_eq!((got, data.len()), (id, size)),
                other => panic!("{other:?}"),
            }
        }
    }
    theirs.outgoing.send(Packet::Fin.encode()).await.unwrap();
    assert_eq!(next().await, Packet::Fin);
    // The Go caller keeps its side open until ours has ended.
    assert_eq!(sender.await.unwrap().unwrap().files, 4);
    drop(theirs);
}

#[tokio::test]
async fn a_tree_arrives_whole_with_modes_links_and_times() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    recorded(from.path());
    write(from.path(), "deep/er/file", "d");
    set_time(&from.path().join("deep/er/file"), 1_000_000_001);
    set_time(&from.path().join("deep/er"), 1_000_000_000);
    std::fs::set_permissions(from.path().join("b/c"), PermissionsExt::from_mode(0o4755)).unwrap();
    let (sent, received) = transfer(from.path(), to.path(), mirror()).await;
    assert_eq!(listing(from.path()), listing(to.path()));
    let stat = |p: &str| to.path().join(p).symlink_metadata().unwrap();
    assert_eq!((stat("deep/er/file").mtime(), stat("deep/er").mtime()), (1_000_000_001, 1_000_000_000));
    assert_eq!(stat("a").ino(), stat("z").ino());
    assert_eq!((sent.entries, received.entries, received.requested, received.removed), (10, 10, 5, 0));
    assert_eq!(sent.bytes, received.bytes);
}

#[tokio::test]
async fn an_unchanged_tree_is_known_by_its_stats() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    recorded(from.path());
    transfer(from.path(), to.path(), mirror()).await;
    let heard = Arc::new(Heard::default());
    let observed = || ReceiveOptions { observer: Some(heard.clone()), ..mirror() };
    let (_, again) = transfer(from.path(), to.path(), observed()).await;
    assert_eq!((again.requested, again.removed), (0, 0));
    assert!(heard.take().is_empty());

    // Changes of content, type, existence and mode; `z` follows `a`, being the same file.
    write(from.path(), "a", "other");
    std::fs::remove_dir_all(from.path().join("b")).unwrap();
    write(from.path(), "b", "now a file");
    std::fs::remove_file(from.path().join("b.txt")).unwrap();
    write(from.path(), "b.txt/new/file", "1");
    std::fs::set_permissions(from.path().join("big"), PermissionsExt::from_mode(0o755)).unwrap();
    let (_, changed) = transfer(from.path(), to.path(), observed()).await;
    assert_eq!(listing(from.path()), listing(to.path()));
    assert_eq!(changed.requested, 4);
    let names: Vec<_> = heard.take().iter().map(|s| s.split(' ').next().unwrap().to_string()).collect();
    assert_eq!(names, ["a", "b", "b.txt", "b.txt/new", "b.txt/new/file", "big", "z"]);

    std::fs::remove_dir_all(from.path().join("b.txt")).unwrap();
    let (_, removed) = transfer(from.path(), to.path(), observed()).await;
    assert_eq!((removed.requested, removed.removed), (0, 1));
    assert_eq!(heard.take(), ["b.txt gone"]);
    assert_eq!(listing(from.path()), listing(to.path()));

    let always = ReceiveOptions::new(Update::Mirror(Compare::Always), Style::Replace);
    let (_, all) = transfer(from.path(), to.path(), always).await;
    assert_eq!(all.requested, 3);
    assert_eq!(listing(from.path()), listing(to.path()));
}

#[tokio::test]
async fn times_of_directories_are_kept_when_their_content_changes() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(from.path(), "d/old", "1");
    set_time(&from.path().join("d"), 7);
    transfer(from.path(), to.path(), mirror()).await;
    write(from.path(), "d/new", "2");
    std::fs::remove_file(from.path().join("d/old")).unwrap();
    set_time(&from.path().join("d"), 8);
    transfer(from.path(), to.path(), mirror()).await;
    assert_eq!(to.path().join("d").metadata().unwrap().mtime(), 8);
}

#[tokio::test]
async fn a_merge_adds_and_replaces_and_keeps_the_rest() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    recorded(from.path());
    write(to.path(), "keep/me", "1");
    write(to.path(), "b/keep", "2");
    write(to.path(), "a/was/dir", "3");
    write(to.path(), "z", "old");
    symlink("/etc", to.path().join("big")).unwrap();
    transfer(from.path(), to.path(), merge()).await;
    let mut expected = listing(from.path());
    expected.extend([("keep".into(), "dir 755".into()), ("keep/me".into(), "644 1".into())]);
    expected.insert("b/keep".into(), "644 2".into());
    assert_eq!(listing(to.path()), expected);
}

#[tokio::test]
async fn a_planted_link_is_replaced_and_not_followed() {
    let (from, to, outside) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(from.path(), "dir/file", "new");
    write(from.path(), "top", "new");
    write(outside.path(), "canary", "old");
    symlink(outside.path(), to.path().join("dir")).unwrap();
    symlink(outside.path().join("canary"), to.path().join("top")).unwrap();
    for options in [merge(), mirror()] {
        transfer(from.path(), to.path(), options).await;
        assert_eq!(listing(to.path()), listing(from.path()));
        assert_eq!(listing(outside.path()), [("canary".to_string(), "644 old".to_string())].into());
    }
}

#[tokio::test]
async fn directories_that_their_owner_may_not_enter_are_filled_first() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(from.path(), "closed/in/file", "1");
    std::fs::set_permissions(from.path().join("closed/in"), PermissionsExt::from_mode(0o055)).unwrap();
    std::fs::set_permissions(from.path().join("closed"), PermissionsExt::from_mode(0o500)).unwrap();
    transfer(from.path(), to.path(), mirror()).await;
    assert_eq!(listing(from.path()), listing(to.path()));
    for dir in [&from, &to] {
        std::fs::set_permissions(dir.path().join("closed"), PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::set_permissions(dir.path().join("closed/in"), PermissionsExt::from_mode(0o700)).unwrap();
    }
}

#[tokio::test]
async fn names_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let name = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    std::fs::write(from.path().join(name), "1").unwrap();
    symlink(name, from.path().join("l")).unwrap();
    transfer(from.path(), to.path(), mirror()).await;
    assert_eq!(std::fs::read(to.path().join(name)).unwrap(), b"1");
    assert_eq!(std::fs::read_link(to.path().join("l")).unwrap(), name);
}

#[tokio::test]
async fn devices_and_pipes_travel_as_root() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    root(from.path()).mknod("pipe", FileKind::Fifo, 0o644, (0, 0)).unwrap();
    if root(from.path()).mknod("null", FileKind::CharDevice, 0o622, (1, 3)).is_err() {
        eprintln!("skipped: devices cannot be made here");
        return;
    }
    transfer(from.path(), to.path(), mirror()).await;
    assert_eq!(listing(from.path()), listing(to.path()));
    let heard = Arc::new(Heard::default());
    transfer(from.path(), to.path(), ReceiveOptions { observer: Some(heard.clone()), ..mirror() }).await;
    assert!(heard.take().is_empty());
}

#[tokio::test]
async fn owners_are_forced_as_root() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    recorded(from.path());
    std::os::unix::fs::chown(from.path().join("a"), Some(5), Some(6)).unwrap();
    let tree = DirTree::new(Arc::new(root(from.path()))).owned_by_root();
    transfer_tree(Arc::new(tree), to.path(), ReceiveOptions { owner: Some((7, 8)), ..mirror() }).await;
    for path in ["a", "b", "b/c", "l"] {
        let meta = to.path().join(path).symlink_metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (7, 8), "{path}");
    }
}

async fn filtered(from: &Path, request: DirectoryRequest) -> Vec<String> {
    let to = tempfile::tempdir().unwrap();
    let root = Arc::new(root(from));
    let filter = Filter::new(&root, &request).unwrap();
    transfer_tree(Arc::new(DirTree::new(root).filtered(filter)), to.path(), mirror()).await;
    listing(to.path()).into_keys().collect()
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn filters_send_what_is_asked_for_and_the_directories_above_it() {
    let from = tempfile::tempdir().unwrap();
    for path in ["src/a.go", "src/a.txt", "src/sub/b.go", "node/x.js", "node/keep/y.js", "top"] {
        write(from.path(), path, "1");
    }
    symlink("../node/x.js", from.path().join("src/link")).unwrap();
    let include = |list: &[&str]| DirectoryRequest { include: strings(list), ..Default::default() };
    let exclude = |list: &[&str]| DirectoryRequest { exclude: strings(list), ..Default::default() };
    assert_eq!(filtered(from.path(), include(&["src/sub"])).await, ["src", "src/sub", "src/sub/b.go"]);
    assert_eq!(
        filtered(from.path(), include(&["**/*.go"])).await,
        ["src", "src/a.go", "src/sub", "src/sub/b.go"]
    );
    assert_eq!(
        filtered(from.path(), exclude(&["*", "!node/keep"])).await,
        ["node", "node/keep", "node/keep/y.js"]
    );
    assert_eq!(
        filtered(from.path(), exclude(&["src", "**/*.js", "!**/y.js"])).await,
        ["node", "node/keep", "node/keep/y.js", "top"]
    );
    let follow = DirectoryRequest { follow_paths: strings(&["src/link"]), ..Default::default() };
    assert_eq!(filtered(from.path(), follow).await, ["node", "node/x.js", "src", "src/link"]);
}

#[tokio::test]
async fn a_hard_link_whose_first_name_is_filtered_out_becomes_a_file() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(from.path(), "a", "x");
    std::fs::hard_link(from.path().join("a"), from.path().join("b")).unwrap();
    std::fs::hard_link(from.path().join("a"), from.path().join("c")).unwrap();
    let tree =
        DirTree::new(Arc::new(root(from.path()))).filtered(Filter::excluding(&strings(&["a"])).unwrap());
    let (_, received) = transfer_tree(Arc::new(tree), to.path(), mirror()).await;
    assert_eq!((received.entries, received.requested), (2, 1));
    let ino = |p: &str| to.path().join(p).metadata().unwrap().ino();
    assert_eq!(ino("b"), ino("c"));
}

#[tokio::test]
async fn metadata_only_records_all_and_fetches_exceptions() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for path in ["a", "d/want/this", "d/not", "z"] {
        write(from.path(), path, "1");
    }
    let wanted: MetadataOnly = Arc::new(|p: &Path| p == Path::new("d/want/this"));
    let options = ReceiveOptions { metadata_only: Some(wanted), ..mirror() };
    let (_, received) = transfer(from.path(), to.path(), options).await;
    assert_eq!((received.entries, received.requested), (6, 1));
    let mut list = listing(to.path());
    assert!(list.remove(".fsutil-metadata").is_some());
    assert_eq!(list.into_keys().collect::<Vec<_>>(), ["d", "d/want", "d/want/this"]);
    let bytes = std::fs::read(to.path().join(".fsutil-metadata")).unwrap();
    let (mut rest, mut names) = (&bytes[..], vec![]);
    while let Some((len, tail)) = rest.split_first_chunk::<4>() {
        let (stat, tail) = tail.split_at(u32::from_le_bytes(*len) as usize);
        names.push(<Stat as prost::Message>::decode(stat).unwrap().path);
        rest = tail;
    }
    assert_eq!(names, ["a", "d", "d/not", "d/want", "d/want/this", "z"]);
}

#[tokio::test]
async fn joined_and_overlaid_trees_arrive_as_one() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    recorded(from.path());
    let mut extra = MemoryTree::default();
    extra.add("b/sbom.json", 0o600, 5_000_000_000, Bytes::from_static(b"{}"));
    extra.add("prov.json", 0o600, 0, Bytes::from_static(b"[]"));
    let disk: Arc<dyn Tree> = Arc::new(DirTree::new(Arc::new(root(from.path()))));
    let both: Arc<dyn Tree> = Arc::new(OverlaidTree::new(disk, extra.clone()));
    let parts = vec![
        (Stat::dir("linux_b", 0o755), Arc::new(extra.clone()) as Arc<dyn Tree>),
        (Stat::dir("linux_a", 0o755), both),
    ];
    transfer_tree(Arc::new(JoinedTree::side_by_side(parts).unwrap()), to.path(), merge()).await;
    let got = listing(to.path());
    assert_eq!(got["linux_a/b/sbom.json"], "600 {}");
    assert_eq!(got["linux_a/b/c"], "644 hello");
    assert_eq!(got["linux_b/prov.json"], "600 []");
    assert_eq!(got.len(), 1 + 9 + 1 + 3);

    extra.add("a", 0o600, 0, Bytes::new());
    let disk: Arc<dyn Tree> = Arc::new(DirTree::new(Arc::new(root(from.path()))));
    let error = OverlaidTree::new(disk, extra).entries().find_map(Result::err).unwrap();
    assert_eq!(error.to_string(), r#"cannot overwrite "a": the path exists twice in the transfer"#);
}

#[tokio::test]
async fn many_files_arrive() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for i in 0..3000 {
        write(from.path(), &format!("{}/{i}", i % 40), &"c".repeat(i % 500));
    }
    let (_, received) = transfer(from.path(), to.path(), mirror()).await;
    assert_eq!(received.requested, 3000);
    assert_eq!(listing(from.path()), listing(to.path()));
}
