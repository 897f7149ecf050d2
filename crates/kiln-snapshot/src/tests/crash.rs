//! Kills a process that builds, at random moments, and looks at what is left.

use std::io::Write;

use super::*;
use crate::contenthash::ChecksumOpts;
use crate::{CompressionOpts, SnapshotId};
use kiln_testkit::Crashing;

const DIR: &str = "KILN_SNAPSHOT_CRASH_DIR";

/// The process that is killed: makes chains of layers, blobs and updates, and tells of each snapshot that is finished.
/// Does nothing as a test.
#[test]
fn crash_child_root() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    private_async(move || async move {
        let store = open(Path::new(&dir), DriverChoice::Overlay);
        let tell = |kind: &str, id: &SnapshotId, n: u64| {
            let mut out = std::io::stdout().lock();
            writeln!(out, "done {kind} {id} {n}").unwrap();
            out.flush().unwrap();
        };
        let mut parent: Option<Snapshot> = None;
        for n in 0u64.. {
            let active = store.new_active(parent.as_ref(), NewRef::default()).unwrap();
            edit(&active, &["d = x", "- d", "d/", &format!("d/n = {n}"), &format!("f{n} = {n}")]);
            let layer = active.commit().unwrap();
            tell("layer", layer.id(), n);
            if n % 4 == 0 {
                store.layer_blobs(&layer, &CompressionOpts::default()).await.unwrap();
                let mut update = store.update_keyed("context", NewRef::default()).unwrap();
                edit(&update.active, &[&format!("c{n} = {n}")]);
                update.hashes = Default::default();
                update.commit().unwrap();
                store.checksum(Some(&layer), "/", &ChecksumOpts::default()).await.unwrap();
            }
            parent = (n % 9 != 0).then_some(layer);
        }
    });
}

/// What a line tells of a layer.
fn layer(told: &str) -> Option<(SnapshotId, u64)> {
    let (id, n) = told.strip_prefix("layer ")?.split_once(' ')?;
    Some((id.parse().ok()?, n.parse().ok()?))
}

#[test]
fn after_kill_nine_every_finished_snapshot_is_there_root() {
    private_async(|| async {
        let dir = TempDir::new().unwrap();
        let mut finished = Vec::new();
        let mut child = Crashing::new("tests::crash::crash_child_root", DIR);
        for _ in 0..8 {
            finished.extend(child.run(dir.path()).iter().filter_map(|told| layer(told)));
            let store = open(dir.path(), DriverChoice::Overlay);
            for (id, n) in &finished {
                let snapshot = store.get(id).unwrap_or_else(|| panic!("{id} was finished and is gone"));
                let view = store.mount_view(&snapshot).unwrap();
                assert_eq!(view.root().read("d/n", 99).unwrap(), n.to_string().as_bytes());
                assert_eq!(view.root().read(format!("f{n}"), 99).unwrap(), n.to_string().as_bytes());
                drop(view);
            }
            for record in store.list(&Default::default()).await.unwrap() {
                let snapshot = store.get(&record.id).unwrap();
                store.checksum(Some(&snapshot), "/", &ChecksumOpts::default()).await.unwrap();
                for blob in store.layer_blobs(&snapshot, &CompressionOpts::default()).await.unwrap() {
                    store.content().read(&blob.descriptor.digest, 1 << 20).unwrap();
                }
            }
        }
    });
}
