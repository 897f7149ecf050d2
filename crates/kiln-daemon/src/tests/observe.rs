//! Reflection, traces, numbers.

use super::*;
use kiln_proto::health::health_client::HealthClient;
use kiln_proto::health::{HealthCheckRequest, health_check_response::ServingStatus};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Request;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

async fn reflect(daemon: &Daemon, ask: MessageRequest) -> Result<ServerReflectionResponse, tonic::Status> {
    let mut client = ServerReflectionClient::new(daemon.channel().await);
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let answers = client.server_reflection_info(tokio_stream::once(request)).await?;
    Ok(answers.into_inner().message().await?.unwrap())
}

#[tokio::test]
async fn all_services_are_listed_and_described() {
    let daemon = Daemon::start().await;
    let listed = reflect(&daemon, MessageRequest::ListServices(String::new())).await.unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = listed.message_response else { panic!() };
    let mut names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "containerd.services.content.v1.Content",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "moby.buildkit.v1.Control",
            "moby.buildkit.v1.frontend.LLBBridge",
            "opentelemetry.proto.collector.trace.v1.TraceService",
        ]
    );
    for name in names {
        let found = reflect(&daemon, MessageRequest::FileContainingSymbol(name.clone())).await.unwrap();
        let Some(MessageResponse::FileDescriptorResponse(files)) = found.message_response else { panic!() };
        let file = prost_types::FileDescriptorProto::decode(&files.file_descriptor_proto[0][..]).unwrap();
        assert!(file.service.iter().any(|s| format!("{}.{}", file.package(), s.name()) == name), "{name}");
    }
    let missing = reflect(&daemon, MessageRequest::FileContainingSymbol("no.such.Thing".into())).await;
    assert_eq!(missing.unwrap_err().code(), tonic::Code::NotFound);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn health_is_told() {
    let daemon = Daemon::start().await;
    let mut health = HealthClient::new(daemon.channel().await);
    let answer = health.check(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn traces_need_a_collector() {
    let daemon = Daemon::start().await;
    let mut client = tonic::client::Grpc::new(daemon.channel().await);
    client.ready().await.unwrap();
    let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export".parse().unwrap();
    let answer = client.unary(Request::new(bytes::Bytes::new()), path, crate::otlp::Raw).await.unwrap_err();
    assert_eq!(
        (answer.code(), answer.message()),
        (tonic::Code::Unavailable, "trace collector not configured")
    );
    daemon.stop().await.unwrap();
}

async fn get(daemon: &Daemon, request: &str) -> String {
    let mut stream = UnixStream::connect(daemon.dir.path().join("debug.sock")).await.unwrap();
    stream
        .write_all(format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn numbers_over_http() {
    let daemon = Daemon::with(|o| {
        let socket = o.addr[0].replace("s.sock", "debug.sock");
        o.debug_addr = Some(socket);
    })
    .await;
    daemon.control().await.solve(scratch("a")).await.unwrap();
    let vars = get(&daemon, "GET /debug/vars").await;
    let json: serde_json::Value = serde_json::from_str(vars.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((json["builds_done"].as_u64(), json["builds_running"].as_u64()), (Some(1), Some(0)), "{vars}");
    assert!(get(&daemon, "GET /metrics").await.contains("\nkiln_builds_done_total 1\n"));
    assert!(get(&daemon, "GET /debug/tasks").await.contains("waits in"));
    assert!(get(&daemon, "GET /debug/pprof/heap").await.starts_with("HTTP/1.1 404"));
    assert!(get(&daemon, "POST /debug/vars").await.starts_with("HTTP/1.1 405"));
    let _ = get(&daemon, "nonsense").await;
    assert!(get(&daemon, "GET /").await.contains("/debug/vars"));
    daemon.stop().await.unwrap();
}
