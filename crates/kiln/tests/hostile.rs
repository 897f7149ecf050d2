//! Clients that lie, break off or send what no client sends: the daemon answers with an error, stays up, and the builds
//! of others end well (CVE-2024-23650, CVE-2026-15792, CVE-2026-33747, GHSA-7236-3392-c5c6, GHSA-32pv-7hq5-qhwq).

mod common;

use common::{World, world};
use kiln_digest::Digest;
use kiln_proto::gateway::llb_bridge_client::LlbBridgeClient;
use kiln_proto::{control, gateway, pb};
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::time::Duration;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Sends and receives messages as bytes.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
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
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        use bytes::BufMut;
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        use bytes::Buf;
        from.advance(from.remaining());
        Ok(Some(()))
    }
}

async fn channel(w: &World) -> Channel {
    let endpoint = Endpoint::try_from(format!("unix://{}", w.env.socket().display())).unwrap();
    endpoint.connect().await.expect("the daemon")
}

/// Calls `method` with `body` and waits a moment for what comes; the answer does not matter.
async fn call(channel: &Channel, method: &'static str, body: Vec<u8>, build: &str) {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("the connection stands");
    let mut request = Request::new(tokio_stream::once(body));
    let _ = request.metadata_mut().insert("buildkit-controlapi-buildid", build.parse().unwrap());
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(method);
    let answer = async {
        if let Ok(answer) = client.streaming(request, path, Raw).await {
            let mut messages = answer.into_inner();
            while let Ok(Some(())) = messages.message().await {}
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(200), answer).await;
}

fn definition(ops: &[pb::Op]) -> pb::Definition {
    pb::Definition { def: ops.iter().map(Message::encode_to_vec).collect(), ..Default::default() }
}

fn digest(op: &pb::Op) -> String {
    Digest::sha256(op.encode_to_vec()).to_string()
}

fn input(op: &pb::Op, index: i64) -> pb::Input {
    pb::Input { digest: digest(op), index }
}

fn image() -> pb::Op {
    let source = pb::SourceOp {
        identifier: "docker-image://docker.io/library/busybox:latest".into(),
        ..Default::default()
    };
    pb::Op { op: Some(pb::op::Op::Source(source)), ..Default::default() }
}

fn mount(dest: &str, input: i64, output: i64) -> pb::Mount {
    pb::Mount { dest: dest.into(), input, output, ..Default::default() }
}

fn cache(sharing: i32) -> pb::Mount {
    pb::Mount {
        mount_type: pb::MountType::Cache.into(),
        cache_opt: Some(pb::CacheOpt { id: "c".into(), sharing }),
        ..mount("/c", -1, -1)
    }
}

fn exec(script: &str) -> pb::ExecOp {
    let args = ["sh", "-c", script].map(String::from).to_vec();
    let meta = pb::Meta { args, cwd: "/".into(), env: vec!["PATH=/bin".into()], ..Default::default() };
    pb::ExecOp { meta: Some(meta), mounts: vec![mount("/", 0, 0)], ..Default::default() }
}

/// A graph of an image, `op` on it, and the result.
fn graph(op: pb::op::Op) -> pb::Definition {
    let base = image();
    let op = pb::Op { inputs: vec![input(&base, 0)], op: Some(op), ..Default::default() };
    let last = pb::Op { inputs: vec![input(&op, 0)], ..Default::default() };
    definition(&[base, op, last])
}

fn solve(id: &str, definition: pb::Definition) -> control::SolveRequest {
    control::SolveRequest { r#ref: id.into(), definition: Some(definition), ..Default::default() }
}

/// What each method takes when all is well.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let frontend = control::SolveRequest {
        r#ref: "mutated".into(),
        frontend: "dockerfile.v0".into(),
        frontend_attrs: HashMap::from([("platform".into(), "linux/amd64".into())]),
        exporters: vec![control::Exporter { r#type: "image".into(), attrs: HashMap::new() }],
        cache: Some(control::CacheOptions::default()),
        ..Default::default()
    };
    let inner = gateway::SolveRequest {
        definition: Some(graph(pb::op::Op::Exec(exec("true")))),
        allow_result_return: true,
        allow_result_array_ref: true,
        evaluate: true,
        ..Default::default()
    };
    let container = gateway::NewContainerRequest {
        container_id: "../../x".into(),
        mounts: vec![mount("/", 0, 0)],
        ..Default::default()
    };
    let returned = gateway::ReturnRequest { result: Some(gateway::Result::default()), ..Default::default() };
    let meta = gateway::ResolveSourceMetaRequest {
        source: Some(pb::SourceOp { identifier: "docker-image://busybox".into(), ..Default::default() }),
        ..Default::default()
    };
    let status = control::StatusRequest { r#ref: "mutated".into() };
    let history =
        control::BuildHistoryRequest { filter: vec!["status==x".into()], limit: 3, ..Default::default() };
    vec![
        ("/moby.buildkit.v1.Control/Solve", frontend.encode_to_vec()),
        (
            "/moby.buildkit.v1.Control/Solve",
            solve("mutated", graph(pb::op::Op::Exec(exec("true")))).encode_to_vec(),
        ),
        ("/moby.buildkit.v1.Control/Status", status.encode_to_vec()),
        ("/moby.buildkit.v1.Control/DiskUsage", control::DiskUsageRequest::default().encode_to_vec()),
        ("/moby.buildkit.v1.Control/ListWorkers", control::ListWorkersRequest::default().encode_to_vec()),
        ("/moby.buildkit.v1.Control/ListenBuildHistory", history.encode_to_vec()),
        (
            "/moby.buildkit.v1.Control/UpdateBuildHistory",
            control::UpdateBuildHistoryRequest { r#ref: "x".into(), finalize: true, ..Default::default() }
                .encode_to_vec(),
        ),
        (
            "/moby.buildkit.v1.Control/Session",
            control::BytesMessage { data: b"PRI * HTTP/2.0".to_vec() }.encode_to_vec(),
        ),
        ("/moby.buildkit.v1.frontend.LLBBridge/Ping", Vec::new()),
        ("/moby.buildkit.v1.frontend.LLBBridge/Solve", inner.encode_to_vec()),
        ("/moby.buildkit.v1.frontend.LLBBridge/ResolveSourceMeta", meta.encode_to_vec()),
        (
            "/moby.buildkit.v1.frontend.LLBBridge/ReadFile",
            gateway::ReadFileRequest {
                file_path: "../../etc/passwd".into(),
                r#ref: "r".into(),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        ("/moby.buildkit.v1.frontend.LLBBridge/NewContainer", container.encode_to_vec()),
        ("/moby.buildkit.v1.frontend.LLBBridge/ExecProcess", gateway::ExecMessage::default().encode_to_vec()),
        ("/moby.buildkit.v1.frontend.LLBBridge/Warn", gateway::WarnRequest::default().encode_to_vec()),
        ("/moby.buildkit.v1.frontend.LLBBridge/Return", returned.encode_to_vec()),
    ]
    .into_iter()
    .chain(more_messages())
    .collect()
}

fn more_messages() -> Vec<(&'static str, Vec<u8>)> {
    let nothing = Vec::new;
    let reference = || "r".to_string();
    let config = gateway::ResolveImageConfigRequest {
        r#ref: "docker.io/library/busybox".into(),
        platform: Some(pb::Platform {
            os: "linux".into(),
            architecture: "amd64".into(),
            ..Default::default()
        }),
        resolve_mode: "default".into(),
        ..Default::default()
    };
    let dir = gateway::ReadDirRequest {
        dir_path: "/".into(),
        include_pattern: "*".into(),
        r#ref: reference(),
        ..Default::default()
    };
    let stat = gateway::StatFileRequest { path: "/x".into(), r#ref: reference(), ..Default::default() };
    let release = gateway::ReleaseContainerRequest { container_id: "../../x".into() };
    let process = gateway::ExecMessage {
        process_id: "p".into(),
        input: Some(gateway::exec_message::Input::Init(gateway::InitMessage {
            container_id: "../../x".into(),
            meta: Some(pb::Meta { args: vec!["true".into()], cwd: "/".into(), ..Default::default() }),
            fds: vec![0, 1, 2],
            tty: true,
            ..Default::default()
        })),
    };
    let prune = control::PruneRequest { filter: vec!["id==nobody".into()], ..Default::default() };
    vec![
        ("/moby.buildkit.v1.Control/Prune", prune.encode_to_vec()),
        ("/moby.buildkit.v1.Control/Info", nothing()),
        ("/moby.buildkit.v1.frontend.LLBBridge/ResolveImageConfig", config.encode_to_vec()),
        ("/moby.buildkit.v1.frontend.LLBBridge/ReadDir", dir.encode_to_vec()),
        ("/moby.buildkit.v1.frontend.LLBBridge/StatFile", stat.encode_to_vec()),
        (
            "/moby.buildkit.v1.frontend.LLBBridge/Evaluate",
            gateway::EvaluateRequest { r#ref: reference() }.encode_to_vec(),
        ),
        ("/moby.buildkit.v1.frontend.LLBBridge/Inputs", nothing()),
        ("/moby.buildkit.v1.frontend.LLBBridge/ExecProcess", process.encode_to_vec()),
        ("/moby.buildkit.v1.frontend.LLBBridge/ReadDirContainer", dir.encode_to_vec()),
        ("/moby.buildkit.v1.frontend.LLBBridge/StatFileContainer", stat.encode_to_vec()),
        ("/moby.buildkit.v1.frontend.LLBBridge/ReleaseContainer", release.encode_to_vec()),
        // A digest, then an offset and a size.
        (
            "/containerd.services.content.v1.Content/Read",
            [&b"\x0a\x0asha256:abc"[..], &[0x10, 1, 0x18, 1]].concat(),
        ),
        ("/containerd.services.content.v1.Content/Info", b"\x0a\x0asha256:abc".to_vec()),
        ("/containerd.services.content.v1.Content/List", b"\x0a\x07size==4".to_vec()),
        ("/containerd.services.content.v1.Content/Write", b"\x08\x01\x12\x01r".to_vec()),
        ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", b"\x0a\x02\x12\x00".to_vec()),
        ("/grpc.health.v1.Health/Watch", b"\x0a\x01x".to_vec()),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", b"\x3a\x01*".to_vec()),
    ]
}

/// A few bytes other than they were.
fn mutate(message: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = message.to_vec();
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..5) {
            0 if at < bytes.len() => bytes[at] = random.random(),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            2 => bytes.truncate(at),
            // The largest, or a negative, number.
            3 => drop(bytes.splice(at..at, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01])),
            _ => bytes.insert(at, random.random()),
        }
    }
    bytes
}

/// The daemon that was started still serves, and a build of somebody else ends well.
fn still_well(w: &World, what: &str) {
    let salt: u64 = rand::random();
    let file = format!("FROM busybox\nRUN echo {salt} > /x\n");
    let out = w.build(&file, &[]);
    let log = || w.daemon.as_ref().map(kiln_testkit::Daemon::log).unwrap_or_default();
    assert!(out.status == 0, "after {what}: {}\n{}", out.stderr, log());
    assert!(!log().contains("panicked"), "after {what}: {}", log());
}

/// Calls of the bridge are about a build that waits for them. Meanwhile somebody else builds.
#[tokio::test(flavor = "multi_thread")]
async fn mutated_messages_of_every_method_root() {
    let Some(w) = world() else { return };
    let channel = channel(&w).await;
    let mut other = control::control_client::ControlClient::new(self::channel(&w).await);
    let slow = graph(pb::op::Op::Exec(exec("for i in 1 2 3 4 5 6 7 8; do sleep 0.5; done; echo fine")));
    let other = tokio::spawn(async move { other.solve(solve("other", slow)).await });
    let mut random = StdRng::seed_from_u64(7);
    for round in 0..8 {
        let build = format!("driven-{round}");
        let mut driver = control::control_client::ControlClient::new(channel.clone());
        let request = control::SolveRequest { r#ref: build.clone(), ..Default::default() };
        let driven = tokio::spawn(async move { driver.solve(request).await });
        let all = messages();
        let (last, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(m, _)| m.ends_with("/Return"));
        let calls = rest.into_iter().map(|(method, message)| {
            let body = if round == 0 { message } else { mutate(&message, &mut random) };
            call(&channel, method, body, &build)
        });
        futures::future::join_all(calls.collect::<Vec<_>>()).await;
        assert!(!driven.is_finished(), "the build that waits for its client");
        for (method, message) in last {
            call(&channel, method, mutate(&message, &mut random), &build).await;
        }
        driven.abort();
    }
    other.await.unwrap().expect("somebody else's build is not hurt");
    still_well(&w, "mutated messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn graphs_that_cannot_be_are_refused_root() {
    let Some(w) = world() else { return };
    let channel = channel(&w).await;
    let mut client = control::control_client::ControlClient::new(channel);
    for (what, graph) in impossible_graphs() {
        let answer = client.solve(solve(what, graph)).await;
        assert!(answer.is_err(), "{what} was built");
    }
    still_well(&w, "impossible graphs");
}

fn impossible_graphs() -> Vec<(&'static str, pb::Definition)> {
    use pb::op::Op;
    let base = image();
    let end = |index| pb::Op { inputs: vec![input(&base, index)], ..Default::default() };
    let exec_with = |change: &dyn Fn(&mut pb::ExecOp)| {
        let mut op = exec("true");
        change(&mut op);
        graph(Op::Exec(op))
    };
    let file = |action| graph(Op::File(pb::FileOp { actions: vec![action] }));
    let rm = |path: &str| pb::FileAction {
        input: 0,
        secondary_input: -1,
        output: 0,
        action: Some(pb::file_action::Action::Rm(pb::FileActionRm {
            path: path.into(),
            ..Default::default()
        })),
    };
    vec![
        ("negative input index", definition(&[base.clone(), end(-1)])),
        ("input index out of range", definition(&[base.clone(), end(9)])),
        ("largest input index", definition(&[base.clone(), end(i64::MAX)])),
        ("missing input", definition(&[end(0)])),
        ("garbage", pb::Definition { def: vec![vec![0xff; 40]], ..Default::default() }),
        ("last op without inputs", definition(&[base.clone(), pb::Op::default()])),
        ("unknown network mode", exec_with(&|e| e.network = 17)),
        ("unknown security mode", exec_with(&|e| e.security = 17)),
        ("negative security mode", exec_with(&|e| e.security = -1)),
        (
            "unknown mount type",
            exec_with(&|e| e.mounts.push(pb::Mount { mount_type: 99, ..mount("/m", 0, -1) })),
        ),
        ("unknown sharing of a cache", exec_with(&|e| e.mounts.push(cache(7)))),
        ("negative sharing of a cache", exec_with(&|e| e.mounts.push(cache(-1)))),
        (
            "unknown content cache mode",
            exec_with(&|e| e.mounts.push(pb::Mount { content_cache: 9, ..mount("/m", 0, -1) })),
        ),
        ("mount of no input", exec_with(&|e| e.mounts.push(mount("/m", 5, -1)))),
        ("mount of a negative input", exec_with(&|e| e.mounts.push(mount("/m", -7, -1)))),
        ("output out of range", exec_with(&|e| e.mounts = vec![mount("/", 0, 40)])),
        ("no mounts", exec_with(&|e| e.mounts.clear())),
        ("no arguments", exec_with(&|e| e.meta = None)),
        ("insecure without leave", exec_with(&|e| e.security = pb::SecurityMode::Insecure.into())),
        ("host network without leave", exec_with(&|e| e.network = pb::NetMode::Host.into())),
        ("removal above the root", file(rm("/../.."))),
        ("action on a negative input", file(pb::FileAction { input: -4, ..rm("/x") })),
        ("action without a kind", file(pb::FileAction { action: None, ..rm("/x") })),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_are_paths_stay_ids_root() {
    let Some(w) = world() else { return };
    let channel = channel(&w).await;
    let long = "x".repeat(4000);
    for id in ["../../escape", "/escape", "a/b", "..", "\u{1}", long.as_str()] {
        let mut client = control::control_client::ControlClient::new(channel.clone());
        let _ = client.solve(solve(id, graph(pb::op::Op::Exec(exec("true"))))).await;
        let mut op = exec("true");
        op.mounts.push(pb::Mount {
            mount_type: pb::MountType::Cache.into(),
            cache_opt: Some(pb::CacheOpt { id: id.into(), sharing: 0 }),
            ..mount("/cache", -1, -1)
        });
        let _ = client.solve(solve("cache-id", graph(pb::op::Op::Exec(op)))).await;
    }
    let escaped = walk(w.env.path()).into_iter().filter(|p| p.contains("escape")).collect::<Vec<_>>();
    assert!(escaped.is_empty(), "{escaped:?}");
    still_well(&w, "ids that are paths");
}

fn walk(dir: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        found.push(path.display().to_string());
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            found.extend(walk(&path));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ref_has_one_owner_root() {
    let Some(w) = world() else { return };
    let channel = channel(&w).await;
    let mut first = control::control_client::ControlClient::new(channel.clone());
    let mut second = first.clone();
    // It ends when another build has left a file in the cache that both mount.
    let step = |script: &str| {
        let mut op = exec(script);
        op.mounts.push(cache(0));
        graph(pb::op::Op::Exec(op))
    };
    let waiting = step("until test -e /c/go; do sleep 0.05; done");
    let slow = tokio::spawn(async move { first.solve(solve("shared", waiting)).await });
    let status = second.status(control::StatusRequest { r#ref: "shared".into() }).await;
    assert!(status.unwrap().into_inner().message().await.unwrap().is_some(), "it has begun");
    let taken = second.solve(solve("shared", step("echo two"))).await;
    assert!(taken.unwrap_err().message().contains("shared exists"));
    second.solve(solve("another", step("touch /c/go"))).await.expect("another build");
    slow.await.unwrap().expect("the first owner's build is not hurt");
}

#[tokio::test(flavor = "multi_thread")]
async fn bridges_belong_to_their_build_root() {
    let Some(w) = world() else { return };
    let channel = channel(&w).await;
    let mut bridge = LlbBridgeClient::new(channel.clone());
    let nobody = bridge.ping(gateway::PingRequest {}).await.unwrap_err();
    assert!(nobody.message().contains("no buildid found in context"), "{nobody:?}");

    let client_driven = |id: &str| control::SolveRequest { r#ref: id.into(), ..Default::default() };
    let with = |id: &str, mut request: Request<gateway::ReadFileRequest>| {
        let _ = request.metadata_mut().insert("buildkit-controlapi-buildid", id.parse().unwrap());
        request
    };
    let mut running = Vec::new();
    for id in ["mine", "other"] {
        let mut client = control::control_client::ControlClient::new(channel.clone());
        let request = client_driven(id);
        running.push(tokio::spawn(async move { client.solve(request).await }));
    }
    let mut solved = Request::new(gateway::SolveRequest {
        definition: Some(graph(pb::op::Op::Exec(exec("echo secret > /f")))),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..Default::default()
    });
    let _ = solved.metadata_mut().insert("buildkit-controlapi-buildid", "mine".parse().unwrap());
    let answer = bridge.solve(solved).await.expect("a graph").into_inner();
    let Some(gateway::result::Result::Ref(found)) = answer.result.and_then(|r| r.result) else {
        panic!("a ref was asked for");
    };
    let read = |r: &str| {
        Request::new(gateway::ReadFileRequest {
            file_path: "/f".into(),
            r#ref: r.into(),
            ..Default::default()
        })
    };
    let mine = bridge.read_file(with("mine", read(&found.id))).await.expect("one's own ref");
    assert_eq!(mine.into_inner().data, b"secret\n");
    assert!(bridge.read_file(with("other", read(&found.id))).await.is_err(), "another build's ref");
    assert!(bridge.read_file(with("mine", read("../../kiln.db"))).await.is_err());
    assert!(bridge.read_file(with("nobody", read(&found.id))).await.is_err());
    running.iter().for_each(tokio::task::JoinHandle::abort);
    still_well(&w, "clients that left their bridges");
}

#[test]
fn clients_that_vanish_root() {
    let Some(w) = world() else { return };
    for n in 0..12 {
        w.context("Dockerfile", format!("FROM busybox\nRUN echo {n}; sleep 0.3\nRUN sleep 600\n"));
        let mut command = w.env.command(&["build", "--progress", "plain", "--no-cache", "."]);
        let mut client =
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(n * 60));
        client.kill().unwrap();
        let _ = client.wait().unwrap();
    }
    still_well(&w, "clients that vanished");
    // Nobody waits for the steps of those that left.
    let daemon = w.daemon.as_ref().unwrap().pid();
    kiln_testkit::wait_until("the steps of clients that left end", || sleepers(daemon) == 0);
}

/// How many `sleep 600` run below process `ancestor`.
fn sleepers(ancestor: u32) -> usize {
    let is_sleeper = |pid: u32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep\x00600"))
    };
    let pids =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_sleeper(*pid) && is_below(*pid, ancestor)).count()
}

fn is_below(mut pid: u32, ancestor: u32) -> bool {
    while pid > 1 {
        if pid == ancestor {
            return true;
        }
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        match parent {
            Some(parent) => pid = parent,
            None => return false,
        }
    }
    false
}
