//! `opentelemetry.proto.collector.trace.v1.TraceService`: spans of clients are passed on to the collector of the
//! environment, byte for byte. The daemon makes none of its own.

use bytes::{Buf, BufMut, Bytes};
use futures::future::BoxFuture;
use kiln_proto::MAX_MESSAGE_SIZE;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tower::Service;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// The usual limit of OTEL_EXPORTER_OTLP_TIMEOUT.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where spans go.
#[derive(Clone, Debug)]
pub(crate) struct Collector {
    channel: Channel,
    headers: MetadataMap,
    timeout: Duration,
}

/// The collector that the environment names (OTEL_EXPORTER_OTLP_*), if it is one that can be reached.
pub(crate) fn collector_of_env() -> Option<Collector> {
    match collector(&|name| std::env::var(name).ok().filter(|v| !v.is_empty())) {
        Ok(collector) => collector,
        Err(why) => {
            tracing::warn!("traces are not passed on: {why}");
            None
        }
    }
}

fn collector(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Collector>, String> {
    let of_traces = |what: &str| {
        env(&format!("OTEL_EXPORTER_OTLP_TRACES_{what}"))
            .or_else(|| env(&format!("OTEL_EXPORTER_OTLP_{what}")))
    };
    let endpoint = match (env("OTEL_TRACES_EXPORTER").as_deref(), of_traces("ENDPOINT")) {
        (Some("none"), _) | (None, None) => return Ok(None),
        (Some("otlp") | None, Some(endpoint)) => endpoint,
        (Some("otlp"), None) => "http://localhost:4317".into(),
        (Some(other), _) => return Err(format!("OTEL_TRACES_EXPORTER={other}: only otlp is supported")),
    };
    let protocol = of_traces("PROTOCOL").unwrap_or_else(|| "grpc".into());
    if protocol != "grpc" {
        return Err(format!("OTEL_EXPORTER_OTLP_PROTOCOL={protocol}: only grpc is supported"));
    }
    if !endpoint.starts_with("http://") {
        return Err(format!("OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}: only http:// is supported"));
    }
    let wrong = |e: &dyn std::fmt::Display| format!("OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}: {e}");
    let channel = Endpoint::from_shared(endpoint.clone()).map_err(|e| wrong(&e))?.connect_lazy();
    let timeout = of_traces("TIMEOUT").and_then(|ms| ms.parse().ok()).map_or(TIMEOUT, Duration::from_millis);
    let headers = headers(&of_traces("HEADERS").unwrap_or_default())?;
    Ok(Some(Collector { channel, headers, timeout }))
}

/// `name=value,name=value`
fn headers(text: &str) -> Result<MetadataMap, String> {
    let mut headers = MetadataMap::new();
    for pair in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let wrong = || "OTEL_EXPORTER_OTLP_HEADERS: expected name=value,..".to_string();
        let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
        let key =
            MetadataKey::from_bytes(name.trim().to_ascii_lowercase().as_bytes()).map_err(|_| wrong())?;
        headers.insert(key, MetadataValue::try_from(value.trim()).map_err(|_| wrong())?);
    }
    Ok(headers)
}

impl Collector {
    async fn export(&self, spans: Bytes) -> Result<Bytes, Status> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        let unreachable = |e: &dyn std::fmt::Display| Status::unavailable(format!("trace collector: {e}"));
        let work = async {
            client.ready().await.map_err(|e| unreachable(&e))?;
            let mut request = Request::new(spans);
            *request.metadata_mut() = self.headers.clone();
            let path = http::uri::PathAndQuery::from_static(EXPORT);
            client.unary(request, path, Raw).await.map(Response::into_inner)
        };
        tokio::time::timeout(self.timeout, work).await.map_err(|e| unreachable(&e))?
    }
}

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct TraceService(Arc<Option<Collector>>);

impl TraceService {
    pub(crate) fn new(collector: Option<Collector>) -> Self {
        Self(Arc::new(collector))
    }
}

impl NamedService for TraceService {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl UnaryService<Bytes> for TraceService {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let collector = self.0.clone();
        Box::pin(async move {
            match &*collector {
                Some(collector) => collector.export(request.into_inner()).await.map(Response::new),
                None => Err(Status::unavailable("trace collector not configured")),
            }
        })
    }
}

impl Service<http::Request<Body>> for TraceService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != EXPORT {
                return Ok(Status::unimplemented("unknown method").into_http());
            }
            let mut grpc = tonic::server::Grpc::new(Raw)
                .apply_max_message_size_config(Some(MAX_MESSAGE_SIZE), Some(MAX_MESSAGE_SIZE));
            Ok(grpc.unary(service, request).await)
        })
    }
}

/// Messages as they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buf.remaining();
        Ok(Some(buf.copy_to_bytes(length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vars: &[(&str, &str)]) -> Result<bool, String> {
        let env = |name: &str| vars.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_string());
        collector(&env).map(|c| c.is_some())
    }

    #[tokio::test]
    async fn the_environment_names_the_collector() {
        assert_eq!(of(&[]), Ok(false));
        assert_eq!(of(&[("OTEL_TRACES_EXPORTER", "otlp")]), Ok(true));
        assert_eq!(of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317")]), Ok(true));
        let none = [("OTEL_TRACES_EXPORTER", "none"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317")];
        assert_eq!(of(&none), Ok(false));
        for (name, value) in [
            ("OTEL_TRACES_EXPORTER", "jaeger"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://c:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "novalue"),
        ] {
            let error = of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1"), (name, value)]).unwrap_err();
            assert!(error.contains(value) || name.ends_with("HEADERS"), "{error}");
        }
    }
}
