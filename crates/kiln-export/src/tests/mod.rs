//! Exports to a client in memory and to a real registry, checked with other people's tools.

mod archives;
mod files;
mod pushes;
mod slow;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use kiln_content::{ContentStore, Db};
use kiln_fs::Root;
use kiln_registry::{Access, Registry, RegistryConfig};
use kiln_session::fsutil::{ReceiveOptions, Style, Update, receive};
use kiln_session::{FileSend, LayoutDir, RawStream, SendTarget, Server, SessionManager};
use kiln_snapshot::{DriverChoice, LayerProvider, NewRef, Snapshot, Snapshots};
use tokio::io::AsyncReadExt;
use tonic::Status;

use crate::*;

/// What the client got: trees below `dir/<exporter>`, archives as `file`.
struct Client {
    dir: PathBuf,
    calls: Arc<Mutex<Vec<SendTarget>>>,
}

/// Exporters from here on get trees of files.
const TREES: usize = 10;
/// The client says that it has this already.
const PRESENT: usize = 5;

#[async_trait]
impl FileSend for Client {
    async fn diff_copy(&self, target: SendTarget, stream: RawStream) -> Result<(), Status> {
        self.calls.lock().unwrap().push(target.clone());
        match target.exporter {
            PRESENT => Err(Status::already_exists("there is one")),
            n if n >= TREES => {
                let dir = self.dir.join(n.to_string());
                std::fs::create_dir_all(&dir)?;
                let root = Root::open(&dir).unwrap();
                receive(stream, root, ReceiveOptions::new(Update::Merge, Style::Replace)).await?;
                Ok(())
            }
            _ => {
                let mut all = Vec::new();
                stream.into_pipe().read_to_end(&mut all).await?;
                std::fs::write(self.dir.join("file"), all)?;
                Ok(())
            }
        }
    }
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Progress for Told {
    fn status(&self, id: &str, _: u64, _: u64, done: bool) {
        if done {
            self.0.lock().unwrap().push(id.to_string());
        }
    }
}

struct World {
    snapshots: Snapshots,
    content: ContentStore,
    records: ImageRecords,
    sessions: SessionManager,
    registry: Registry,
    told: Told,
    calls: Arc<Mutex<Vec<SendTarget>>>,
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let db = Db::open(&state.join("kiln.db")).unwrap();
        let content = ContentStore::open(&state, db.clone()).unwrap();
        let snapshots = Snapshots::open(&state, db.clone(), content.clone(), DriverChoice::Native).unwrap();
        let sessions = SessionManager::new();
        let calls = Arc::default();
        let client = Client { dir: dir.path().to_path_buf(), calls: Arc::clone(&calls) };
        let store = LayoutDir::fill(Root::open(dir.path()).unwrap());
        let server = Server::new().file_send(Arc::new(client));
        let server = server.layouts(Arc::new([("export".into(), store)].into()));
        let world = Self {
            snapshots,
            content,
            records: ImageRecords::open(db).unwrap(),
            sessions,
            registry: Registry::new(RegistryConfig::default()).unwrap(),
            told: Told::default(),
            calls,
            dir,
        };
        world.join(server, "session");
        world
    }

    /// A client with a session of this id.
    fn join(&self, server: Server, id: &str) {
        let headers = server.headers(id, "");
        let (a, b) = tokio::io::duplex(64 << 10);
        tokio::spawn(server.serve(a));
        let manager = self.sessions.clone();
        tokio::spawn(async move { manager.run(headers, b).await });
    }

    /// A layer with files, each `path = text`; a path with a slash at its end is a directory.
    fn layer(&self, parent: Option<&Snapshot>, files: &[(&str, &str)]) -> Snapshot {
        let active =
            self.snapshots.new_active(parent, NewRef::regular(format!("files {}", files.len()))).unwrap();
        let mounted = active.mount().unwrap();
        for (path, text) in files {
            match path.strip_suffix('/') {
                Some(dir) => drop(mounted.root().create_dir_all(dir, 0o755, None, None).unwrap()),
                None => write(mounted.root(), path, text),
            }
        }
        drop(mounted);
        active.commit().unwrap()
    }

    async fn export(&self, kind: &str, attrs: &[(&str, &str)], index: usize, input: &ExportInput) -> Outcome {
        self.export_with(kind, attrs, index, input, &()).await
    }

    async fn export_with(
        &self,
        kind: &str,
        attrs: &[(&str, &str)],
        index: usize,
        input: &ExportInput,
        provider: &dyn LayerProvider,
    ) -> Outcome {
        self.export_to("session", kind, attrs, index, input, provider).await
    }

    async fn export_to(
        &self,
        session: &str,
        kind: &str,
        attrs: &[(&str, &str)],
        index: usize,
        input: &ExportInput,
        provider: &dyn LayerProvider,
    ) -> Outcome {
        let attrs = attrs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let exporter = Exporter::parse(kind, &attrs).unwrap();
        let cx = ExportContext {
            snapshots: &self.snapshots,
            content: &self.content,
            sessions: &self.sessions,
            session,
            registry: &self.registry,
            access: Access::anonymous(),
            provider,
            layers: &(),
            progress: &self.told,
            records: &self.records,
            index,
        };
        export(&exporter, input, &cx).await.map_err(|e| e.to_string())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.told.0.lock().unwrap())
    }
}

type Outcome = Result<BTreeMap<String, String>, String>;

fn write(root: &Root, path: &str, text: &str) {
    use std::os::fd::AsRawFd;
    // Through the directory handle, as the snapshot may be mounted out of sight.
    let at = format!("/proc/self/fd/{}/{path}", root.as_fd().as_raw_fd());
    std::fs::write(at, text).unwrap();
}

fn config(os: &str, architecture: &str) -> String {
    format!(r#"{{"os":"{os}","architecture":"{architecture}","config":{{"Cmd":["sh"]}}}}"#)
}

/// One platform, no map.
fn single(snapshot: Option<Snapshot>) -> ExportInput {
    let config = config("linux", "amd64").into_bytes();
    ExportInput {
        refs: vec![(None, snapshot)],
        metadata: BTreeMap::from([("containerimage.config".into(), config)]),
    }
}

/// A map of two platforms.
fn pair(amd64: Snapshot, arm64: Snapshot) -> ExportInput {
    let platforms = ["amd64", "arm64"]
        .map(|a| format!(r#"{{"ID":"linux/{a}","Platform":{{"os":"linux","architecture":"{a}"}}}}"#));
    let listed = format!(r#"{{"Platforms":[{}]}}"#, platforms.join(","));
    let mut metadata = BTreeMap::from([("refs.platforms".to_string(), listed.into_bytes())]);
    for a in ["amd64", "arm64"] {
        metadata.insert(format!("containerimage.config/linux/{a}"), config("linux", a).into_bytes());
    }
    ExportInput {
        refs: vec![(Some("linux/amd64".into()), Some(amd64)), (Some("linux/arm64".into()), Some(arm64))],
        metadata,
    }
}

/// Entries of an archive.
fn entries(path: &Path) -> BTreeMap<String, Vec<u8>> {
    use std::io::Read;
    let mut tar = kiln_fs::tar::Reader::new(std::fs::File::open(path).unwrap());
    let mut out = BTreeMap::new();
    while let Some(entry) = tar.next_entry().unwrap() {
        let mut data = Vec::new();
        tar.read_to_end(&mut data).unwrap();
        out.insert(entry.path.display().to_string(), data);
    }
    out
}

/// Runs somebody's tool and gives what it prints.
fn tool(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{program} {args:?}: {}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}
