//! Start, serve, end.

use crate::control::ControlService;
use crate::health::HealthService;
use crate::idle::Activity;
use crate::listen::{self, ListenError, Listener};
use crate::options::{Options, OptionsError, Settings};
use crate::watched::Watched;
use futures::stream::{self, StreamExt};
use kiln_engine::{Engine, EngineError};
use kiln_proto::MAX_MESSAGE_SIZE;
use kiln_proto::control::control_server::ControlServer;
use kiln_proto::health::health_server::HealthServer;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::Router;

/// Windows of a stream and of a connection, in bytes: file transfer inside `Session` needs large ones.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// How long running work may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The flags or the configuration.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// An address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The state directory, the sandbox.
    #[error(transparent)]
    Engine(Box<EngineError>),
    /// What the process may not do.
    #[error("kiln needs privileges that this process does not have: {}; run it as root", .0.join(", "))]
    Privileges(Vec<String>),
    /// Another daemon has the state directory.
    #[error("could not lock {0}, another instance running?")]
    Locked(PathBuf),
    /// A file or a system call.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// The server.
    #[error("serve: {0}")]
    Transport(#[from] tonic::transport::Error),
}

impl From<EngineError> for DaemonError {
    fn from(error: EngineError) -> Self {
        Self::Engine(Box::new(error))
    }
}

/// Runs the daemon until a signal or idleness ends it. Must be called before the process has other threads: the
/// mount namespace is left here.
///
/// # Errors
/// If it cannot start, or its listener breaks.
pub fn run(options: Options) -> Result<(), DaemonError> {
    let settings = Settings::new(options)?;
    init_log(&settings);
    isolate()?;
    let runtime = runtime()?;
    runtime.block_on(serve(settings))
}

/// Leaves the mount namespace of the process that started this one, so that all mounts go when this process goes.
/// Must be called before the process has other threads.
///
/// # Errors
/// If the process lacks the privileges that builds need; the message names them.
pub fn isolate() -> Result<(), DaemonError> {
    let missing = kiln_sys::caps::missing_for_build();
    if !missing.is_empty() {
        return Err(DaemonError::Privileges(missing));
    }
    kiln_sys::mountns::enter_private()
        .map_err(|e| DaemonError::Io("make a mount namespace".into(), std::io::Error::other(e)))
}

fn runtime() -> Result<tokio::runtime::Runtime, DaemonError> {
    let built = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_keep_alive(Duration::from_secs(3))
        .build();
    built.map_err(|e| DaemonError::Io("start the async runtime".into(), e))
}

fn init_log(settings: &Settings) {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| settings.log_level.clone());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A log that is set already is that of the process this runs in.
    let _ = if settings.log_json { builder.json().try_init() } else { builder.with_ansi(false).try_init() };
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
}

async fn serve(settings: Settings) -> Result<(), DaemonError> {
    let (uid, gid) = settings.socket_owner;
    let _lock = lock(&settings.engine.root)?;
    // Bound first: clients that come now wait for the engine instead of being refused.
    let listeners =
        settings.addr.iter().map(|a| listen::listen(a, uid, gid)).collect::<Result<Vec<_>, _>>()?;
    let engine = Engine::open(settings.engine).await?;
    raise_file_limit();
    let activity = Activity::new();
    let router = router(&engine, &activity);
    tracing::info!(addresses = ?settings.addr, "ready");
    let ended = tokio::select! {
        ended = accept(router, listeners) => ended,
        () = stop_signal() => { tracing::info!("stopping"); Ok(()) }
        () = idle(&activity, settings.idle_exit) => { tracing::info!("idle, ending"); Ok(()) }
    };
    if tokio::time::timeout(STOP_LIMIT, engine.close()).await.is_err() {
        tracing::warn!("some work did not stop in time");
    }
    ended
}

/// Many steps and deep trees at once need many descriptors. After the sandbox helper has started: steps keep the limit
/// that the daemon was given.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "raise the limit of open files");
    }
}

fn router(engine: &Engine, activity: &Activity) -> Router {
    let control = ControlService { engine: engine.clone(), activity: activity.clone() };
    tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .add_service(
            ControlServer::new(control)
                .max_decoding_message_size(MAX_MESSAGE_SIZE)
                .max_encoding_message_size(MAX_MESSAGE_SIZE),
        )
        .add_service(HealthServer::new(HealthService))
}

async fn accept(router: Router, listeners: Vec<Listener>) -> Result<(), DaemonError> {
    // The paths stay until the end, the sockets move into the stream.
    let mut paths = Vec::new();
    let mut streams = Vec::new();
    for listener in listeners {
        let (socket, path) = listener.split();
        streams.push(UnixListenerStream::new(socket));
        paths.push(path);
    }
    router.serve_with_incoming(stream::select_all(streams)).await?;
    drop(paths);
    Ok(())
}

async fn idle(activity: &Activity, limit: Option<Duration>) {
    match limit {
        Some(limit) => activity.idle_for(limit).await,
        None => std::future::pending().await,
    }
}

async fn stop_signal() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// Held by the one daemon of a state directory; the kernel lets it go with the process.
fn lock(root: &Path) -> Result<std::fs::File, DaemonError> {
    let io = |what: String| move |e| DaemonError::Io(what, e);
    std::fs::create_dir_all(root).map_err(io(format!("make {}", root.display())))?;
    let path = root.join("kiln.lock");
    let file = std::fs::File::create(&path).map_err(io(format!("open {}", path.display())))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| DaemonError::Locked(path))?;
    Ok(file)
}

/// The daemon inside this process, for CI containers: one client, connected by an in-memory stream.
pub struct InProcess {
    settings: Settings,
}

impl InProcess {
    /// Reads the configuration. [`isolate`] must have been called when the process began.
    ///
    /// # Errors
    /// If the configuration is wrong.
    pub fn new(options: Options) -> Result<Self, DaemonError> {
        Ok(Self { settings: Settings::new(options)? })
    }

    /// Opens the engine and serves `stream` in the background until it ends.
    ///
    /// # Errors
    /// If the state directory cannot be opened or is in use.
    pub async fn start(self, stream: DuplexStream) -> Result<(), DaemonError> {
        let lock = lock(&self.settings.engine.root)?;
        let engine = Engine::open(self.settings.engine).await?;
        let router = router(&engine, &Activity::new());
        let (stream, gone) = Watched::new(stream);
        // Serving would end with the last connection that comes; it must end with this one instead.
        let incoming = stream::once(async { Ok::<_, std::io::Error>(stream) }).chain(stream::pending());
        tokio::spawn(async move {
            if let Err(error) =
                router.serve_with_incoming_shutdown(incoming.boxed(), gone.cancelled_owned()).await
            {
                tracing::warn!(%error, "serve");
            }
            let _ = tokio::time::timeout(STOP_LIMIT, engine.close()).await;
            drop(lock);
        });
        Ok(())
    }
}

impl std::fmt::Debug for InProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InProcess")
    }
}
