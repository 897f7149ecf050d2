//! Kills a process that writes, at random moments, and looks at what is left.

use std::io::Write;
use std::path::Path;

use kiln_digest::Digest;
use kiln_testkit::Crashing;
use tempfile::TempDir;

use crate::{ContentStore, Db};

const DIR: &str = "KILN_CONTENT_CRASH_DIR";

fn open(dir: &Path) -> ContentStore {
    ContentStore::open(dir, Db::open(&dir.join("kiln.db")).unwrap()).unwrap()
}

/// The process that is killed: writes blobs and tells of each one that is finished. Does nothing as a test.
#[test]
fn crash_child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let store = open(Path::new(&dir));
    let mut out = std::io::stdout().lock();
    for n in 0u64.. {
        let size = (rand::random::<u32>() % 200_000) as usize;
        let mut data = n.to_le_bytes().repeat(size / 8 + 1);
        data.extend_from_slice(&rand::random::<[u8; 16]>());
        let mut writer = store.writer(Some(Digest::sha256(&data)), Some(&format!("key-{}", n % 7))).unwrap();
        writer.reset().unwrap();
        data.chunks(4096).for_each(|chunk| writer.write(chunk).unwrap());
        let digest = writer.commit(None).unwrap();
        store.add_ref(if n % 3 == 0 { "a" } else { "b" }, &digest).unwrap();
        if n % 5 == 0 {
            store.gc().unwrap();
        }
        writeln!(out, "done {digest}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn after_kill_nine_every_finished_blob_is_there_and_none_is_broken() {
    let dir = TempDir::new().unwrap();
    let mut finished: Vec<Digest> = Vec::new();
    let mut child = Crashing::new("crash_tests::crash_child", DIR);
    for round in 0..12 {
        finished.extend(child.run(dir.path()).iter().map(|told| told.parse::<Digest>().unwrap()));
        let store = open(dir.path());
        for digest in &finished {
            assert!(
                store.info(digest).unwrap().is_some(),
                "round {round}: {digest} was finished and is gone"
            );
        }
        for blob in store.list().unwrap() {
            assert_eq!(store.read(&blob.digest, 1 << 20).unwrap().len() as u64, blob.size);
        }
        let check: String =
            store.db().with(|c| c.query_row("PRAGMA integrity_check", [], |r| r.get(0))).unwrap();
        assert_eq!(check, "ok");
    }
    let store = open(dir.path());
    store.remove_owner("a").unwrap();
    store.remove_owner("b").unwrap();
    store.gc().unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count(), 0);
}
