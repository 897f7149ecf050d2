//! The client's side of a session: what it serves to the daemon.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use kiln_proto::containerd::method;
use kiln_proto::control::BytesMessage;
use kiln_proto::control::control_client::ControlClient;
use kiln_proto::filesync::auth_server::{Auth, AuthServer};
use kiln_proto::health::health_server::{Health, HealthServer};
use kiln_proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use kiln_proto::secrets::secrets_server::{Secrets, SecretsServer};
use kiln_proto::ssh::ssh_server::{Ssh, SshServer};
use kiln_proto::upload::upload_server::{Upload, UploadServer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::files::{FileSend, FileSendServer, FileSync, FileSyncServer};
use crate::layout::{LayoutServer, Layouts};
use crate::raw::{FILE_SEND, FILE_SYNC, FORWARD_AGENT, PULL};
use crate::{BytesPipe, HealthPolicy, SessionError, SessionHeaders, connection};

/// The services of one session. Health is always there.
#[derive(Clone)]
pub struct Server {
    routes: Routes,
    methods: BTreeSet<String>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("methods", &self.methods).finish_non_exhaustive()
    }
}

impl Default for Server {
    fn default() -> Self {
        let empty = Self { routes: Routes::default(), methods: BTreeSet::new() };
        empty.with(
            HealthServer::new(Healthy),
            &["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"],
        )
    }
}

impl Server {
    /// Only health.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with<S>(mut self, service: S, methods: &[&str]) -> Self
    where
        S: tower::Service<
                tonic::codegen::http::Request<tonic::body::Body>,
                Response = tonic::codegen::http::Response<tonic::body::Body>,
                Error = std::convert::Infallible,
                Future: Send + 'static,
            > + tonic::server::NamedService
            + Clone
            + Send
            + Sync
            + 'static,
    {
        self.routes = self.routes.add_service(service);
        self.methods.extend(methods.iter().map(ToString::to_string));
        self
    }

    /// Lets the daemon read local directories.
    pub fn file_sync(self, handler: Arc<dyn FileSync>) -> Self {
        self.with(FileSyncServer(handler), &[FILE_SYNC])
    }

    /// Lets the daemon deliver exports.
    pub fn file_send(self, handler: Arc<dyn FileSend>) -> Self {
        self.with(FileSendServer(handler), &[FILE_SEND])
    }

    /// Answers for registries.
    pub fn auth(self, handler: impl Auth) -> Self {
        const METHODS: [&str; 4] = [
            "/moby.filesync.v1.Auth/Credentials",
            "/moby.filesync.v1.Auth/FetchToken",
            "/moby.filesync.v1.Auth/GetTokenAuthority",
            "/moby.filesync.v1.Auth/VerifyTokenAuthority",
        ];
        self.with(AuthServer::new(handler), &METHODS)
    }

    /// Gives secrets.
    pub fn secrets(self, handler: impl Secrets) -> Self {
        self.with(SecretsServer::new(handler), &["/moby.buildkit.secrets.v1.Secrets/GetSecret"])
    }

    /// Forwards ssh agents.
    pub fn ssh(self, handler: impl Ssh) -> Self {
        self.with(SshServer::new(handler), &["/moby.sshforward.v1.SSH/CheckAgent", FORWARD_AGENT])
    }

    /// Lends or fills image layouts.
    pub fn layouts(self, layouts: Arc<Layouts>) -> Self {
        self.with(LayoutServer(layouts), &[method::INFO, method::READ, method::WRITE])
    }

    /// Serves `http://buildkit-session/<id>`.
    pub fn upload(self, handler: impl Upload) -> Self {
        self.with(UploadServer::new(handler), &[PULL])
    }

    /// The headers to open a session of this server with.
    pub fn headers(&self, id: &str, shared_key: &str) -> SessionHeaders {
        SessionHeaders {
            id: id.to_string(),
            name: String::new(),
            shared_key: shared_key.to_string(),
            methods: self.methods.clone(),
            health: HealthPolicy::default(),
        }
    }

    /// Serves over a byte pipe until the peer hangs up. Dropping the future ends the session.
    pub async fn serve<I>(self, io: I) -> Result<(), SessionError>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        connection::serve(io, self.routes)
            .await
            .map_err(|e| SessionError::Closed { call: "session".to_string(), reason: e.to_string() })
    }

    /// Opens a session at the daemon and serves it until either side ends it. Dropping the future ends the session.
    pub async fn run<T>(
        self,
        mut daemon: ControlClient<T>,
        headers: SessionHeaders,
    ) -> Result<(), SessionError>
    where
        T: tonic::client::GrpcService<tonic::body::Body>,
        T::Error: Into<tonic::codegen::StdError>,
        T::ResponseBody: tonic::codegen::Body<Data = Bytes> + Send + 'static,
        <T::ResponseBody as tonic::codegen::Body>::Error: Into<tonic::codegen::StdError> + Send,
    {
        // The pipe has to exist before the answer does, since its receiver is the request.
        let (answer, incoming) = tokio::sync::oneshot::channel();
        let incoming = async move { incoming.await.map_err(std::io::Error::other) };
        let incoming = futures::stream::once(incoming).try_flatten().boxed();
        let (pipe, outgoing) = BytesPipe::new(incoming);
        let mut request =
            Request::new(ReceiverStream::new(outgoing).map(|data| BytesMessage { data: data.into() }));
        *request.metadata_mut() = headers.to_metadata()?;
        let serve = self.serve(pipe);
        let open = async {
            let response =
                daemon.session(request).await.map_err(|e| SessionError::call("open session", e))?;
            let bytes = response.into_inner().map_ok(|m| Bytes::from(m.data)).map_err(std::io::Error::other);
            let _ = answer.send(bytes);
            Ok::<(), SessionError>(())
        };
        tokio::try_join!(open, serve).map(drop)
    }
}

/// A client that answers is healthy.
struct Healthy;

const SERVING: HealthCheckResponse = HealthCheckResponse { status: 1 };

#[tonic::async_trait]
impl Health for Healthy {
    type WatchStream = std::pin::Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(SERVING))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("a session lists no services"))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let once = futures::stream::iter([Ok(SERVING)]).chain(futures::stream::pending());
        Ok(Response::new(Box::pin(once)))
    }
}
