use std::fs;
use std::io::Read;
use std::path::Path;

use kiln_digest::Digest;
use tempfile::TempDir;

use crate::{ContentError, ContentStore, Db, DbError};

fn open(dir: &Path) -> ContentStore {
    ContentStore::open(dir, Db::open(&dir.join("kiln.db")).unwrap()).unwrap()
}

fn fresh() -> (TempDir, ContentStore) {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    (dir, store)
}

fn blob_file(dir: &TempDir, digest: &Digest) -> std::path::PathBuf {
    dir.path().join("blobs/sha256").join(digest.hex())
}

fn overwrite(path: &Path, data: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, data).unwrap();
}

#[test]
fn a_blob_is_found_again_after_reopening() {
    let (dir, store) = fresh();
    let digest = store.put(b"hello").unwrap();
    assert_eq!(digest, Digest::sha256("hello"));
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.info(&digest).unwrap(), Some(5));
    assert_eq!(store.read(&digest, 5).unwrap(), b"hello");
    assert_eq!(store.list().unwrap().len(), 1);
    assert!(matches!(store.read(&digest, 4), Err(ContentError::TooLarge { size: 5, limit: 4, .. })));
    let missing = Digest::sha256("missing");
    assert_eq!(store.info(&missing).unwrap(), None);
    assert!(store.read(&missing, 1).unwrap_err().is_not_found());
}

#[test]
fn nothing_is_visible_before_commit() {
    let (dir, store) = fresh();
    let digest = Digest::sha256("abc");
    let mut writer = store.writer(Some(digest), None).unwrap();
    writer.write(b"abc").unwrap();
    assert_eq!(store.info(&digest).unwrap(), None);
    assert!(!blob_file(&dir, &digest).exists());
    drop(writer);
    assert_eq!(fs::read_dir(dir.path().join("ingest")).unwrap().count(), 0);
}

#[test]
fn wrong_content_is_refused_and_removed() {
    let (dir, store) = fresh();
    let mut writer = store.writer(Some(Digest::sha256("abc")), Some("key")).unwrap();
    writer.write(b"abd").unwrap();
    let error = writer.commit(Some(3)).unwrap_err();
    assert!(matches!(error, ContentError::DigestMismatch { .. }));
    assert!(error.to_string().contains(&Digest::sha256("abc").to_string()));
    assert_eq!(fs::read_dir(dir.path().join("ingest")).unwrap().count(), 0);
    let mut writer = store.writer(None, None).unwrap();
    writer.write(b"abcd").unwrap();
    assert!(matches!(writer.commit(Some(3)), Err(ContentError::SizeMismatch { expected: 3, found: 4, .. })));
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn a_dropped_write_is_resumed_also_by_another_process() {
    let (dir, store) = fresh();
    let key = "https://example.com/../../v2/blob";
    let digest = Digest::sha256("hello world");
    let mut writer = store.writer(Some(digest), Some(key)).unwrap();
    assert!(matches!(store.writer(None, Some(key)), Err(ContentError::Busy(_))));
    writer.write(b"hello ").unwrap();
    drop(writer);
    drop(store);
    let store = open(dir.path());
    let mut writer = store.writer(Some(digest), Some(key)).unwrap();
    assert_eq!(writer.offset(), 6);
    assert!(matches!(writer.commit(Some(11)), Err(ContentError::SizeMismatch { .. })), "too short stays");
    writer = store.writer(Some(digest), Some(key)).unwrap();
    assert_eq!(writer.offset(), 6);
    writer.write(b"world").unwrap();
    assert_eq!(writer.commit(Some(11)).unwrap(), digest);
    assert_eq!(store.read(&digest, 100).unwrap(), b"hello world");
    let mut writer = store.writer(None, Some(key)).unwrap();
    assert_eq!(writer.offset(), 0);
    writer.write(b"x").unwrap();
    writer.reset().unwrap();
    writer.write(b"y").unwrap();
    assert_eq!(writer.commit(None).unwrap(), Digest::sha256("y"));
}

#[test]
fn damage_is_found_and_the_blob_can_be_written_again() {
    let (dir, store) = fresh();
    let digest = store.put(b"hello").unwrap();
    overwrite(&blob_file(&dir, &digest), b"jello");
    assert!(matches!(store.read(&digest, 10), Err(ContentError::Damaged { .. })));
    assert_eq!(store.info(&digest).unwrap(), None);
    store.put(b"hello").unwrap();
    overwrite(&blob_file(&dir, &digest), b"hell");
    let mut out = Vec::new();
    let error = store.reader(&digest).unwrap().read_to_end(&mut out).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert_eq!(store.info(&digest).unwrap(), None);
    store.put(b"hello").unwrap();
    let mut out = Vec::new();
    store.reader(&digest).unwrap().read_to_end(&mut out).unwrap();
    assert_eq!(out, b"hello");
    fs::remove_file(blob_file(&dir, &digest)).unwrap();
    assert!(store.open_blob(&digest).unwrap_err().is_not_found());
    assert_eq!(store.info(&digest).unwrap(), None, "a row without a file is dropped");
}

#[test]
fn labels_live_with_their_blob() {
    let (_dir, store) = fresh();
    let digest = store.put(b"x").unwrap();
    store.set_label(&digest, "a", Some("1")).unwrap();
    store.set_label(&digest, "b", Some("2")).unwrap();
    store.set_label(&digest, "a", Some("3")).unwrap();
    store.set_label(&digest, "b", None).unwrap();
    assert_eq!(store.labels(&digest).unwrap(), [("a".to_string(), "3".to_string())].into());
    assert!(store.set_label(&Digest::sha256("no"), "a", Some("1")).unwrap_err().is_not_found());
    store.gc().unwrap();
    assert!(store.labels(&digest).unwrap().is_empty());
}

#[test]
fn gc_keeps_what_is_referred_to_or_leased() {
    let (dir, store) = fresh();
    let [kept, leased, gone] = [b"kept".as_slice(), b"leased", b"gone"].map(|data| store.put(data).unwrap());
    store.add_ref("image:a", &kept).unwrap();
    store.add_ref("image:b", &kept).unwrap();
    let lease = store.lease();
    assert!(store.info(&leased).unwrap().is_some());
    let stats = store.gc().unwrap();
    assert_eq!((stats.blobs, stats.bytes), (1, 4));
    assert!(!blob_file(&dir, &gone).exists());
    assert_eq!(store.info(&gone).unwrap(), None);
    let second = store.lease();
    drop(lease);
    assert_eq!(store.gc().unwrap().blobs, 1, "touched before the second lease");
    drop(second);
    store.remove_owner("image:a").unwrap();
    assert_eq!(store.refs("image:b").unwrap(), [kept]);
    assert_eq!(store.gc().unwrap().blobs, 0);
    store.remove_owner("image:b").unwrap();
    assert_eq!(store.gc().unwrap().blobs, 1);
    assert_eq!(fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn gc_removes_files_without_a_row() {
    let (dir, store) = fresh();
    let orphan = Digest::sha256("orphan");
    fs::write(blob_file(&dir, &orphan), b"orphan").unwrap();
    fs::write(dir.path().join("blobs/sha256/junk"), b"junk").unwrap();
    assert_eq!(store.info(&orphan).unwrap(), None);
    let kept = store.put(b"kept").unwrap();
    store.add_ref("o", &kept).unwrap();
    store.gc().unwrap();
    assert_eq!(fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count(), 1);
}

#[test]
fn what_a_power_cut_left_in_doubt_is_dropped() {
    let (dir, store) = fresh();
    let safe = store.put(b"safe").unwrap();
    store.sync().unwrap();
    let doubtful = store.put(b"doubtful").unwrap();
    drop(store.writer(None, Some("partial")).map(|mut w| w.write(b"x")));
    // Another boot.
    store.db().write(|tx| tx.execute("UPDATE boots SET id = 'before'", [])).unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.info(&safe).unwrap(), Some(4));
    assert_eq!(store.info(&doubtful).unwrap(), None);
    assert_eq!(fs::read_dir(dir.path().join("ingest")).unwrap().count(), 0);
    let again = open(dir.path());
    assert_eq!(again.list().unwrap().len(), 1);
}

#[test]
fn a_full_disk_leaves_nothing_and_names_the_blob_root() {
    let dir = TempDir::new().unwrap();
    let target = dir.path().join("full");
    fs::create_dir(&target).unwrap();
    let flags = rustix::thread::UnshareFlags::NEWNS;
    // A mount namespace of this thread's own, so that nothing outside sees the mount.
    let done = std::thread::spawn(move || {
        #[allow(deprecated)]
        if rustix::thread::unshare(flags).is_err() {
            eprintln!("skipped: no permission for a mount namespace");
            return;
        }
        let private =
            rustix::mount::MountPropagationFlags::REC | rustix::mount::MountPropagationFlags::PRIVATE;
        rustix::mount::mount_change("/", private).unwrap();
        let none = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", &target, "tmpfs", none, Some(c"size=1m")).unwrap();
        let db = Db::in_memory().unwrap();
        let store = ContentStore::open(&target, db).unwrap();
        let small = store.put(&[1; 1000]).unwrap();
        let big = Digest::sha256(vec![2; 4 << 20]);
        let mut writer = store.writer(Some(big), Some("resume")).unwrap();
        let error = (0..64).find_map(|_| writer.write(&[2; 64 << 10]).err()).unwrap();
        assert!(error.is_no_space(), "{error}");
        assert_eq!(error.to_string(), format!("write blob {big}: no space left on device"));
        drop(writer);
        assert_eq!(fs::read_dir(target.join("ingest")).unwrap().count(), 0);
        assert_eq!(store.read(&small, 1000).unwrap().len(), 1000);
        store.put(&[3; 1000]).unwrap();
    });
    done.join().unwrap();
}

#[test]
fn migrations_run_once_and_newer_tables_are_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("db");
    let one = ["CREATE TABLE t (x INTEGER);"];
    let two = [one[0], "ALTER TABLE t ADD COLUMN y INTEGER; INSERT INTO t VALUES (1, 2);"];
    let db = Db::open(&path).unwrap();
    db.migrate("room", &one).unwrap();
    db.migrate("room", &two).unwrap();
    db.migrate("room", &two).unwrap();
    db.migrate("other", &["CREATE TABLE other (x INTEGER);"]).unwrap();
    assert_eq!(db.with(|c| c.query_row("SELECT count(*) FROM t", [], |r| r.get::<_, i64>(0))).unwrap(), 1);
    let error = db.migrate("room", &one).unwrap_err();
    assert!(matches!(error, DbError::Newer { found: 2, known: 1, .. }));
    assert!(error.to_string().contains("use a newer kiln"), "{error}");
    let three = [two[0], two[1], "INSERT INTO t VALUES (3, 4); SELECT nonsense;"];
    assert!(matches!(db.migrate("room", &three), Err(DbError::Migrate { version: 3, .. })));
    assert_eq!(db.with(|c| c.query_row("SELECT count(*) FROM t", [], |r| r.get::<_, i64>(0))).unwrap(), 1);
    db.migrate("room", &two).unwrap();
}

#[test]
fn a_failed_write_changes_nothing() {
    let db = Db::in_memory().unwrap();
    db.migrate("room", &["CREATE TABLE t (x INTEGER PRIMARY KEY);"]).unwrap();
    let failed = db.write(|tx| {
        tx.execute("INSERT INTO t VALUES (1)", [])?;
        tx.execute("INSERT INTO t VALUES (1)", [])
    });
    assert!(failed.is_err());
    assert_eq!(db.with(|c| c.query_row("SELECT count(*) FROM t", [], |r| r.get::<_, i64>(0))).unwrap(), 0);
}

#[test]
fn a_file_that_is_no_database_is_named() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("db");
    fs::write(&path, "this is not a database, but it is long enough to be looked at as one".repeat(20))
        .unwrap();
    let error = Db::open(&path).unwrap_err();
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
}
