//! A registry in memory that can be told to misbehave, and what the tests share.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kiln_content::{ContentStore, Db};
use kiln_digest::Digest;
use kiln_oci::{Descriptor, Index, Manifest, Platform, Reference, media_type};
use kiln_registry::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// How long what is sure to come may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub scopes: Vec<String>,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// An answer instead of the right one.
    Answer(Answer),
    /// Closes the connection before answering.
    Close,
    /// Announces the right body and closes after so many bytes.
    CutAt(usize),
    /// Answers slowly.
    Delay(Duration),
    /// Answers when there is a permit.
    Wait(Arc<Semaphore>),
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

struct Rule {
    method: &'static str,
    part: String,
    left: usize,
    fault: Fault,
}

#[derive(Clone, Default, PartialEq)]
pub enum AuthMode {
    #[default]
    None,
    /// Tokens named `token-<n>`; user `u` with password `p`, or refresh token `r`, or anybody if `anonymous`.
    Bearer {
        anonymous: bool,
        get: u16,
        expires: u64,
    },
    Basic,
}

#[derive(Default)]
pub struct State {
    pub blobs: HashMap<(String, String), Vec<u8>>,
    pub manifests: HashMap<(String, String), (String, Vec<u8>)>,
    pub log: Vec<Request>,
    pub auth: AuthMode,
    pub tokens: Vec<(String, String)>,
    pub ignore_ranges: bool,
    /// Status for mounts; 201 if the blob is there.
    pub mount: u16,
    pub upload_to: Option<String>,
    rules: Vec<Rule>,
}

#[derive(Clone)]
pub struct Fake {
    pub host: String,
    pub state: Arc<Mutex<State>>,
    pub in_flight: Arc<AtomicUsize>,
    pub most: Arc<AtomicUsize>,
}

impl Fake {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let fake = Self {
            host,
            state: Arc::new(Mutex::new(State { mount: 201, ..State::default() })),
            in_flight: Arc::default(),
            most: Arc::default(),
        };
        let server = fake.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(server.clone().serve(stream));
            }
        });
        fake
    }

    /// The next `times` requests with this method whose path holds `part` go wrong.
    pub fn fail(&self, method: &'static str, part: &str, times: usize, fault: Fault) {
        self.state.lock().unwrap().rules.push(Rule { method, part: part.to_string(), left: times, fault });
    }

    pub fn set(&self, f: impl FnOnce(&mut State)) {
        f(&mut self.state.lock().unwrap());
    }

    pub fn count(&self, method: &str, part: &str) -> usize {
        self.requests(method, part).len()
    }

    pub fn requests(&self, method: &str, part: &str) -> Vec<Request> {
        let state = self.state.lock().unwrap();
        state.log.iter().filter(|r| r.method == method && r.path.contains(part)).cloned().collect()
    }

    /// Waits until so many blobs have been asked for.
    pub async fn asked_for_blobs(&self, count: usize) {
        let asked = async {
            while self.count("GET", "/blobs/") < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("blobs are asked for");
    }

    pub fn reference(&self, rest: &str) -> Reference {
        Reference::parse_normalized(&format!("{}/{rest}", self.host)).unwrap()
    }

    pub fn put_blob(&self, repo: &str, data: &[u8]) -> Digest {
        let digest = Digest::sha256(data);
        self.set(|s| drop(s.blobs.insert((repo.to_string(), digest.to_string()), data.to_vec())));
        digest
    }

    pub fn put_manifest(&self, repo: &str, tag: &str, media_type: &str, data: &[u8]) -> Descriptor {
        let d = Descriptor::of(media_type, data);
        self.set(|s| {
            for name in [tag.to_string(), d.digest.to_string()] {
                s.manifests.insert((repo.to_string(), name), (media_type.to_string(), data.to_vec()));
            }
        });
        d
    }

    /// An image with an index, one platform and these layers.
    pub fn put_image(&self, repo: &str, tag: &str, layers: &[&[u8]]) -> (Descriptor, Manifest) {
        let layers: Vec<_> = layers
            .iter()
            .map(|l| {
                self.put_blob(repo, l);
                Descriptor::of(media_type::OCI_LAYER_GZIP, l)
            })
            .collect();
        let config = br#"{"architecture":"amd64","os":"linux"}"#;
        self.put_blob(repo, config);
        let manifest =
            Manifest::new(media_type::OCI_MANIFEST, Descriptor::of(media_type::OCI_CONFIG, config), layers);
        let mut d =
            self.put_manifest(repo, "platform", media_type::OCI_MANIFEST, &manifest.to_vec().unwrap());
        d.platform = Some(Platform::new("linux", "amd64"));
        let index = Index::new(media_type::OCI_INDEX, vec![d]);
        (self.put_manifest(repo, tag, media_type::OCI_INDEX, &index.to_vec().unwrap()), manifest)
    }

    async fn serve(self, mut stream: TcpStream) {
        let Some(request) = read_request(&mut stream).await else { return };
        let fault = {
            let mut state = self.state.lock().unwrap();
            state.log.push(request.clone());
            let rule = state
                .rules
                .iter_mut()
                .find(|r| r.left > 0 && r.method == request.method && request.path.contains(&r.part));
            rule.map(|r| {
                r.left -= 1;
                r.fault.clone()
            })
        };
        let is_blob = request.method == "GET" && request.path.contains("/blobs/");
        if is_blob {
            let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
        }
        let mut cut = None;
        let answer = match fault {
            Some(Fault::Close) => return,
            Some(Fault::Answer(answer)) => answer,
            Some(Fault::CutAt(n)) => {
                cut = Some(n);
                self.answer(&request)
            }
            Some(Fault::Delay(d)) => {
                tokio::time::sleep(d).await;
                self.answer(&request)
            }
            Some(Fault::Wait(permits)) => {
                let _permit = permits.acquire().await;
                self.answer(&request)
            }
            None => self.answer(&request),
        };
        write_answer(&mut stream, &request, &answer, cut).await;
        if is_blob {
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn answer(&self, r: &Request) -> Answer {
        let mut s = self.state.lock().unwrap();
        if r.path == "/token" {
            return token(&mut s, r);
        }
        if let Some(challenge) = unauthorized(&s, r, &self.host) {
            return challenge;
        }
        let Some(rest) = r.path.strip_prefix("/v2/") else { return Answer::new(404, "") };
        if let Some((repo, name)) = rest.split_once("/manifests/") {
            return manifest(&mut s, r, repo, name);
        }
        match rest.split_once("/blobs/") {
            Some((repo, upload)) if upload.starts_with("uploads/") => self.upload(&mut s, r, repo, upload),
            Some((repo, digest)) => blob(&s, r, repo, digest),
            None => Answer::new(404, ""),
        }
    }

    fn upload(&self, s: &mut State, r: &Request, repo: &str, upload: &str) -> Answer {
        let location = |s: &State| match &s.upload_to {
            Some(url) => url.clone(),
            None => format!("/v2/{repo}/blobs/uploads/id?state=x"),
        };
        if r.method == "POST" {
            if let (Some(digest), Some(from)) = (r.query.get("mount"), r.query.get("from")) {
                if s.mount != 201 {
                    return Answer::new(s.mount, "").with("Location", location(s));
                }
                if let Some(data) = s.blobs.get(&(from.clone(), digest.clone())).cloned() {
                    s.blobs.insert((repo.to_string(), digest.clone()), data);
                    return Answer::new(201, "");
                }
            }
            return Answer::new(202, "").with("Location", location(s));
        }
        assert!(upload.contains("id"), "{upload}");
        let digest = Digest::sha256(&r.body).to_string();
        if r.query.get("digest") != Some(&digest) {
            return Answer::new(400, r#"{"errors":[{"code":"DIGEST_INVALID","message":"wrong"}]}"#);
        }
        s.blobs.insert((repo.to_string(), digest), r.body.clone());
        Answer::new(201, "")
    }
}

fn manifest(s: &mut State, r: &Request, repo: &str, name: &str) -> Answer {
    let key = (repo.to_string(), name.to_string());
    if r.method == "PUT" {
        let digest = Digest::sha256(&r.body).to_string();
        let entry = (r.header("content-type").to_string(), r.body.clone());
        s.manifests.insert((repo.to_string(), digest.clone()), entry.clone());
        s.manifests.insert(key, entry);
        return Answer::new(201, "").with("Docker-Content-Digest", digest);
    }
    match s.manifests.get(&key) {
        Some((media_type, data)) => Answer::new(200, data.clone())
            .with("Content-Type", media_type)
            .with("Docker-Content-Digest", Digest::sha256(data)),
        None => Answer::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#),
    }
}

fn blob(s: &State, r: &Request, repo: &str, digest: &str) -> Answer {
    let Some(data) = s.blobs.get(&(repo.to_string(), digest.to_string())) else {
        return Answer::new(404, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}"#);
    };
    let range = r.header("range").strip_prefix("bytes=").and_then(|x| x.split_once('-'));
    match range {
        Some((start, end)) if !s.ignore_ranges => {
            let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().expect("a closed range"));
            assert_eq!(end, data.len() - 1);
            Answer::new(206, &data[start..])
                .with("Content-Range", format!("bytes {start}-{end}/{}", data.len()))
        }
        _ => Answer::new(200, data.clone()),
    }
}

fn unauthorized(s: &State, r: &Request, host: &str) -> Option<Answer> {
    let got = r.header("authorization");
    match &s.auth {
        AuthMode::None => None,
        AuthMode::Basic if got == "Basic dTpw" => None,
        AuthMode::Basic => Some(Answer::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\"")),
        AuthMode::Bearer { .. } => {
            let repo = r.path.trim_start_matches("/v2/").split("/manifests/").next().unwrap();
            let repo = repo.split("/blobs/").next().unwrap();
            let actions = if matches!(r.method.as_str(), "GET" | "HEAD") { "pull" } else { "pull,push" };
            let known = s.tokens.iter().find(|(token, _)| got == format!("Bearer {token}"));
            if known.is_some_and(|(_, scopes)| scopes.contains(&format!("repository:{repo}:{actions}"))) {
                return None;
            }
            if known.is_some_and(|(_, scopes)| scopes.contains(&format!("repository:{repo}:pull,push"))) {
                return None;
            }
            let error = if got.is_empty() { "" } else { ",error=\"insufficient_scope\"" };
            let challenge = format!(
                "Bearer realm=\"http://{host}/token\",service=\"fake\",scope=\"repository:{repo}:{actions}\"{error}"
            );
            Some(Answer::new(401, "").with("WWW-Authenticate", challenge))
        }
    }
}

fn token(s: &mut State, r: &Request) -> Answer {
    let AuthMode::Bearer { anonymous, get, expires } = s.auth.clone() else { return Answer::new(404, "") };
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&r.body).into_owned().collect();
    let (granted, scopes) = match r.method.as_str() {
        "GET" if get != 200 => return Answer::new(get, ""),
        "GET" => {
            let auth = r.header("authorization");
            (auth == "Basic dTpw" || (anonymous && auth.is_empty()), r.scopes.join(" "))
        }
        _ => {
            assert_eq!(form["client_id"], "buildkit-client");
            let ok = match form["grant_type"].as_str() {
                "password" => form["username"] == "u" && form["password"] == "p",
                "refresh_token" => form["refresh_token"] == "r",
                _ => false,
            };
            (ok, form["scope"].clone())
        }
    };
    if !granted {
        return Answer::new(401, r#"{"details":"incorrect username or password"}"#);
    }
    let name = format!("token-{}", s.tokens.len());
    s.tokens.push((name.clone(), scopes));
    let key = if r.method == "GET" { "token" } else { "access_token" };
    Answer::new(200, format!(r#"{{"{key}":"{name}","expires_in":{expires}}}"#))
}

async fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
        // A TLS handshake: a plain HTTP server answers what it always answers.
        if head[0] == 0x16 {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            return None;
        }
    }
    let text = String::from_utf8(head).unwrap();
    let mut lines = text.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_string(), first.next()?.to_string());
    let headers: HashMap<String, String> =
        lines.filter_map(|l| l.split_once(": ")).map(|(k, v)| (k.to_lowercase(), v.to_string())).collect();
    let url = url::Url::parse(&format!("http://x{target}")).unwrap();
    let mut body = vec![0; headers.get("content-length").map_or(0, |l| l.parse().unwrap())];
    // A body that breaks off is a failed request.
    stream.read_exact(&mut body).await.ok()?;
    Some(Request {
        method,
        path: url.path().to_string(),
        scopes: url.query_pairs().filter(|(k, _)| k == "scope").map(|(_, v)| v.into_owned()).collect(),
        query: url.query_pairs().into_owned().collect(),
        headers,
        body,
    })
}

async fn write_answer(stream: &mut TcpStream, request: &Request, answer: &Answer, cut: Option<usize>) {
    let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", answer.status);
    if !answer.headers.iter().any(|(k, _)| k == "Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
    }
    for (k, v) in &answer.headers {
        head.push_str(&format!("{k}: {v}\r\n"));
    }
    head.push_str("\r\n");
    let body = if request.method == "HEAD" { &[][..] } else { &answer.body[..] };
    let body = &body[..cut.unwrap_or(usize::MAX).min(body.len())];
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(body).await;
    let _ = stream.shutdown().await;
}

/// Credentials of a test.
#[derive(Default)]
pub struct Creds {
    pub id: String,
    pub login: Option<Login>,
    pub token: Option<Token>,
    pub asked: Mutex<Vec<String>>,
}

impl Creds {
    pub fn password(username: &str, secret: &str) -> Arc<Self> {
        let login = Some(Login::Password { username: username.into(), secret: secret.into() });
        Arc::new(Self { id: username.to_string(), login, ..Self::default() })
    }
}

#[async_trait]
impl Credentials for Creds {
    async fn identity(&self, _: &str) -> String {
        self.id.clone()
    }

    async fn login(&self, host: &str) -> Result<Option<Login>, CredentialsError> {
        self.asked.lock().unwrap().push(host.to_string());
        Ok(self.login.clone())
    }

    async fn fetch_token(&self, _: &TokenRequest) -> Result<Option<Token>, CredentialsError> {
        Ok(self.token.clone())
    }
}

#[derive(Default)]
pub struct Retries(pub Mutex<Vec<String>>);

impl Observer for Retries {
    fn retrying(&self, error: &RegistryError, _: Duration) {
        self.0.lock().unwrap().push(error.to_string());
    }
}

pub fn config() -> RegistryConfig {
    let client = ClientOptions {
        timeouts: Timeouts { connect: PATIENCE, idle: PATIENCE, upload: PATIENCE },
        ..ClientOptions::default()
    };
    let retry = RetryPolicy { first: Duration::from_millis(1), max: Duration::from_millis(4), attempts: 4 };
    RegistryConfig { client, retry, ..RegistryConfig::default() }
}

pub fn registry() -> Registry {
    Registry::new(config()).unwrap()
}

pub struct Store {
    pub store: ContentStore,
    _dir: tempfile::TempDir,
}

pub fn store() -> Store {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&dir.path().join("db")).unwrap();
    Store { store: ContentStore::open(dir.path(), db).unwrap(), _dir: dir }
}

pub fn data(n: usize, seed: u8) -> Vec<u8> {
    (0..n).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3] ^ seed).collect()
}

/// Stores an image of `layers` and returns its root.
pub fn image_in(store: &ContentStore, layers: &[&[u8]]) -> Descriptor {
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    store.put(config).unwrap();
    let layers = layers
        .iter()
        .map(|l| {
            store.put(l).unwrap();
            Descriptor::of(media_type::OCI_LAYER_GZIP, l)
        })
        .collect();
    let manifest =
        Manifest::new(media_type::OCI_MANIFEST, Descriptor::of(media_type::OCI_CONFIG, config), layers);
    let bytes = manifest.to_vec().unwrap();
    store.put(&bytes).unwrap();
    let index = Index::new(media_type::OCI_INDEX, vec![Descriptor::of(media_type::OCI_MANIFEST, &bytes)]);
    let bytes = index.to_vec().unwrap();
    store.put(&bytes).unwrap();
    Descriptor::of(media_type::OCI_INDEX, &bytes)
}
