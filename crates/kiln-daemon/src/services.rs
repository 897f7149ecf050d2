//! The services that a connection finds.

use crate::content::ContentService;
use crate::control::ControlService;
use crate::idle::Activity;
use crate::intake::Intake;
use crate::metrics::Metrics;
use crate::newer::Newer;
use crate::otlp::{self, TraceService};
use crate::reflection;
use kiln_engine::Engine;
use kiln_gateway::{BridgeService, HealthService};
use kiln_proto::health::health_server::HealthServer;
use std::sync::Arc;
use tonic::transport::server::Router;
use tower::layer::util::{Identity, Stack};

/// Window of a stream and of a connection, in bytes: large enough for file transfer inside `Session`, small enough for
/// as many connections as there may be, none of which is read from.
const WINDOW: u32 = 2 << 20;

/// Calls of one connection at a time. A client that builds many targets keeps four or more open for each; BuildKit's
/// daemon has no limit.
const STREAMS: u32 = 8_192;

/// What the services share. Clones are the same.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) engine: Engine,
    pub(crate) activity: Activity,
    pub(crate) metrics: Arc<Metrics>,
    intake: Intake,
}

impl Services {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, activity: Activity::new(), metrics: Arc::default(), intake: Intake::new() }
    }
}

/// Everything that is served, behind what is counted.
pub(crate) type Served = Router<Stack<Intake, Identity>>;

/// Every service of the daemon's listeners.
pub(crate) fn router(services: &Services) -> Served {
    let control = ControlService {
        engine: services.engine.clone(),
        activity: services.activity.clone(),
        metrics: services.metrics.clone(),
    };
    let (reflection, reflection_alpha) = reflection::services();
    tonic::transport::Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(STREAMS)
        .layer(services.intake.clone())
        .add_service(Newer::new(control))
        .add_service(ContentService::new(services.engine.content().clone()))
        .add_service(BridgeService::over(services.engine.clone()).into_server())
        .add_service(TraceService::new(otlp::collector_of_env()))
        .add_service(HealthServer::new(HealthService::until(services.engine.draining())))
        .add_service(reflection)
        .add_service(reflection_alpha)
}
