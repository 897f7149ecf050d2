//! The proxy of one step, from its listener to its record.

use crate::authority::Authority;
use crate::capture::Capture;
use crate::forward::{Outgoing, own};
use crate::policy::Policy;
use crate::record::Record;
use crate::target::Origin;
use crate::{ProxyError, upstream};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections of one step at the same time; more wait.
const CONNECTIONS: usize = if cfg!(test) { 32 } else { 256 };
/// How long a client may take to send the head of a request, also the next one.
const HEAD: Duration = Duration::from_secs(60);
/// Bytes of a head, and of what is read ahead.
const HEAD_SIZE: usize = 64 << 10;
/// After a failure to accept, which passes when descriptors are free again.
const PAUSE: Duration = Duration::from_millis(50);

/// Makes the proxies of steps. Clones are the same.
#[derive(Clone, Default)]
pub struct Proxy(pub(crate) Arc<OnceLock<ClientConfig>>);

/// A place among the connections; held as long as one of its clones.
pub(crate) type Place = Arc<OwnedSemaphorePermit>;

/// What all connections of a step share.
pub(crate) struct Shared {
    pub(crate) authority: Authority,
    pub(crate) client: reqwest::Client,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) capture: Arc<Capture>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The proxy of one step. Dropped, it ends with all its connections.
#[derive(Debug)]
pub struct Serving(Arc<Shared>);

impl Proxy {
    /// Serves the proxy of one step on `listener`; needs a tokio runtime.
    ///
    /// # Errors
    /// If certificates cannot be made, or the listener is none.
    pub fn begin(&self, listener: TcpListener, policy: Arc<dyn Policy>) -> Result<Serving, ProxyError> {
        // Read when the first step wants them: most daemons never do.
        let tls = match self.0.get() {
            Some(tls) => tls,
            None => {
                let tls = upstream::tls()?;
                self.0.get_or_init(|| tls)
            }
        };
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let shared = Arc::new(Shared {
            authority: Authority::new()?,
            client: upstream::client(tls.clone())?,
            policy,
            capture: Arc::new(Capture::new()),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        shared.spawn(accept(Arc::clone(&shared), listener));
        Ok(Serving(shared))
    }
}

impl Serving {
    /// The certificate that programs of the step have to trust, as PEM.
    pub fn ca_pem(&self) -> &str {
        self.0.authority.pem()
    }

    /// Ends all connections and returns what went over them. What is not complete by then is not complete.
    pub async fn finish(self) -> Record {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.capture.take()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.stop.cancel();
    }
}

async fn accept(shared: Arc<Shared>, listener: tokio::net::TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                let serving = Arc::clone(&shared).serve(stream, Origin::Proxy, Arc::new(place));
                shared.spawn(async move {
                    if let Err(error) = serving.await {
                        tracing::debug!(%error, "a connection of a step ends");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept a connection of a step");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Shared {
    /// Runs a task until it or the step ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }

    /// Serves one connection to its end.
    pub(crate) async fn serve<S>(self: Arc<Self>, stream: S, origin: Origin, place: Place) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let answer = service_fn(move |request| {
            let (shared, origin, place) = (Arc::clone(&self), origin.clone(), Arc::clone(&place));
            async move { Ok::<_, Infallible>(shared.answer(request, &origin, &place).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(HEAD_SIZE)
            // As most servers write them: scripts look for them.
            .title_case_headers(true)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), answer)
            .with_upgrades();
        Box::pin(connection).await.map_err(io::Error::other)
    }

    async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        origin: &Origin,
        place: &Place,
    ) -> Outgoing {
        match (request.method(), origin) {
            (&Method::CONNECT, Origin::Proxy) => self.connect(request, place),
            (&Method::CONNECT, Origin::Tunnel { .. }) => own(StatusCode::BAD_REQUEST, "Bad Request"),
            _ => Box::pin(self.forward(request, origin)).await,
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proxy")
    }
}
