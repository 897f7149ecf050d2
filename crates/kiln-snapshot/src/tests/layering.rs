use kiln_fs::compress::Compression;
use kiln_fs::tar::{EntryKind, Reader};

use super::*;
use crate::{CompressionOpts, Driver};

const BOTH: [DriverChoice; 2] = [DriverChoice::Overlay, DriverChoice::Native];

#[test]
fn layers_stack_and_survive_reopening_root() {
    private(|| {
        for driver in BOTH {
            let store = Store::new(driver);
            let base = store.layer(None, &["etc/", "etc/a = 1", "etc/b = 2", "tmp/", "tmp % 1777"]);
            let top = store.layer(Some(&base), &["etc/a = 3", "- etc/b", "- tmp", "tmp/", "tmp/x = y"]);
            let expected = ["etc/ 755", "etc/a = 3 644", "tmp/ 755", "tmp/x = y 644"];
            assert_eq!(store.listing(&top), expected, "{driver:?}");
            assert_eq!(store.listing(&base).len(), 4);
            let (top_id, base_id) = (top.id().clone(), base.id().clone());
            drop((base, top));
            let store = store.reopen();
            let top = store.get(&top_id).unwrap();
            assert_eq!(store.listing(&top), expected);
            assert!(store.get(&base_id).is_some());
            assert!(store.get(&"0000000000000000000000000".parse().unwrap()).is_none());
            drop(top);
            assert_eq!(store.entries("mounts"), 0, "nothing stays mounted");
        }
    });
}

#[test]
fn what_is_not_committed_leaves_nothing_root() {
    private(|| {
        for driver in BOTH {
            let store = Store::new(driver);
            let base = store.layer(None, &["a = 1"]);
            let active = store.new_active(Some(&base), NewRef::default()).unwrap();
            let id = active.id().clone();
            edit(&active, &["b = 2"]);
            drop(active);
            store.wait_for_entries("snapshots", 1);
            assert!(store.get(&id).is_none());
            // As if the process had died.
            std::mem::forget(store.new_active(Some(&base), NewRef::default()).unwrap());
            assert_eq!(store.entries("snapshots"), 2);
            let store = store.reopen();
            store.wait_for_entries("snapshots", 1);
        }
    });
}

#[test]
fn a_row_without_files_is_dropped_with_its_children_root() {
    private(|| {
        let store = Store::new(DriverChoice::Overlay);
        let base = store.layer(None, &["a = 1"]);
        let top = store.layer(Some(&base), &["b = 1"]);
        let other = store.layer(None, &["c = 1"]);
        let ids = [&base, &top, &other].map(|s| s.id().clone());
        let dir = store.snapshots.0.fs_dir(1);
        drop((base, top, other));
        fs::remove_dir_all(dir.parent().unwrap()).unwrap();
        let store = store.reopen();
        assert_eq!(ids.map(|id| store.contains(&id)), [false, false, true]);
        store.wait_for_entries("snapshots", 1);
    });
}

#[test]
fn a_power_cut_drops_what_was_not_synced_root() {
    private(|| {
        let store = Store::new(DriverChoice::Overlay);
        let safe = store.layer(None, &["a = 1"]).id().clone();
        store.sync().unwrap();
        let lost = store.layer(None, &["b = 1"]).id().clone();
        store.content().db().write(|tx| tx.execute("UPDATE boots SET id = 'before'", [])).unwrap();
        let store = store.reopen();
        assert!(store.contains(&safe) && !store.contains(&lost));
        let store = store.reopen();
        assert!(store.contains(&safe) && !store.contains(&lost));
    });
}

#[test]
fn mounts_for_a_sandbox_are_detached_clones_root() {
    private(|| {
        let store = Store::new(DriverChoice::Overlay);
        let base = store.layer(None, &["dir/", "dir/file = 1", "escape -> ../../../../etc"]);
        let top = store.layer(Some(&base), &["b = 2"]);
        for snapshot in [&base, &top] {
            let view = store.mount_view(snapshot).unwrap();
            let tree = Root::from_fd(view.tree_fd().unwrap());
            let below = Root::from_fd(view.tree_fd_at(Path::new("dir"), false).unwrap());
            assert!(view.tree_fd_at(Path::new("escape"), true).unwrap_err().is_not_found());
            assert!(view.tree_fd_at(Path::new("escape/passwd"), true).unwrap_err().is_not_found());
            drop(view);
            assert_eq!(tree.read("dir/file", 10).unwrap(), b"1");
            assert_eq!(below.read("file", 10).unwrap(), b"1");
            let error = tree.write_file("x", b"x", 0o644).unwrap_err();
            assert_eq!(error.errno(), Some(rustix::io::Errno::ROFS));
        }
        let active = store.new_active(Some(&base), NewRef::default()).unwrap();
        let mounted = active.mount().unwrap();
        let tree = Root::from_fd(mounted.tree_fd().unwrap());
        drop(mounted);
        tree.write_file("x", b"x", 0o644).unwrap();
        drop(tree);
        assert!(store.listing(&active.commit().unwrap()).contains(&"x = x 644".to_string()));
        assert!(listing(store.mount_empty().unwrap().root()).is_empty());
    });
}

#[test]
fn the_root_directory_keeps_its_owner_and_mode_root() {
    private(|| {
        let store = Store::new(DriverChoice::Overlay);
        let base = store.layer(None, &["a = 1", "./ % 700", "./ @ 7"]);
        let top = store.layer(Some(&base), &["b = 1"]);
        let meta = store.mount_view(&top).unwrap().root().metadata("", true).unwrap();
        assert_eq!((meta.mode, meta.uid), (0o700, 7));
    });
}

/// Steps with every kind of change, as (base, change) pairs.
const STEPS: &[&[&str]] = &[
    &[
        "d/",
        "d/a = 1",
        "d/b = 2",
        "d/sub/",
        "d/sub/x = x",
        "d/sub/y = y",
        "e/",
        "e/f = f",
        "l -> d/a",
        "s = s",
        "s % 4755",
        "same = same",
    ],
    &["d/a = 3", "- d/b", "n/", "n/new = new", "n/link => n/new", "l2 -> nowhere"],
    &["- d/sub", "d/sub/", "d/sub/z = z"],
    &["- e", "e = now a file", "- l", "l/", "l/in = in"],
    &["s @ 5", "d % 700"],
    &["same = same"],
];

fn tar_lines(bytes: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(bytes);
    let mut lines = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let what = match entry.kind {
            EntryKind::HardLink => format!("=> {}", entry.link.display()),
            EntryKind::Symlink => format!("-> {}", entry.link.display()),
            _ => entry.size.to_string(),
        };
        let path = entry.path.display();
        lines.push(format!("{path} {what} {:o} {} {}", entry.mode, entry.uid, entry.mtime.secs));
    }
    lines
}

#[test]
fn a_step_becomes_the_archive_of_its_changes_root() {
    private(|| {
        let store = Store::new(DriverChoice::Overlay);
        let mut parent: Option<Snapshot> = None;
        let mut archives = Vec::new();
        for step in STEPS {
            let layer = store.layer(parent.as_ref(), step);
            let mut tar = Vec::new();
            store.write_layer_tar(&layer, &mut tar).unwrap();
            archives.push(tar_lines(&tar));
            parent = Some(layer);
        }
        const T: i64 = 1_500_000_000;
        assert_eq!(
            archives[1],
            [
                format!("d/ 0 755 0 {T}"),
                format!("d/a 1 644 0 {T}"),
                "d/.wh.b 0 0 0 0".to_string(),
                format!("l2 -> nowhere 777 0 {T}"),
                format!("n/ 0 755 0 {T}"),
                format!("n/link 3 644 0 {T}"),
                format!("n/new => n/link 644 0 {T}"),
            ]
        );
        assert_eq!(
            archives[2],
            [
                format!("d/ 0 755 0 {T}"),
                format!("d/sub/ 0 755 0 {T}"),
                "d/sub/.wh.x 0 0 0 0".to_string(),
                "d/sub/.wh.y 0 0 0 0".to_string(),
                format!("d/sub/z 1 644 0 {T}"),
            ]
        );
        assert_eq!(
            archives[3],
            [format!("e 10 644 0 {T}"), format!("l/ 0 755 0 {T}"), format!("l/in 2 644 0 {T}"),]
        );
        assert_eq!(archives[4], [format!("d/ 0 700 0 {T}"), format!("s 1 755 5 {T}")]);
        assert!(archives[5].is_empty(), "the same content and time is no change: {:?}", archives[5]);
    });
}

#[test]
fn both_drivers_make_the_same_layers_root() {
    private_async(|| async {
        let mut diff_ids = Vec::new();
        for driver in BOTH {
            let store = Store::new(driver);
            let mut parent: Option<Snapshot> = None;
            for step in STEPS {
                parent = Some(store.layer(parent.as_ref(), step));
            }
            let blobs = store.layer_blobs(&parent.unwrap(), &CompressionOpts::default()).await.unwrap();
            diff_ids.push(blobs.iter().map(|blob| blob.diff_id).collect::<Vec<_>>());
        }
        assert_eq!(diff_ids[0].len(), STEPS.len());
        assert_eq!(diff_ids[0], diff_ids[1]);
    });
}

#[test]
fn blobs_are_made_once_per_compression_root() {
    private_async(|| async {
        let store = Store::new(DriverChoice::Overlay);
        let base =
            store.layer(None, &["a = aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]);
        let top = store.layer(Some(&base), &["b = 1"]);
        let opts = |kind, force| CompressionOpts { kind, level: None, force };
        let gzip = store.layer_blobs(&top, &CompressionOpts::default()).await.unwrap();
        assert_eq!(gzip.len(), 2);
        assert_eq!(gzip[0].descriptor.media_type, kiln_oci::media_type::OCI_LAYER_GZIP);
        assert_eq!(gzip[0].descriptor.diff_id(), Some(gzip[0].diff_id));
        let again = store.layer_blobs(&top, &opts(Compression::Zstd, false)).await.unwrap();
        assert_eq!(again, gzip, "without force what exists is used");
        let zstd = store.layer_blobs(&top, &opts(Compression::Zstd, true)).await.unwrap();
        let plain = store.layer_blobs(&top, &opts(Compression::Uncompressed, true)).await.unwrap();
        for (i, blob) in plain.iter().enumerate() {
            assert_eq!(blob.descriptor.digest, blob.diff_id);
            assert_eq!((zstd[i].diff_id, gzip[i].diff_id), (blob.diff_id, blob.diff_id));
            let bytes = store.content().read(&blob.diff_id, 1 << 20).unwrap();
            assert_eq!(tar_lines(&bytes).len(), 1);
        }
        assert_eq!(zstd[1].descriptor.media_type, kiln_oci::media_type::OCI_LAYER_ZSTD);
        store.content().gc().unwrap();
        drop((base, top));
        let store = store.reopen();
        assert!(
            store.content().info(&gzip[1].descriptor.digest).unwrap().is_some(),
            "kept with the snapshot"
        );
    });
}

#[test]
fn very_long_chains_can_be_mounted_root() {
    private_async(|| async {
        let store = Store::new(DriverChoice::Overlay);
        let mut last = store.layer(None, &["0 = 0", "gone = x", "d/", "d/keep = k"]);
        for n in 1..450 {
            let line = format!("{n} = {n}");
            let lines: &[&str] = match n {
                100 => &["- gone", "- d", "d/", "d/new = n"],
                _ => &[&line],
            };
            last = store.layer(Some(&last), lines);
        }
        let view = store.mount_view(&last).unwrap();
        assert_eq!(view.root().read_dir("").unwrap().len(), 450);
        assert!(!view.root().exists("gone", false).unwrap());
        assert_eq!(changes_names(view.root(), "d"), ["new"]);
        drop(view);
        let sum = store.checksum(Some(&last), "/", &Default::default()).await.unwrap();
        let mut tar = Vec::new();
        store.write_layer_tar(&last, &mut tar).unwrap();
        assert_eq!(tar_lines(&tar).len(), 1);
        let before = store.entries("snapshots");
        store.mount_view(&last).unwrap();
        assert_eq!(store.entries("snapshots"), before, "collapsed once");
        let id = last.id().clone();
        drop(last);
        let store = store.reopen();
        let last = store.get(&id).unwrap();
        store.mount_view(&last).unwrap();
        assert_eq!(store.entries("snapshots"), before, "and kept");
        assert_eq!(store.checksum(Some(&last), "/", &Default::default()).await.unwrap(), sum);
    });
}

fn changes_names(root: &Root, dir: &str) -> Vec<String> {
    root.read_dir(dir).unwrap().into_iter().map(|e| e.name.into_string().unwrap()).collect()
}

#[test]
fn the_driver_can_be_forced_root() {
    private(|| {
        assert!(matches!(Store::new(DriverChoice::Auto).driver(), Driver::Overlay { .. }));
        let store = Store::new(DriverChoice::Native);
        assert_eq!(store.driver().name(), "native");
        // A tmpfs without extended attributes for `trusted.*`, or any file system that cannot hold an upper directory,
        // would be named; proc is one that is always there.
        let dir = Path::new("/proc/self");
        let error = crate::driver::choose(DriverChoice::Overlay, dir).unwrap_err();
        assert!(error.to_string().contains("/proc/self"), "{error}");
        assert_eq!(crate::driver::choose(DriverChoice::Auto, dir).unwrap(), Driver::Native);
    });
}

#[test]
fn random_layers_survive_the_way_through_blobs_root() {
    private_async(|| async {
        for seed in 0..8 {
            let mut random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
            let stores = [Store::new(DriverChoice::Overlay), Store::new(DriverChoice::Native)];
            let [overlay, native] = random_chain(&stores, &mut random, 4);
            let blobs = stores[0].layer_blobs(&overlay, &CompressionOpts::default()).await.unwrap();
            let same = stores[1].layer_blobs(&native, &CompressionOpts::default()).await.unwrap();
            let ids = |blobs: &[crate::LayerBlob]| blobs.iter().map(|blob| blob.diff_id).collect::<Vec<_>>();
            assert_eq!(ids(&blobs), ids(&same), "seed {seed}");
            for driver in BOTH {
                let other = Store::new(driver);
                let mut layers = Vec::new();
                for blob in &blobs {
                    other
                        .content()
                        .put(&stores[0].content().read(&blob.descriptor.digest, 1 << 20).unwrap())
                        .unwrap();
                    layers.push(crate::LayerDesc {
                        descriptor: blob.descriptor.clone(),
                        diff_id: blob.diff_id,
                    });
                }
                let image = other.image_layers(&layers, &NewRef::default()).unwrap().unwrap();
                other.ensure(&image, &(), &()).await.unwrap();
                assert_eq!(other.listing(&image), stores[0].listing(&overlay), "seed {seed} {driver:?}");
                let sum = |store: &Store, snapshot: &Snapshot| {
                    let (snapshots, snapshot) = (store.snapshots.clone(), snapshot.clone());
                    async move { snapshots.checksum(Some(&snapshot), "/", &Default::default()).await.unwrap() }
                };
                assert_eq!(
                    sum(&other, &image).await,
                    sum(&stores[0], &overlay).await,
                    "seed {seed} {driver:?}"
                );
            }
        }
    });
}
