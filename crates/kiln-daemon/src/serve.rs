//! Start, serve.

use crate::idle::Activity;
use crate::listen::{self, Conn, ListenError};
use crate::options::{Options, OptionsError};
use crate::places::Places;
use crate::services::{Served, Services, router};
use crate::settings::Settings;
use crate::stop::{self, STOP_LIMIT, Signals};
use crate::{debug, notify};
use futures::stream::{self, StreamExt};
use kiln_engine::{Engine, EngineError};
use kiln_gateway::Watched;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

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
    /// An ordinary user runs BuildKit's daemon.
    #[error(
        "rootless mode requires to be executed as the mapped root in a user namespace; you may use RootlessKit for \
         setting up the namespace"
    )]
    Rootless,
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
    if options.places == Places::Buildkitd && !rustix::process::geteuid().is_root() {
        return Err(DaemonError::Rootless);
    }
    let settings = Settings::new(options)?;
    init_log(&settings);
    isolate()?;
    let runtime = runtime()?;
    runtime.block_on(async {
        let signals = Signals::of_process().map_err(|e| DaemonError::Io("wait for signals".into(), e))?;
        serve(settings, signals).await
    })
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

/// Serves until a signal or idleness.
///
/// # Errors
/// As [`run`].
pub(crate) async fn serve(settings: Settings, mut signals: Signals) -> Result<(), DaemonError> {
    let _lock = lock(&settings.engine.root)?;
    // Bound first: clients that come now wait for the engine instead of being refused.
    let listeners = listen::listen_all(&settings.addr, settings.tls.as_ref(), settings.socket_owner).await?;
    let debug = match &settings.debug_addr {
        Some(address) => Some(debug::listen(address).await?),
        None => None,
    };
    let engine = Engine::open(settings.engine).await?;
    raise_file_limit();
    let services = Services::new(engine.clone());
    let (incoming, paths) = listen::incoming(listeners);
    let stop = CancellationToken::new();
    let mut server = tokio::spawn(accept(router(&services), incoming, stop.clone()));
    if let Some(debug) = debug {
        tokio::spawn(stop.clone().run_until_cancelled_owned(debug::serve(debug, services.clone())));
    }
    tracing::info!(addresses = ?settings.addr, "ready");
    notify::ready();
    let ended = tokio::select! {
        ended = &mut server => Some(ended),
        () = signals.next() => { stop::drain(&engine, settings.drain, &mut signals).await; None }
        () = idle(&services.activity, settings.idle_exit) => {
            tracing::info!("idle, ending");
            notify::stopping();
            None
        }
    };
    stop.cancel();
    stop::close(&engine, server, ended.is_some(), &mut signals).await;
    drop(paths);
    match ended {
        Some(Ok(ended)) => ended,
        Some(Err(error)) => Err(DaemonError::Io("serve".into(), std::io::Error::other(error))),
        None => Ok(()),
    }
}

async fn accept(
    router: Served,
    incoming: mpsc::Receiver<std::io::Result<Conn>>,
    stop: CancellationToken,
) -> Result<(), DaemonError> {
    let incoming = ReceiverStream::new(incoming);
    Ok(router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await?)
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

async fn idle(activity: &Activity, limit: Option<Duration>) {
    match limit {
        Some(limit) => activity.idle_for(limit).await,
        None => std::future::pending().await,
    }
}

/// Locked in a state directory: kiln's own file, and that of BuildKit, whose daemon may be at work in it.
const LOCKS: [&str; 2] = ["kiln.lock", "buildkitd.lock"];

/// Held by the one daemon of a state directory; the kernel lets it go with the process.
fn lock(root: &Path) -> Result<[std::fs::File; 2], DaemonError> {
    let io = |what: String| move |e| DaemonError::Io(what, e);
    std::fs::create_dir_all(root).map_err(io(format!("make {}", root.display())))?;
    let lock = |name: &str| {
        let path = root.join(name);
        let file = std::fs::File::create(&path).map_err(io(format!("open {}", path.display())))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DaemonError::Locked(path)),
            Err(e) => Err(DaemonError::Io(format!("could not lock {}", path.display()), e.into())),
        }
    };
    let [own, buildkit] = LOCKS;
    Ok([lock(own)?, lock(buildkit)?])
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
        let router = router(&Services::new(engine.clone()));
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
