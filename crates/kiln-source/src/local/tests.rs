//! A client over a real session, snapshots in a temporary directory.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use kiln_content::{ContentStore, Db};
use kiln_fs::Root;
use kiln_session::fsutil::{DirTree, Filter, send};
use kiln_session::{DirectoryRequest, FileSync, Lookup, RawStream, Server, SessionManager};
use kiln_snapshot::contenthash::ChecksumOpts;
use kiln_snapshot::{DriverChoice, Snapshot, Snapshots};

use super::*;
use crate::{LogStream, Status};

struct ClientDir(PathBuf);

#[async_trait]
impl FileSync for ClientDir {
    async fn diff_copy(&self, request: DirectoryRequest, stream: RawStream) -> Result<(), tonic::Status> {
        if request.name == "slow" {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        if let Some(kind) = request.name.strip_prefix("hostile-") {
            return hostile(kind, stream).await;
        }
        if !request.name.ends_with("context") {
            return Err(tonic::Status::not_found(format!("no access allowed to dir {:?}", request.name)));
        }
        let root = Arc::new(Root::open(&self.0).unwrap());
        let filter = Filter::new(&root, &request)?;
        send(stream, Arc::new(DirTree::new(root).filtered(filter).owned_by_root())).await?;
        Ok(())
    }
}

/// Announces the file `a` of 10 bytes, sends a part of it when asked, and then misbehaves.
async fn hostile(kind: &str, mut stream: RawStream) -> Result<(), tonic::Status> {
    // Packet { stat: { path: "a", mode: 0644, size: 10 } }, and the end of the walk.
    let stat = Bytes::from_static(&[0x12, 8, 0x0a, 1, b'a', 0x10, 0xa4, 0x03, 0x28, 10]);
    let _ = stream.outgoing.send(stat).await;
    let _ = stream.outgoing.send(Bytes::new()).await;
    let _ = stream.incoming.next().await;
    // Packet { type: DATA, data: "par" }
    let _ = stream.outgoing.send(Bytes::from_static(&[0x08, 2, 0x22, 3, b'p', b'a', b'r'])).await;
    match kind {
        "ends" => Ok(()),
        "fails" => Err(tonic::Status::internal("disk on fire")),
        "huge" => {
            let _ = stream.outgoing.send(vec![0x22; 32 << 20].into()).await;
            std::future::pending().await
        }
        _ => std::future::pending().await,
    }
}

#[derive(Default)]
struct Lines(Mutex<Vec<Status>>);

impl Progress for Lines {
    fn status(&self, status: Status) {
        self.0.lock().unwrap().push(status);
    }

    fn log(&self, _: LogStream, _: &[u8]) {}
}

struct World {
    state: tempfile::TempDir,
    dir: tempfile::TempDir,
    snapshots: Snapshots,
    sessions: SessionManager,
    lines: Arc<Lines>,
}

impl World {
    fn new() -> Self {
        let (state, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let db = Db::open(&state.path().join("db")).unwrap();
        let content = ContentStore::open(state.path(), db.clone()).unwrap();
        let snapshots = Snapshots::open(state.path(), db, content, DriverChoice::Native).unwrap();
        Self { state, dir, snapshots, sessions: SessionManager::new(), lines: Arc::default() }
    }

    /// Connects a client that serves the directory. Aborting the task is its sudden end.
    async fn client(&self, id: &str, serves: bool) -> tokio::task::AbortHandle {
        let mut server = Server::new();
        if serves {
            server = server.file_sync(Arc::new(ClientDir(self.dir.path().to_path_buf())));
        }
        let headers = server.headers(id, "shared");
        let (a, b) = tokio::io::duplex(64 << 10);
        let client = tokio::spawn(server.serve(a)).abort_handle();
        let sessions = self.sessions.clone();
        tokio::spawn(async move { sessions.run(headers, b).await });
        self.sessions.get(id, Lookup::Wait).await.unwrap();
        client
    }

    fn open(&self, name: &str, attrs: &[(&str, &str)], sessions: &[&str]) -> Result<LocalInstance> {
        let attrs = attrs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let op = SourceOp { identifier: format!("local://{name}"), attrs };
        let source = LocalSource::new(self.sessions.clone(), self.snapshots.clone());
        source.open(name, &op, sessions.iter().map(ToString::to_string).collect())
    }

    async fn fetch(&self, attrs: &[(&str, &str)]) -> Result<Snapshot> {
        let cx = SourceContext { progress: self.lines.clone(), ..SourceContext::anonymous() };
        Ok(self.open("context", attrs, &["s1"]).unwrap().snapshot(&cx).await?.unwrap())
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn names(&self, snapshot: &Snapshot) -> Vec<String> {
        let mounted = self.snapshots.mount_view(snapshot).unwrap();
        let list = mounted.root().read_dir("/").unwrap();
        list.iter().map(|e| e.name.to_string_lossy().into_owned()).collect()
    }

    async fn checksum(&self, snapshot: &Snapshot, path: &str) -> String {
        self.snapshots.checksum(Some(snapshot), path, &ChecksumOpts::default()).await.unwrap().to_string()
    }

    /// What a reader of the files alone would compute.
    fn checksum_from_files(&self, snapshot: &Snapshot, path: &str) -> String {
        let mounted = self.snapshots.mount_view(snapshot).unwrap();
        let mut tree = kiln_snapshot::contenthash::HashTree::new();
        let opts = ChecksumOpts::default();
        kiln_snapshot::contenthash::checksum(mounted.root(), &mut tree, path, &opts).unwrap().to_string()
    }

    fn bytes(&self) -> u64 {
        std::mem::take(&mut *self.lines.0.lock().unwrap()).last().unwrap().current
    }
}

#[tokio::test]
async fn a_directory_is_received_hashed_and_then_only_compared() {
    let w = World::new();
    w.client("s1", true).await;
    for i in 0..50 {
        w.write(&format!("d/{i}"), &"x".repeat(i * 10));
    }
    w.write("top", "1");
    std::fs::hard_link(w.dir.path().join("top"), w.dir.path().join("top2")).unwrap();
    std::os::unix::fs::symlink("top", w.dir.path().join("link")).unwrap();
    let first = w.fetch(&[]).await.unwrap();
    assert_eq!(w.names(&first), ["d", "link", "top", "top2"]);
    for path in ["/d", "/top", "/top2", "/link"] {
        assert_eq!(w.checksum(&first, path).await, w.checksum_from_files(&first, path), "{path}");
    }
    let all = w.bytes();
    let sum = w.checksum(&first, "/").await;

    // Unchanged and not in use: the same files serve again, only stats travel.
    drop(first);
    let second = w.fetch(&[]).await.unwrap();
    assert!(w.bytes() < all / 2);
    assert_eq!(w.checksum(&second, "/").await, sum);

    // In use: the version that is held stays as it is.
    w.write("top", "changed");
    std::fs::remove_file(w.dir.path().join("d/0")).unwrap();
    let third = w.fetch(&[]).await.unwrap();
    assert_eq!(w.checksum(&second, "/").await, sum);
    assert_ne!(w.checksum(&third, "/").await, sum);
    assert_eq!(w.checksum(&third, "/d").await, w.checksum_from_files(&third, "/d"));
    assert_eq!(w.checksum(&third, "/top2").await, w.checksum_from_files(&third, "/top2"));
    assert!(w.state.path().exists());
}

#[tokio::test]
async fn progress_counts_the_bytes_and_ends() {
    let w = World::new();
    w.client("s1", true).await;
    w.write("a", "hello");
    w.fetch(&[]).await.unwrap();
    let lines = std::mem::take(&mut *w.lines.0.lock().unwrap());
    assert!(lines.iter().all(|l| l.id == "transferring context:"));
    let last = lines.last().unwrap();
    assert!(lines[0].completed.is_none() && last.completed.is_some() && last.current > 5);
}

#[tokio::test]
async fn filters_reach_the_client() {
    let w = World::new();
    w.client("s1", true).await;
    for name in ["a.go", "b.txt", "c.txt"] {
        w.write(name, "1");
    }
    let names = async |attrs: &[(&str, &str)]| w.names(&w.fetch(attrs).await.unwrap());
    assert_eq!(names(&[("local.includepattern", r#"["*.txt"]"#)]).await, ["b.txt", "c.txt"]);
    assert_eq!(names(&[("local.excludepatterns", r#"["*.txt", "!c.txt"]"#)]).await, ["a.go", "c.txt"]);
    assert_eq!(names(&[("local.followpaths", r#"["b.txt"]"#)]).await, ["b.txt"]);
    let metadata = [("local.metadatatransfer", "true"), ("local.metadatatransferexclude", r#"["*.go"]"#)];
    assert_eq!(names(&metadata).await, [".fsutil-metadata", "a.go"]);
    // The next whole transfer does not start from metadata.
    assert_eq!(names(&[]).await, ["a.go", "b.txt", "c.txt"]);
}

#[tokio::test]
async fn keys_belong_to_the_session() {
    let w = World::new();
    let keys = async |attrs: &[(&str, &str)], sessions: &[&str]| {
        let keys =
            w.open("context", attrs, sessions).unwrap().keys(&SourceContext::anonymous()).await.unwrap();
        assert!(keys.digests()[0].is_random());
        assert_eq!(
            keys.keys[0].rsplit_once(":sha256:").unwrap().1,
            keys.pin.strip_prefix("sha256:").unwrap()
        );
        keys.keys[0].clone()
    };
    let plain = keys(&[("local.session", "s9")], &[]).await;
    assert!(plain.starts_with("session:context:sha256:"), "{plain}");
    assert_eq!(keys(&[("local.unique", "u")], &["s9", "s2"]).await, plain);
    assert_ne!(keys(&[], &["s2"]).await, plain);
    assert_ne!(keys(&[("local.includepattern", "[]")], &["s9"]).await, plain);
    assert_eq!(keys(&[("local.includepattern", "null")], &["s9"]).await, plain);
    assert!(keys(&[("local.session", "pre:s9")], &[]).await.starts_with("session:pre-context:"));
}

#[tokio::test]
async fn another_session_is_asked_when_the_first_has_no_such_directory() {
    let w = World::new();
    w.client("bare", false).await;
    w.client("s1", true).await;
    w.write("a", "1");
    let cx = SourceContext::anonymous();
    let named = w.open("context", &[("local.session", "bare")], &["bare", "s1"]).unwrap();
    assert_eq!(w.names(&named.snapshot(&cx).await.unwrap().unwrap()), ["a"]);
    let error = w.open("other", &[], &["s1"]).unwrap().snapshot(&cx).await.unwrap_err();
    assert_eq!(error.to_string(), r#"local directory other: no access allowed to dir "other""#);
    let error = w.open("context", &[], &["bare"]).unwrap().snapshot(&cx).await.unwrap_err();
    let expected = "local directory context: no local sources enabled: the client offers no directories";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_with_a_reason() {
    let w = World::new();
    let error = |attrs: &[(&str, &str)], sessions: &[&str]| {
        w.open("context", attrs, sessions).unwrap_err().to_string()
    };
    assert_eq!(error(&[], &[]), "local directory context: could not access local files without session");
    assert!(
        error(&[("local.includepattern", "x")], &["s"])
            .starts_with("invalid source local://context: local.includepattern: ")
    );
    assert!(error(&[("local.metadatatransfer", "maybe")], &["s"]).contains("invalid value"));
}

#[tokio::test]
async fn a_transfer_that_nobody_waits_for_stops_and_leaves_nothing() {
    let w = World::new();
    w.client("s1", true).await;
    let slow = w.open("slow", &[], &["s1"]).unwrap();
    let cx = SourceContext::anonymous();
    assert!(tokio::time::timeout(Duration::from_millis(50), slow.snapshot(&cx)).await.is_err());
    let left = |w: &World| std::fs::read_dir(w.state.path().join("snapshots")).unwrap().count();
    let gone = async {
        while left(&w) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("directories are removed");
}

#[tokio::test]
async fn a_client_that_breaks_off_harms_nobody_else() {
    for (kind, expected) in [
        ("ends", "broke off before its end"),
        ("fails", "disk on fire"),
        ("huge", "too large"),
        ("vanishes", ""),
    ] {
        let w = World::new();
        let bad = w.client("bad", true).await;
        w.client("s1", true).await;
        w.write("a", "0123456789");
        let name = format!("hostile-{kind}");
        let cx = SourceContext::anonymous();
        let broken = w.open(&name, &[], &["bad"]).unwrap();
        let fetch = tokio::spawn(async move { broken.snapshot(&cx).await });
        if kind == "vanishes" {
            tokio::time::sleep(Duration::from_millis(50)).await;
            bad.abort();
        }
        let ended = tokio::time::timeout(Duration::from_secs(60), fetch).await.expect(kind);
        let error = ended.unwrap().expect_err(kind).to_string();
        assert!(error.contains(&name) && error.contains(expected), "{kind}: {error}");
        assert!(
            w.snapshots.list(&Default::default()).await.unwrap().is_empty(),
            "{kind}: nothing of it stays"
        );
        let good = w.fetch(&[]).await.unwrap();
        assert_eq!(w.names(&good), ["a"], "{kind}");
    }
}

#[tokio::test]
async fn many_builds_of_the_same_directory_at_once() {
    let w = Arc::new(World::new());
    w.client("s1", true).await;
    for i in 0..20 {
        w.write(&format!("{i}"), "x");
    }
    let builds = (0..6).map(|_| {
        let w = w.clone();
        tokio::spawn(async move {
            let s = w.fetch(&[]).await.unwrap();
            (w.names(&s).len(), w.checksum(&s, "/").await)
        })
    });
    let results: Vec<_> = futures::future::join_all(builds).await.into_iter().map(|r| r.unwrap()).collect();
    assert!(results.iter().all(|r| r == &results[0] && r.0 == 20), "{results:?}");
}

#[test]
fn a_path_may_be_anything() {
    // Names of local directories are not paths here: they only go back to the client and into keys.
    let op = SourceOp { identifier: "local://../../etc".into(), attrs: Default::default() };
    assert_eq!(LocalId::parse("../../etc", &op).unwrap().name, "../../etc");
    assert!(!Path::new("../../etc").is_absolute());
}
