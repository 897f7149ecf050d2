//! What clients must not send, and clients that are gone: each is answered by name, and nobody else notices.

use super::*;
use kiln_proto::control::BytesMessage;
use std::collections::HashMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::StreamExt;
use tonic::{Code, Request, Status};

/// The daemon still works for somebody else.
async fn still_well(daemon: &Daemon) {
    let mut client = daemon.control().await;
    client.info(control::InfoRequest {}).await.unwrap();
    let id = format!("well-{:?}", std::time::Instant::now()).replace(' ', "");
    client.solve(scratch(&id)).await.unwrap();
}

fn refused<T: std::fmt::Debug>(r: Result<T, Status>, code: Code, text: &str) {
    let status = r.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(text), "{status}");
}

#[tokio::test]
async fn fields_out_of_range() {
    let daemon = Daemon::start().await;
    let mut c = daemon.control().await;
    let bad = Code::InvalidArgument;
    let du = |filter: Vec<String>, age_limit| control::DiskUsageRequest { filter, age_limit };
    refused(c.disk_usage(du(vec![], -1)).await, bad, "ageLimit is negative");
    refused(c.disk_usage(du(vec!["x".repeat(100_000)], 0)).await, bad, "the filter is too large");
    refused(c.disk_usage(du(vec!["id~=(".into()], 0)).await, bad, "invalid filter");
    assert!(c.disk_usage(du(vec![String::new()], i64::MAX)).await.is_ok());
    let prune = control::PruneRequest::default;
    refused(c.prune(control::PruneRequest { keep_duration: i64::MIN, ..prune() }).await, bad, "keepDuration");
    refused(c.prune(control::PruneRequest { reserved_space: -1, ..prune() }).await, bad, "reservedSpace");
    refused(c.prune(control::PruneRequest { max_used_space: -1, ..prune() }).await, bad, "maxUsedSpace");
    refused(c.prune(control::PruneRequest { min_free_space: -1, ..prune() }).await, bad, "minFreeSpace");
    refused(c.status(control::StatusRequest::default()).await, bad, "Status: Ref is missing");
    let long = control::StatusRequest { r#ref: "x".repeat(10_000) };
    refused(c.status(long).await, bad, "longer than");
    let workers = |f: &str| control::ListWorkersRequest { filter: vec![f.into()] };
    refused(c.list_workers(workers("id=x")).await, bad, "invalid filter");
    assert!(c.list_workers(workers("id==nobody")).await.unwrap().into_inner().record.is_empty());
    assert!(c.list_workers(workers("id==nobody,labels.x")).await.unwrap().into_inner().record.is_empty());
    let by_label = workers("labels.\"org.mobyproject.buildkit.worker.executor\"==oci");
    assert_eq!(c.list_workers(by_label).await.unwrap().into_inner().record.len(), 1);
    refused(c.update_build_history(control::UpdateBuildHistoryRequest::default()).await, bad, "Ref");
    let unknown =
        control::UpdateBuildHistoryRequest { r#ref: "nobody".into(), pinned: true, ..Default::default() };
    refused(c.update_build_history(unknown).await, Code::NotFound, "nobody");
    still_well(&daemon).await;
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn builds_that_cannot_be() {
    let daemon = Daemon::start().await;
    let mut c = daemon.control().await;
    let bad = Code::InvalidArgument;
    refused(c.solve(control::SolveRequest::default()).await, bad, "Solve: Ref is missing");
    refused(c.solve(scratch("a\0b")).await, bad, "control characters");
    refused(c.solve(scratch(&"x".repeat(4096))).await, bad, "longer than");
    let definition = |def: Vec<Vec<u8>>| control::SolveRequest {
        definition: Some(pb::Definition { def, ..Default::default() }),
        ..scratch("bad")
    };
    for def in [vec![vec![0xff; 40]], vec![vec![]], vec![vec![8; 3], local_source()]] {
        assert!(c.solve(definition(def)).await.is_err());
    }
    let no_session = definition(vec![local_source()]);
    assert!(c.solve(no_session).await.is_err());
    let exporter = |kind: &str, attrs: &[(&str, &str)]| control::SolveRequest {
        exporters: vec![control::Exporter {
            r#type: kind.into(),
            attrs: attrs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<HashMap<_, _>>(),
        }],
        ..scratch("exporter")
    };
    assert!(c.solve(exporter("no-such-exporter", &[])).await.is_err());
    assert!(c.solve(exporter("image", &[("compression", "rot13")])).await.is_err());
    let frontend = control::SolveRequest {
        r#ref: "frontend".into(),
        frontend: "no-such-frontend".into(),
        ..Default::default()
    };
    assert!(c.solve(frontend).await.unwrap_err().message().contains("no-such-frontend"));
    let entitlement =
        control::SolveRequest { entitlements: vec!["security.insecure".into()], ..scratch("e") };
    refused(c.solve(entitlement).await, Code::Unknown, "not allowed by build daemon configuration");
    still_well(&daemon).await;
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn two_clients_with_one_ref() {
    let daemon = Daemon::start().await;
    let (mut first, mut second) = (daemon.control().await, daemon.control().await);
    let mut other = first.clone();
    let solve = tokio::spawn(async move { other.solve(endless("same")).await });
    let _ = first.status(control::StatusRequest { r#ref: "same".into() }).await.unwrap();
    refused(second.solve(endless("same")).await, Code::AlreadyExists, "same");
    assert!(!solve.is_finished(), "the first one goes on");
    solve.abort();
    daemon.stop().await.unwrap();
}

/// Each of these leaves in the middle; the daemon forgets it.
#[tokio::test]
async fn clients_that_vanish() {
    let daemon = Daemon::with(|o| o.drain_timeout = Some(Duration::from_secs(60))).await;
    // In a build.
    let mut client = daemon.control().await;
    let solve = tokio::spawn(async move { client.solve(endless("gone")).await });
    let mut follower = daemon.control().await;
    let mut progress =
        follower.status(control::StatusRequest { r#ref: "gone".into() }).await.unwrap().into_inner();
    solve.abort();
    let rest = async { while let Ok(Some(_)) = progress.message().await {} };
    tokio::time::timeout(LIMIT, rest).await.expect("the build ends with its client");
    // In a session: with nonsense, and with nothing.
    for message in [None, Some(BytesMessage { data: vec![0xff; 1 << 16] })] {
        let mut client = daemon.control().await;
        let outgoing = tokio_stream::iter(message).chain(tokio_stream::pending());
        let mut request = Request::new(outgoing);
        request.metadata_mut().insert("x-docker-expose-session-uuid", "vanishing".parse().unwrap());
        let session = tokio::time::timeout(Duration::from_millis(200), client.session(request)).await;
        drop(session);
    }
    // Before saying anything, and in the middle of saying hello.
    for bytes in [&b""[..], b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1\r\n\r\n", &[0; 4096]] {
        let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = [0; 64];
        let _ = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut answer)).await;
    }
    // While reading events.
    let mut client = daemon.control().await;
    let events = client.listen_build_history(control::BuildHistoryRequest::default()).await;
    drop((events, client));
    still_well(&daemon).await;
    // Nothing of them is left to wait for.
    daemon.stop().await.unwrap();
}

/// A message that is no message, one that is too large, a method that is not there.
#[tokio::test]
async fn calls_that_are_no_calls() {
    let daemon = Daemon::start().await;
    let channel = daemon.channel().await;
    for method in ["Solve", "Status", "Prune", "DiskUsage", "ListWorkers", "UpdateBuildHistory"] {
        let path = format!("/moby.buildkit.v1.Control/{method}");
        let status = raw(channel.clone(), &path, vec![0xff; 64]).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{method}: {status}");
    }
    let big = raw(channel.clone(), "/moby.buildkit.v1.Control/Solve", vec![0; (16 << 20) + 1]).await;
    assert_eq!(big.unwrap_err().code(), Code::OutOfRange);
    let nowhere = raw(channel.clone(), "/moby.buildkit.v1.Control/Nothing", Vec::new()).await;
    assert_eq!(nowhere.unwrap_err().code(), Code::Unimplemented);
    let nowhere = raw(channel, "/no.such.Service/Nothing", Vec::new()).await;
    assert_eq!(nowhere.unwrap_err().code(), Code::Unimplemented);
    still_well(&daemon).await;
    daemon.stop().await.unwrap();
}

async fn raw(channel: Channel, path: &str, body: Vec<u8>) -> Result<bytes::Bytes, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = path.parse().unwrap();
    client.unary(Request::new(body.into()), path, crate::otlp::Raw).await.map(tonic::Response::into_inner)
}

/// As a client does that builds a hundred targets over one connection.
#[tokio::test]
async fn many_calls_at_a_time() {
    let daemon = Daemon::start().await;
    let mut client = daemon.control().await;
    let mut open = Vec::new();
    for _ in 0..400 {
        let events = client.listen_build_history(control::BuildHistoryRequest::default());
        open.push(tokio::time::timeout(LIMIT, events).await.expect("another call").unwrap());
    }
    client.info(control::InfoRequest {}).await.unwrap();
    still_well(&daemon).await;
    drop(open);
    daemon.stop().await.unwrap();
}
