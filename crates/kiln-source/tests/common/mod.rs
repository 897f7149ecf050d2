//! A small HTTP server and a daemon's rooms, for tests.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use kiln_content::{ContentStore, Db};
use kiln_digest::Digest;
use kiln_llb::SourceOp;
use kiln_oci::Platform;
use kiln_registry::{Registry, RegistryConfig, RetryPolicy};
use kiln_snapshot::{DriverChoice, Mounted, Snapshot, Snapshots};
use kiln_source::git::GitConfig;
use kiln_source::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_string(), value.to_string()));
        self
    }
}

type Handler = Arc<dyn Fn(&Request) -> Answer + Send + Sync>;

pub struct Server {
    pub host: String,
    pub log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub async fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let log: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (handler, seen): (Handler, _) = (Arc::new(handler), log.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, handler.clone(), seen.clone()));
            }
        });
        Self { host, log }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    pub fn count(&self, method: &str, part: &str) -> usize {
        self.requests().iter().filter(|r| r.method == method && r.target.contains(part)).count()
    }
}

async fn serve(mut stream: TcpStream, handler: Handler, log: Arc<Mutex<Vec<Request>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let text = String::from_utf8(head).unwrap();
    let mut lines = text.lines();
    let mut first = lines.next().unwrap().split(' ');
    let (method, target) = (first.next().unwrap().to_string(), first.next().unwrap().to_string());
    let headers: HashMap<String, String> =
        lines.filter_map(|l| l.split_once(": ")).map(|(k, v)| (k.to_lowercase(), v.to_string())).collect();
    if headers.contains_key("expect") {
        let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
    }
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_some_and(|t| t == "chunked") {
        loop {
            let mut size = String::new();
            while !size.ends_with("\r\n") {
                size.push(stream.read_u8().await.unwrap() as char);
            }
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).await.unwrap();
            body.extend(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    } else {
        body = vec![0; headers.get("content-length").map_or(0, |l| l.parse().unwrap())];
        stream.read_exact(&mut body).await.unwrap();
    }
    let request = Request { method, target, headers, body };
    log.lock().unwrap().push(request.clone());
    let answer = tokio::task::spawn_blocking({
        let request = request.clone();
        move || handler(&request)
    });
    let answer = answer.await.unwrap();
    let mut head = format!(
        "HTTP/1.1 {} x\r\nConnection: close\r\nContent-Length: {}\r\n",
        answer.status,
        answer.body.len()
    );
    for (k, v) in &answer.headers {
        head.push_str(&format!("{k}: {v}\r\n"));
    }
    head.push_str("\r\n");
    let _ = stream.write_all(head.as_bytes()).await;
    if request.method != "HEAD" {
        let _ = stream.write_all(&answer.body).await;
    }
    let _ = stream.shutdown().await;
}

/// What sources work on, in a directory of its own.
pub struct Rooms {
    pub sources: Sources,
    pub snapshots: Snapshots,
    pub registry: Registry,
    pub dir: tempfile::TempDir,
}

pub fn rooms() -> Rooms {
    rooms_with(true)
}

pub fn rooms_with(allow_file: bool) -> Rooms {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&dir.path().join("kiln.db")).unwrap();
    let content = ContentStore::open(&dir.path().join("content"), db.clone()).unwrap();
    let snapshots = Snapshots::open(&dir.path().join("snapshots"), db, content, DriverChoice::Auto).unwrap();
    let retry = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    let registry = Registry::new(RegistryConfig { retry, ..RegistryConfig::default() }).unwrap();
    let scratch = dir.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let git = GitConfig { allow_file, path: std::env::var("PATH").unwrap(), ..GitConfig::default() };
    let config = SourcesConfig { registry: registry.clone(), snapshots: snapshots.clone(), git, scratch };
    Rooms { sources: Sources::new(config).unwrap(), snapshots, registry, dir }
}

impl Rooms {
    pub fn open(&self, identifier: &str, attrs: &[(&str, &str)]) -> Result<Box<dyn SourceInstance>> {
        let attrs: BTreeMap<_, _> = attrs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let op = SourceOp { identifier: identifier.to_string(), attrs };
        self.sources.open_source(&op, &Platform::new("linux", "amd64"))
    }

    pub fn view(&self, snapshot: &Snapshot) -> Mounted {
        self.snapshots.mount_view(snapshot).unwrap()
    }

    /// Whether any file of the state directory holds the text.
    pub fn state_contains(&self, needle: &str) -> Option<std::path::PathBuf> {
        let mut dirs = vec![self.dir.path().to_path_buf()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(&dir).unwrap().flatten() {
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    dirs.push(entry.path());
                } else if kind.is_file() {
                    let data = std::fs::read(entry.path()).unwrap();
                    if data.windows(needle.len()).any(|w| w == needle.as_bytes()) {
                        return Some(entry.path());
                    }
                }
            }
        }
        None
    }
}

/// A client with secrets and uploads.
#[derive(Default)]
pub struct TestClient {
    pub secrets: Vec<(&'static str, &'static str)>,
    pub uploads: Vec<(&'static str, Vec<u8>)>,
    /// What the layout `s` has, by digest; a client may lie.
    pub blobs: HashMap<Digest, Vec<u8>>,
}

#[async_trait]
impl Client for TestClient {
    async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, ClientError> {
        Ok(self.secrets.iter().find(|(n, _)| *n == id).map(|(_, v)| v.as_bytes().to_vec()))
    }

    async fn ssh_agent(&self, id: &str) -> Result<Box<dyn Duplex>, ClientError> {
        NoClient.ssh_agent(id).await
    }

    async fn check_ssh_agent(&self, id: &str) -> Result<(), ClientError> {
        NoClient.check_ssh_agent(id).await
    }

    async fn upload(&self, _: &str, path: &str) -> Result<ByteReader, ClientError> {
        match self.uploads.iter().find(|(p, _)| *p == path) {
            Some((_, data)) => Ok(Box::new(std::io::Cursor::new(data.clone()))),
            None => Err(ClientError(format!("no upload at {path}"))),
        }
    }

    async fn layout_blob(&self, layout: &Layout, digest: &Digest) -> Result<ByteStream, ClientError> {
        match self.blobs.get(digest).filter(|_| layout.store == "s") {
            Some(data) => {
                let pieces: Vec<_> = data.chunks(100).map(|p| Ok(p.to_vec().into())).collect();
                let data = Box::pin(futures::stream::iter(pieces));
                Ok(ByteStream { size: None, data })
            }
            None => Err(ClientError(format!("unknown blob {digest} of {}", layout.store))),
        }
    }
}

/// Everything that people would see.
#[derive(Default)]
pub struct Seen(pub Mutex<Vec<String>>);

impl Progress for Seen {
    fn status(&self, status: Status) {
        self.0.lock().unwrap().push(format!("{status:?}"));
    }

    fn log(&self, _: LogStream, data: &[u8]) {
        self.0.lock().unwrap().push(String::from_utf8_lossy(data).into_owned());
    }
}

pub fn context(client: TestClient) -> (SourceContext, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let cx = SourceContext { client: Arc::new(client), progress: seen.clone(), ..SourceContext::anonymous() };
    (cx, seen)
}
