//! Builds that their client drives step by step, by clients that behave and clients that do not.

mod common;
#[path = "common/gateway.rs"]
mod raw;

use common::world;
use kiln_proto::extra::{LinuxResources, OpMetadataExtra};
use kiln_proto::google::rpc;
use kiln_proto::{control, gateway, pb, sourcepolicy};
use kiln_testkit::PATIENCE;
use raw::{Client, Graph, busybox, exec, file, result, run, run_op, solve};
use std::time::Duration;
use tonic::Code;

async fn client(w: &common::World) -> Client {
    Client::connect(&w.env.socket()).await
}

/// The details of an error: type name and JSON.
fn details(status: &tonic::Status) -> Vec<(String, String)> {
    use prost::Message as _;
    let full = rpc::Status::decode(status.details()).expect("details");
    let text = |any: kiln_proto::google::protobuf::Any| {
        (any.type_url.replace("github.com/moby/buildkit/", ""), String::from_utf8(any.value).unwrap())
    };
    full.details.into_iter().map(text).collect()
}

#[tokio::test]
async fn a_client_builds_looks_and_returns_root() {
    let Some(w) = world() else { return };
    let client = client(&w).await;
    let (mut bridge, build) = client.begin("looks");
    let pong = bridge.ping(gateway::PingRequest {}).await.unwrap().into_inner();
    assert!(pong.llb_caps.iter().any(|c| c.id == "file.base" && c.enabled));
    assert!(pong.frontend_api_caps.iter().any(|c| c.id == "gateway.evaluate"));
    assert_eq!(pong.workers.len(), 1);

    let id = solve(&mut bridge, run("mkdir /d && echo 0123456789 > /d/f && ln -s f /d/l")).await.unwrap();
    let range = Some(gateway::FileRange { offset: 2, length: 3 });
    let read =
        gateway::ReadFileRequest { r#ref: id.clone(), file_path: "/d/l".into(), range, mount_index: 0 };
    assert_eq!(bridge.read_file(read).await.unwrap().into_inner().data, b"234");
    let list = gateway::ReadDirRequest {
        r#ref: id.clone(),
        dir_path: "/d".into(),
        include_pattern: "l*".into(),
        mount_index: 0,
    };
    let entries = bridge.read_dir(list).await.unwrap().into_inner().entries;
    assert_eq!((entries.len(), entries[0].path.as_str(), entries[0].linkname.as_str()), (1, "l", "f"));
    let stat = gateway::StatFileRequest { r#ref: id.clone(), path: "/d".into(), mount_index: 0 };
    let stat = bridge.stat_file(stat).await.unwrap().into_inner().stat.unwrap();
    assert_eq!(stat.mode & (1 << 31), 1 << 31, "Go's mode bits");
    let missing =
        gateway::ReadFileRequest { r#ref: id.clone(), file_path: "/no".into(), ..Default::default() };
    let missing = bridge.read_file(missing).await.unwrap_err();
    assert!(missing.message().contains("no such file or directory"), "{missing}");

    bridge.r#return(result(&id)).await.unwrap();
    build.await.unwrap().unwrap();
    let after = bridge.evaluate(gateway::EvaluateRequest { r#ref: id }).await.unwrap_err();
    assert!(after.message().contains("no such job"), "{after}");
}

#[tokio::test]
async fn an_error_that_is_returned_keeps_its_details_root() {
    let Some(w) = world() else { return };
    let (mut bridge, build) = client(&w).await.begin("fails");
    let any = kiln_proto::google::protobuf::Any {
        type_url: "example.org/own+json".into(),
        value: b"{\"a\":1}".to_vec(),
    };
    let error = rpc::Status { code: 6, message: "the client is not content".into(), details: vec![any] };
    bridge.r#return(gateway::ReturnRequest { result: None, error: Some(error) }).await.unwrap();
    let status = build.await.unwrap().unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::AlreadyExists, "the client is not content"));
    assert_eq!(details(&status), [("example.org/own+json".to_string(), "{\"a\":1}".to_string())]);
}

#[tokio::test]
async fn what_a_failed_step_left_can_be_looked_at_root() {
    let Some(w) = world() else { return };
    let (mut bridge, build) = client(&w).await.begin("debug");
    let id = solve(&mut bridge, run("echo partial > /left && exit 3")).await.unwrap();
    let status = bridge.evaluate(gateway::EvaluateRequest { r#ref: id }).await.unwrap_err();
    assert!(status.message().contains("exit code: 3"), "{status}");
    let details = details(&status);
    let solve = details.iter().find(|(name, _)| name == "errdefs.Solve+json").expect("a Solve detail");
    let solve: serde_json::Value = serde_json::from_str(&solve.1).unwrap();
    assert_eq!(solve["op"]["exec"]["meta"]["args"][2], "echo partial > /left && exit 3");
    let mount = solve["mountIDs"][0].as_str().expect("the root mount").to_string();
    let read = |id: &str| gateway::ReadFileRequest {
        r#ref: id.to_string(),
        file_path: "/left".into(),
        ..Default::default()
    };
    assert_eq!(bridge.read_file(read(&mount)).await.unwrap().into_inner().data, b"partial\n");
    let input = solve["inputIDs"][0].as_str().expect("the image").to_string();
    assert!(bridge.read_file(read(&input)).await.is_err(), "the step had not run there");
    build.abort();
}

#[tokio::test]
async fn results_belong_to_one_build_root() {
    let Some(w) = world() else { return };
    let client = client(&w).await;
    let (mut one, first) = client.begin("one");
    let (mut two, second) = client.begin("two");
    let id = solve(&mut one, file("/f", "mine")).await.unwrap();
    for forged in [id.as_str(), "", "../../etc", "\u{0}", &"x".repeat(1 << 16)] {
        let read = gateway::ReadFileRequest {
            r#ref: forged.to_string(),
            file_path: "/f".into(),
            ..Default::default()
        };
        let refused = two.read_file(read).await.unwrap_err();
        assert!(refused.message().starts_with("no such ref"), "{refused}");
        assert!(refused.message().len() < 200);
    }
    let stolen = two.r#return(result(&id)).await.unwrap_err();
    assert_eq!(stolen.code(), Code::NotFound);
    two.r#return(result("")).await.unwrap();
    second.await.unwrap().unwrap();
    one.r#return(result(&id)).await.unwrap();
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_build_ends_once_root() {
    let Some(w) = world() else { return };
    let client = client(&w).await;
    // The exporter waits for a session that never comes, so that the build is still there after its result.
    let exporter = control::Exporter { r#type: "local".into(), attrs: Default::default() };
    let (mut bridge, build) = client.begin_with(control::SolveRequest {
        r#ref: "once".into(),
        session: "nobody".into(),
        exporters: vec![exporter],
        ..Default::default()
    });
    let id = solve(&mut bridge, file("/f", "x")).await.unwrap();
    bridge.r#return(result(&id)).await.unwrap();
    let again = bridge.r#return(result(&id)).await.unwrap_err();
    assert_eq!(again.message(), "gateway result is already set");
    let neither = bridge.r#return(gateway::ReturnRequest::default()).await.unwrap_err();
    assert_eq!(neither.message(), "gateway return must be either result or err");
    // A solve after the result changes nothing about it.
    assert!(solve(&mut bridge, file("/f", "y")).await.is_ok());
    build.abort();
}

#[tokio::test]
async fn two_clients_with_one_ref_root() {
    let Some(w) = world() else { return };
    let client = client(&w).await;
    let (mut bridge, build) = client.begin("same");
    bridge.ping(gateway::PingRequest {}).await.unwrap();
    let second = control::SolveRequest { r#ref: "same".into(), ..Default::default() };
    let refused = client.solve(second).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::AlreadyExists, "job ID same exists"));
    let id = solve(&mut bridge, file("/f", "x")).await.unwrap();
    bridge.r#return(result(&id)).await.unwrap();
    build.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_vanishes_takes_its_build_with_it_root() {
    let Some(w) = world() else { return };
    let client = client(&w).await;
    let (mut bridge, build) = client.begin("gone");
    let id = solve(&mut bridge, run("sleep 1000")).await.unwrap();
    let mut waiting = bridge.clone();
    let evaluation =
        tokio::spawn(async move { waiting.evaluate(gateway::EvaluateRequest { r#ref: id }).await });
    // Let the step begin; one that has not is not started any more.
    tokio::time::sleep(Duration::from_millis(500)).await;
    build.abort();
    let ended = tokio::time::timeout(PATIENCE, evaluation).await.expect("the step is stopped");
    assert!(ended.unwrap().is_err());
    let late = bridge.ping(gateway::PingRequest {}).await.unwrap_err();
    assert!(late.message().contains("no such job gone"), "{late}");
}

#[tokio::test]
async fn a_call_without_a_build_is_refused_root() {
    let Some(w) = world() else { return };
    let client = client(&w).await;
    let mut nameless = gateway::llb_bridge_client::LlbBridgeClient::new(client.0.clone());
    let refused = nameless.ping(gateway::PingRequest {}).await.unwrap_err();
    assert_eq!(refused.message(), "no buildid found in context");
    let unknown = client.bridge("never").ping(gateway::PingRequest {}).await.unwrap_err();
    assert_eq!(unknown.message(), "no such job never");
}

#[tokio::test]
async fn nothing_runs_with_more_rights_than_were_granted_root() {
    let Some(w) = world() else { return };
    let (mut bridge, build) = client(&w).await.begin("rights");
    let insecure = pb::ExecOp { security: pb::SecurityMode::Insecure.into(), ..exec("true") };
    let host = pb::ExecOp { network: pb::NetMode::Host.into(), ..exec("true") };
    for (op, name) in [(insecure, "security.insecure"), (host, "network.host")] {
        let refused = solve(&mut bridge, run_op(op)).await.unwrap_err();
        assert!(refused.message().contains(&format!("{name} is not allowed")), "{refused}");
    }
    for unknown in [2, 77, -1, i32::MAX, i32::MIN] {
        let odd = pb::ExecOp { security: unknown, ..exec("true") };
        let refused = solve(&mut bridge, run_op(odd)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        let odd = pb::ExecOp { network: unknown.wrapping_add(1), ..exec("true") };
        if unknown != -1 && unknown != 2 {
            assert!(solve(&mut bridge, run_op(odd)).await.is_err());
        }
    }
    build.abort();
}

#[tokio::test]
async fn a_step_says_what_it_needs_root() {
    let Some(w) = world() else { return };
    let (mut bridge, build) = client(&w).await.begin("caps");
    let mut graph = Graph::default();
    let caps = [("exec.meta.base".to_string(), true), ("exec.teleport".to_string(), true)].into();
    let metadata = pb::OpMetadata { caps, ..pb::OpMetadata::default() };
    let base = graph.add_with(&[], busybox(), metadata);
    let refused = solve(&mut bridge, graph.of(&base)).await.unwrap_err();
    assert!(refused.message().contains("requested experimental feature exec.teleport"), "{refused}");
    build.abort();
}

#[tokio::test]
async fn nonsense_is_refused_and_hurts_nobody_root() {
    let Some(w) = world() else { return };
    let (mut bridge, build) = client(&w).await.begin("nonsense");
    let both = gateway::SolveRequest {
        definition: Some(file("/f", "x")),
        frontend: "dockerfile.v0".into(),
        ..Default::default()
    };
    assert!(bridge.solve(both).await.unwrap_err().message().contains("both Definition and Frontend"));
    let broken = pb::Definition { def: vec![vec![0xff; 100], vec![1, 2, 3]], ..Default::default() };
    assert!(solve(&mut bridge, broken).await.is_err());
    let unknown = gateway::SolveRequest { frontend: "x".repeat(100_000), ..Default::default() };
    let unknown = bridge.solve(unknown).await.unwrap_err();
    assert!(unknown.message().starts_with("invalid frontend: xxx") && unknown.message().len() < 300);
    let no_source = gateway::SolveRequest { frontend: "gateway.v0".into(), ..Default::default() };
    assert_eq!(bridge.solve(no_source).await.unwrap_err().message(), "no source specified for gateway");
    let image = gateway::ResolveImageConfigRequest {
        r#ref: "busybox".into(),
        platform: Some(pb::Platform::default()),
        ..Default::default()
    };
    assert_eq!(bridge.resolve_image_config(image).await.unwrap_err().code(), Code::InvalidArgument);
    let resolver = gateway::ResolveImageConfigRequest {
        r#ref: "busybox".into(),
        resolver_type: 9,
        ..Default::default()
    };
    assert_eq!(bridge.resolve_image_config(resolver).await.unwrap_err().code(), Code::InvalidArgument);
    let nothing = gateway::ResolveSourceMetaRequest::default();
    assert_eq!(bridge.resolve_source_meta(nothing).await.unwrap_err().message(), "source is required");
    let id = solve(&mut bridge, file("/f", "x")).await.unwrap();
    for (offset, length) in [(-1, 5), (0, -1), (i64::MIN, i64::MIN)] {
        let range = Some(gateway::FileRange { offset, length });
        let read =
            gateway::ReadFileRequest { r#ref: id.clone(), file_path: "/f".into(), range, mount_index: 0 };
        assert_eq!(bridge.read_file(read).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let warn = gateway::WarnRequest { digest: "none".into(), ..Default::default() };
    assert_eq!(bridge.warn(warn).await.unwrap_err().code(), Code::InvalidArgument);
    // What is said is kept, but not without end.
    let digest = format!("sha256:{}", "a".repeat(64));
    let large = gateway::WarnRequest { digest, short: vec![b'x'; 8 << 20], ..Default::default() };
    let mut said = 0;
    let refused = loop {
        match bridge.warn(large.clone()).await {
            Ok(_) => said += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!((said, refused.code()), (7, Code::ResourceExhausted), "{refused}");
    bridge.r#return(result(&id)).await.unwrap();
    build.await.unwrap().unwrap();
}

#[tokio::test]
async fn images_and_nested_frontends_root() {
    let Some(w) = world() else { return };
    let (mut bridge, build) = client(&w).await.begin("frontend");
    let config = gateway::ResolveImageConfigRequest { r#ref: "busybox".into(), ..Default::default() };
    let config = bridge.resolve_image_config(config).await.unwrap().into_inner();
    assert!(config.digest.starts_with("sha256:") && !config.config.is_empty());
    assert_eq!(config.r#ref, "docker.io/library/busybox:latest");

    let dockerfile = file("/Dockerfile", "FROM scratch\nCOPY in /\nLABEL a=b\n");
    let inputs = [("dockerfile".to_string(), dockerfile), ("context".to_string(), file("/in", "put"))];
    for (frontend, source) in [("dockerfile.v0", ""), ("gateway.v0", "docker/dockerfile:1.7")] {
        let options = [("source".to_string(), source.to_string())].into_iter();
        let request = gateway::SolveRequest {
            frontend: frontend.into(),
            frontend_opt: options.filter(|(_, v)| !v.is_empty()).collect(),
            frontend_inputs: inputs.clone().into(),
            allow_result_return: true,
            allow_result_array_ref: true,
            evaluate: true,
            ..Default::default()
        };
        let solved = bridge.solve(request).await.unwrap().into_inner().result.unwrap();
        assert!(String::from_utf8_lossy(&solved.metadata["containerimage.config"]).contains("\"a\":\"b\""));
        assert!(solved.metadata.contains_key("refs.platforms"));
        let Some(gateway::result::Result::Ref(r)) = solved.result else { panic!("one result expected") };
        assert!(!r.def.unwrap().def.is_empty());
        let read = gateway::ReadFileRequest { r#ref: r.id, file_path: "in".into(), ..Default::default() };
        assert_eq!(bridge.read_file(read).await.unwrap().into_inner().data, b"put");
    }
    build.abort();
}

#[tokio::test]
async fn results_say_what_they_are_root() {
    let Some(w) = world() else { return };
    let client = client(&w).await;
    // Several results without a list of their platforms.
    let (mut bridge, build) = client.begin("nameless");
    let id = solve(&mut bridge, file("/f", "x")).await.unwrap();
    let one = gateway::Ref { id, def: None };
    let refs = gateway::RefMap { refs: [("a".to_string(), one.clone()), ("b".to_string(), one)].into() };
    let form = gateway::result::Result::Refs(refs);
    let many = gateway::Result { result: Some(form), ..gateway::Result::default() };
    let many = gateway::ReturnRequest { result: Some(many), error: None };
    bridge.r#return(many).await.unwrap();
    let refused = build.await.unwrap().unwrap_err();
    assert_eq!(refused.message(), "build result contains multiple refs without platforms mapping");

    // Only what is meant for the client comes back, however large the rest is.
    let (mut bridge, build) = client.begin("large");
    let mut answer = result("");
    let metadata = &mut answer.result.as_mut().unwrap().metadata;
    metadata.insert("containerimage.something".into(), vec![b'x'; 12 << 20]);
    metadata.insert("frontend.returned".into(), b"true".to_vec());
    metadata.insert("frontend.odd".into(), vec![0xff, 0xfe]);
    bridge.r#return(answer).await.unwrap();
    let response = build.await.unwrap().unwrap().exporter_response;
    assert_eq!(response.len(), 2, "{:?}", response.keys());
    assert_eq!(response["frontend.returned"], "true");

    // More than a message may have is refused by the transport, and the build goes on.
    let (bridge, build) = client.begin("too-large");
    let mut bridge = bridge.max_encoding_message_size(64 << 20);
    let mut answer = result("");
    answer.result.as_mut().unwrap().metadata.insert("k".into(), vec![b'x'; 17 << 20]);
    assert_eq!(bridge.r#return(answer).await.unwrap_err().code(), Code::OutOfRange);
    bridge.r#return(result("")).await.unwrap();
    build.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_oldest_clients_end_with_a_solve_root() {
    let Some(w) = world() else { return };
    let (mut bridge, build) = client(&w).await.begin("oldest");
    let solve = |attrs: &str| gateway::SolveRequest {
        definition: Some(file("/f", "x")),
        r#final: true,
        exporter_attr: attrs.into(),
        ..Default::default()
    };
    for wrong in ["{", "[]", "{\"a\": 1}", "{\"a\": \"no base64!\"}"] {
        assert!(bridge.solve(solve(wrong)).await.is_err(), "{wrong}");
    }
    let solved = bridge.solve(solve("{\"frontend.old\": \"eWVz\"}")).await.unwrap().into_inner();
    assert!(!solved.r#ref.is_empty(), "the id is where such a client looks for it");
    let response = build.await.unwrap().unwrap().exporter_response;
    assert_eq!(response["frontend.old"], "yes");
}

#[tokio::test]
async fn what_a_client_gives_and_says_arrives_root() {
    let Some(w) = world() else { return };
    let client = client(&w).await;
    let (mut bridge, build) = client.begin_with(control::SolveRequest {
        r#ref: "says".into(),
        frontend_inputs: [("given".to_string(), file("/f", "x"))].into(),
        ..Default::default()
    });
    let inputs = bridge.inputs(gateway::InputsRequest {}).await.unwrap().into_inner().definitions;
    assert_eq!(inputs["given"].def, file("/f", "x").def, "the bytes are the same");
    let id = solve(&mut bridge, inputs["given"].clone()).await.unwrap();
    let digest = kiln_digest::Digest::sha256(&inputs["given"].def[0]).to_string();
    let short = b"look here".to_vec();
    bridge.warn(gateway::WarnRequest { digest, level: 1, short, ..Default::default() }).await.unwrap();
    let import = gateway::CacheOptionsEntry { r#type: "s3".into(), ..Default::default() };
    let request = gateway::SolveRequest { cache_imports: vec![import], ..Default::default() };
    let empty = bridge.solve(request).await.unwrap().into_inner();
    assert_eq!(empty.r#ref, "", "nothing was asked for");
    bridge.r#return(result(&id)).await.unwrap();
    build.await.unwrap().unwrap();

    let mut control = control::control_client::ControlClient::new(client.0.clone());
    let status = control.status(control::StatusRequest { r#ref: "says".into() }).await.unwrap();
    let mut status = status.into_inner();
    let (mut warnings, mut names) = (Vec::new(), Vec::new());
    while let Some(update) = status.message().await.unwrap() {
        warnings.extend(update.warnings.into_iter().map(|w| String::from_utf8(w.short).unwrap()));
        names.extend(update.vertexes.into_iter().map(|v| v.name));
    }
    assert_eq!(warnings, ["look here"]);
    assert!(names.iter().any(|n| n == "importing cache manifest from s3"), "{names:?}");
}

#[tokio::test]
async fn containers_get_no_more_than_was_granted_root() {
    let Some(w) = world() else { return };
    let (mut bridge, build) = client(&w).await.begin("container");
    let id = solve(&mut bridge, run("true")).await.unwrap();
    let root = pb::Mount { dest: "/".into(), result_id: id, ..pb::Mount::default() };
    let container = |name: &str, network: i32| gateway::NewContainerRequest {
        container_id: name.into(),
        mounts: vec![root.clone()],
        network,
        ..Default::default()
    };
    let host = bridge.new_container(container("a", pb::NetMode::Host.into())).await.unwrap_err();
    assert!(host.message().contains("network.host is not allowed"), "{host}");
    for unknown in [3, -1, i32::MAX] {
        assert!(bridge.new_container(container("a", unknown)).await.is_err());
    }
    bridge.new_container(container("a", 0)).await.unwrap();
    for security in [1, 2, 77, -1] {
        let meta = Some(pb::Meta { args: vec!["/bin/true".into()], ..pb::Meta::default() });
        let init = gateway::InitMessage {
            container_id: "a".into(),
            meta,
            fds: vec![],
            tty: false,
            security,
            secretenv: vec![],
        };
        let input = Some(gateway::exec_message::Input::Init(init));
        let message = gateway::ExecMessage { process_id: "p".into(), input };
        let refused = match bridge.exec_process(tokio_stream::iter([message])).await {
            Err(status) => status.message().to_string(),
            Ok(stream) => {
                let mut stream = stream.into_inner();
                let mut text = String::new();
                loop {
                    match stream.message().await {
                        Ok(Some(message)) => text += &format!("{message:?}"),
                        Ok(None) => break text,
                        Err(status) => break status.message().to_string(),
                    }
                }
            }
        };
        let wanted = if security == 1 { "security.insecure is not allowed" } else { "security" };
        assert!(refused.contains(wanted), "{security}: {refused}");
    }
    build.abort();
}

fn rule(action: sourcepolicy::PolicyAction, identifier: &str, to: Option<&str>) -> sourcepolicy::Rule {
    let selector =
        sourcepolicy::Selector { identifier: identifier.into(), ..sourcepolicy::Selector::default() };
    let updates =
        to.map(|to| sourcepolicy::Update { identifier: to.into(), ..sourcepolicy::Update::default() });
    sourcepolicy::Rule { action: action.into(), selector: Some(selector), updates }
}

fn policy(rules: Vec<sourcepolicy::Rule>) -> sourcepolicy::Policy {
    sourcepolicy::Policy { rules, ..sourcepolicy::Policy::default() }
}

#[tokio::test]
async fn source_policies_deny_and_replace_root() {
    use sourcepolicy::PolicyAction::{Convert, Deny};
    let Some(w) = world() else { return };
    let client = client(&w).await;
    let other = "docker-image://docker.io/library/other:*";
    let rules = vec![
        rule(Convert, other, Some("docker-image://docker.io/library/busybox:latest")),
        rule(Deny, "https://*", None),
    ];
    let (mut bridge, build) = client.begin_with(control::SolveRequest {
        r#ref: "policed".into(),
        source_policy: Some(policy(rules)),
        ..Default::default()
    });
    // What is replaced is built, and its digest is told.
    let source = |identifier: &str| pb::SourceOp { identifier: identifier.into(), ..Default::default() };
    let mut graph = Graph::default();
    let base = graph.add(&[], pb::op::Op::Source(source("docker-image://docker.io/library/other:1")));
    let step = graph.add(&[&base], pb::op::Op::Exec(exec("test -x /bin/sh && echo yes > /r")));
    let id = solve(&mut bridge, graph.of(&step)).await.unwrap();
    let read = gateway::ReadFileRequest { r#ref: id.clone(), file_path: "/r".into(), ..Default::default() };
    assert_eq!(bridge.read_file(read).await.unwrap().into_inner().data, b"yes\n");
    let config = |name: &str| gateway::ResolveImageConfigRequest { r#ref: name.into(), ..Default::default() };
    let found = bridge.resolve_image_config(config("other:1")).await.unwrap().into_inner();
    assert_eq!(found.r#ref, "docker.io/library/busybox:latest");
    // What is denied is not asked for, neither by a rule of the build nor by one of the request.
    let mut graph = Graph::default();
    let root = graph.add(&[], pb::op::Op::Source(source("https://example.invalid/x")));
    let denied = solve(&mut bridge, graph.of(&root)).await.unwrap_err();
    let text = "error evaluating the source policy: source \"https://example.invalid/x\" denied by policy";
    assert!(denied.message().contains(text), "{denied}");
    let mut request = config("busybox");
    request.source_policies = vec![policy(vec![rule(Deny, "docker-image://*", None)])];
    let denied = bridge.resolve_image_config(request).await.unwrap_err();
    assert!(denied.message().contains("could not resolve image due to policy"), "{denied}");
    // Nobody is there to ask.
    bridge.r#return(result(&id)).await.unwrap();
    build.await.unwrap().unwrap();
    let asked = control::SolveRequest {
        r#ref: "asked".into(),
        source_policy_session: "nobody".into(),
        definition: Some(run("true")),
        ..Default::default()
    };
    let refused = client.solve(asked).await.unwrap_err();
    assert!(refused.message().contains("no active session for nobody"), "{refused}");
}

/// A solve request as newer clients send it.
#[derive(Clone, PartialEq, prost::Message)]
struct NewerSolve {
    #[prost(message, optional, tag = "1")]
    definition: Option<NewerDefinition>,
    #[prost(bool, tag = "5")]
    allow_result_return: bool,
    #[prost(bool, tag = "6")]
    allow_result_array_ref: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NewerDefinition {
    #[prost(bytes = "vec", repeated, tag = "1")]
    def: Vec<Vec<u8>>,
    #[prost(map = "string, message", tag = "2")]
    metadata: std::collections::HashMap<String, OpMetadataExtra>,
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_steps_are_kept_root() {
    let Some(w) = world() else { return };
    let client = client(&w).await;
    let (mut bridge, build) = client.begin("limits");
    let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null > /limit || true";
    let known = run(limit);
    let linux_resources = Some(LinuxResources { memory: 128 << 20, ..LinuxResources::default() });
    let metadata =
        |digest: &String| (digest.clone(), OpMetadataExtra { linux_resources: linux_resources.clone() });
    let metadata = known.metadata.keys().map(metadata).collect();
    let newer = NewerSolve {
        definition: Some(NewerDefinition { def: known.def, metadata }),
        allow_result_return: true,
        allow_result_array_ref: true,
    };
    let mut grpc = tonic::client::Grpc::new(client.0.clone());
    grpc.ready().await.unwrap();
    let mut request = tonic::Request::new(newer);
    let _ = request.metadata_mut().insert("buildkit-controlapi-buildid", "limits".parse().unwrap());
    let path =
        tonic::codegen::http::uri::PathAndQuery::from_static("/moby.buildkit.v1.frontend.LLBBridge/Solve");
    let codec = tonic_prost::ProstCodec::<NewerSolve, gateway::SolveResponse>::default();
    let solved = grpc.unary(request, path, codec).await.unwrap().into_inner();
    let Some(gateway::result::Result::Ref(found)) = solved.result.and_then(|r| r.result) else {
        panic!("no result")
    };
    let read = gateway::ReadFileRequest {
        r#ref: found.id.clone(),
        file_path: "/limit".into(),
        ..gateway::ReadFileRequest::default()
    };
    let data = bridge.read_file(read).await.unwrap().into_inner().data;
    assert_eq!(String::from_utf8(data).unwrap(), "134217728\n");
    let _ = bridge.r#return(result(&found.id)).await.unwrap();
    let _ = build.await.unwrap().unwrap();
}
