//! Frontends that are images: a program of our own that speaks the gateway's protocol on its standard streams, in an
//! image with busybox. The program is this very test binary; see [`frontend_program`].

mod common;

use common::{World, world_without_daemon};
use kiln_proto::gateway::exec_message::Input;
use kiln_proto::gateway::llb_bridge_client::LlbBridgeClient;
use kiln_proto::{gateway, pb};
use kiln_testkit::{Image, Layer, busybox, wait_until};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;
use tokio::net::unix::pipe;
use tonic::transport::{Channel, Endpoint};

/// Where the program finds the gateway: the test harness keeps standard output to itself.
const START: &str = "exec 3>&1 1>&2; exec /frontend --exact frontend_program --nocapture";

/// A frontend when it is started as one, otherwise nothing.
#[tokio::test]
#[allow(clippy::exit)] // the harness has only one exit code for all that fails
async fn frontend_program() {
    if std::env::var_os("BUILDKIT_EXPORTEDPRODUCT").is_none() {
        return;
    }
    let code = match frontend().await {
        Ok(()) => 0,
        Err(code) => code,
    };
    std::process::exit(code);
}

/// The options, as BuildKit's frontends read them.
fn opts() -> HashMap<String, String> {
    let vars = std::env::vars().filter(|(name, _)| name.starts_with("BUILDKIT_FRONTEND_OPT_"));
    vars.filter_map(|(_, value)| value.split_once('=').map(|(k, v)| (k.to_string(), v.to_string()))).collect()
}

async fn connect() -> LlbBridgeClient<Channel> {
    let clone = |fd: &dyn std::os::fd::AsFd| -> OwnedFd { fd.as_fd().try_clone_to_owned().unwrap() };
    let stdin = pipe::Receiver::from_owned_fd(clone(&std::io::stdin())).unwrap();
    let stdout = std::fs::OpenOptions::new().write(true).open("/proc/self/fd/3").unwrap();
    let stdout = pipe::Sender::from_file(stdout).unwrap();
    let mut io = Some(tokio::io::join(stdin, stdout));
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let io = io.take();
        async move { io.map(hyper_util::rt::TokioIo::new).ok_or_else(|| std::io::Error::other("one connection")) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap();
    LlbBridgeClient::new(channel)
}

#[allow(clippy::print_stderr)] // it is what the daemon logs
async fn frontend() -> Result<(), i32> {
    let mut opts = opts();
    let mode = opts.remove("build-arg:MODE").unwrap_or_default();
    eprintln!("frontend in mode {mode:?}");
    match mode.as_str() {
        "crash" => return Err(3),
        "silent" => return Ok(()),
        "hang" => loop {
            std::thread::sleep(Duration::from_secs(1000));
        },
        "garbage" => {
            std::fs::write("/proc/self/fd/3", vec![b'x'; 1 << 16]).unwrap();
            return Err(4);
        }
        _ => {}
    }
    let mut bridge = connect().await;
    let pong = bridge.ping(gateway::PingRequest {}).await.unwrap().into_inner();
    assert!(pong.frontend_api_caps.iter().any(|c| c.id == "gateway.exec"));
    let workers: serde_json::Value =
        serde_json::from_str(&std::env::var("BUILDKIT_WORKERS").unwrap()).unwrap();
    assert_eq!(workers[0]["platforms"][0]["os"], "linux");
    assert!(!std::env::var("BUILDKIT_SESSION_ID").unwrap().is_empty());
    let own = std::fs::read("/run/config/buildkit/metadata/frontend.bin").unwrap();
    let own = <pb::Definition as prost::Message>::decode(&own[..]).unwrap();
    assert!(!own.def.is_empty());
    // The Dockerfile frontend does the work; that it was forwarded keeps it from coming back here.
    let request = gateway::SolveRequest {
        frontend: "dockerfile.v0".into(),
        frontend_opt: opts,
        allow_result_return: true,
        allow_result_array_ref: true,
        evaluate: true,
        ..gateway::SolveRequest::default()
    };
    let solved = bridge.solve(request).await;
    let solved = match solved {
        Ok(solved) => solved.into_inner().result.unwrap(),
        Err(status) => return fail(&mut bridge, status.message()).await,
    };
    let mut metadata = solved.metadata.clone();
    let Some(gateway::result::Result::Ref(result)) = solved.result else { return Err(9) };
    if let Err(what) = special(&mut bridge, &mode, &result.id, &mut metadata).await {
        return fail(&mut bridge, &what).await;
    }
    let form = gateway::result::Result::Ref(gateway::Ref { id: result.id, def: None });
    let returned = gateway::Result { result: Some(form), metadata, ..gateway::Result::default() };
    let request = gateway::ReturnRequest { result: Some(returned), error: None };
    bridge.r#return(request.clone()).await.unwrap();
    let twice = bridge.r#return(request).await.unwrap_err();
    assert!(twice.message().contains("already set"), "{twice}");
    match mode.as_str() {
        "late-crash" => Err(5),
        "lingers" => loop {
            std::thread::sleep(Duration::from_secs(1000));
        },
        _ => Ok(()),
    }
}

async fn fail(bridge: &mut LlbBridgeClient<Channel>, message: &str) -> Result<(), i32> {
    let error = kiln_proto::google::rpc::Status { code: 9, message: message.into(), details: Vec::new() };
    bridge.r#return(gateway::ReturnRequest { result: None, error: Some(error) }).await.unwrap();
    Ok(())
}

async fn special(
    bridge: &mut LlbBridgeClient<Channel>,
    mode: &str,
    result: &str,
    metadata: &mut HashMap<String, Vec<u8>>,
) -> Result<(), String> {
    let mounts = vec![pb::Mount { dest: "/".into(), result_id: result.into(), ..pb::Mount::default() }];
    let container = gateway::NewContainerRequest { container_id: "c".into(), mounts, ..Default::default() };
    match mode {
        "exec" => {
            bridge.new_container(container).await.map_err(|s| s.message().to_string())?;
            let said = exec(bridge, 0).await?;
            metadata.insert("frontend.said".into(), said.into_bytes());
            Ok(())
        }
        "insecure" => {
            bridge.new_container(container).await.map_err(|s| s.message().to_string())?;
            exec(bridge, 1).await.map(drop)
        }
        "host" => {
            let host = gateway::NewContainerRequest { network: 1, ..container };
            bridge.new_container(host).await.map(drop).map_err(|s| s.message().to_string())
        }
        "network" => {
            let names = std::fs::read_dir("/sys/class/net").unwrap().count();
            if names == 1 { Ok(()) } else { Err(format!("{names} network interfaces")) }
        }
        "secrets" => {
            let secret = pb::Mount {
                mount_type: 1,
                dest: "/secret".into(),
                secret_opt: Some(pb::SecretOpt { id: "missing".into(), ..pb::SecretOpt::default() }),
                ..pb::Mount::default()
            };
            let mut asking = container;
            asking.mounts.push(secret);
            bridge.new_container(asking).await.map(drop).map_err(|s| s.message().to_string())
        }
        _ => Ok(()),
    }
}

async fn exec(bridge: &mut LlbBridgeClient<Channel>, security: i32) -> Result<String, String> {
    let meta = pb::Meta { args: vec!["cat".into(), "/made".into()], cwd: "/".into(), ..pb::Meta::default() };
    let init = gateway::InitMessage {
        container_id: "c".into(),
        meta: Some(meta),
        fds: vec![1],
        security,
        ..gateway::InitMessage::default()
    };
    let message = gateway::ExecMessage { process_id: "p".into(), input: Some(Input::Init(init)) };
    let mut stream = bridge.exec_process(tokio_stream::once(message)).await.unwrap().into_inner();
    let mut said = String::new();
    while let Some(message) = stream.message().await.map_err(|s| s.message().to_string())? {
        match message.input {
            Some(Input::File(file)) => said.push_str(&String::from_utf8_lossy(&file.data)),
            Some(Input::Exit(exit)) => {
                if let Some(error) = exit.error {
                    return Err(error.message);
                }
            }
            _ => {}
        }
    }
    Ok(said)
}

// ---- the tests ----

/// busybox, this binary and the libraries it needs.
fn frontend_image(labels: serde_json::Value) -> Image {
    let me = std::env::current_exe().unwrap();
    let ldd = std::process::Command::new("ldd").arg(&me).output().unwrap();
    let text = String::from_utf8_lossy(&ldd.stdout).into_owned();
    let mut layer = Layer::new().file("frontend", 0o755, std::fs::read(&me).unwrap()).dir("lib64", 0o755);
    for path in text.split_whitespace().filter(|word| word.starts_with('/')) {
        layer = layer.file(path.trim_start_matches('/'), 0o755, std::fs::read(path).unwrap());
    }
    let mut image = Image::new(busybox());
    image.layers.push(layer.into_tar());
    image.config = serde_json::json!({
        "Env": ["PATH=/bin"], "Entrypoint": ["/bin/sh", "-c", START], "Cmd": ["ignored"], "Labels": labels,
    });
    image
}

fn frontend_world(config: &str) -> Option<World> {
    let mut w = world_without_daemon()?;
    let caps = "moby.buildkit.frontend.inputs,moby.buildkit.frontend.subrequests+note";
    let image = frontend_image(serde_json::json!({"moby.buildkit.frontend.caps": caps}));
    w.registry.add("org/front", "latest", &image);
    let closed = serde_json::json!({"moby.buildkit.frontend.network.none": "true"});
    w.registry.add("org/closed", "1", &frontend_image(closed));
    let base = std::fs::read_to_string(w.env.path().join("kiln.toml")).unwrap();
    w.env.write("kiln.toml", format!("{base}{config}"));
    w.start();
    Some(w)
}

const FILE: &str = "# syntax=org/front\nFROM busybox AS work\nRUN echo made > /made\nRUN cp /made /out\n";

fn mode(mode: &str) -> [String; 2] {
    ["--build-arg".into(), format!("MODE={mode}")]
}

fn fails(w: &World, file: &str, how: &str, more: &[&str]) -> String {
    let [flag, value] = mode(how);
    let mut args = vec![flag.as_str(), value.as_str()];
    args.extend(more);
    w.build(file, &args).failure().stderr
}

#[test]
fn an_image_builds_an_image_root() {
    let Some(w) = frontend_world("") else { return };
    let dir = w.build_to_dir(&FILE.replace("RUN cp", "RUN cat /made && cp"), &[]);
    assert_eq!(std::fs::read_to_string(dir.join("out")).unwrap(), "made\n");
    let log = w.daemon.as_ref().unwrap().log();
    assert!(log.contains("frontend in mode"), "its stderr is in the log:\n{log}");
    let cached =
        w.build(&FILE.replace("RUN cp", "RUN cat /made && cp"), &["--output", "type=cacheonly"]).success();
    assert!(cached.cached() >= 2, "{}", cached.stderr);
    // By option, and with a process in a container of its own.
    let meta = w.env.path().join("meta.json");
    let [flag, value] = mode("exec");
    let args = [flag.as_str(), &value, "--metadata-file", meta.to_str().unwrap()];
    let _ = w.build(FILE, &args).success();
    let _ = w
        .build(&FILE.replace("# syntax=org/front\n", ""), &["--build-arg", "BUILDKIT_SYNTAX=org/front"])
        .success();
    // The error of a step comes back through it.
    let failed = fails(&w, &FILE.replace("cp /made", "false; cp2 /made"), "", &[]);
    assert!(failed.contains("did not complete successfully"), "{failed}");
    let usage = w.env.kiln(&["du", "--verbose"]).success().stdout;
    assert!(usage.contains("frontend"), "{usage}");
}

#[test]
fn frontends_that_fail_say_why_root() {
    let Some(w) = frontend_world("") else { return };
    for (how, message) in [
        ("crash", "exit code: 3"),
        ("silent", "no result for incomplete build"),
        ("garbage", "exit code: 4"),
        ("late-crash", "exit code: 5"),
    ] {
        let text = fails(&w, FILE, how, &[]);
        assert!(text.contains(message), "{how}: {text}");
    }
    let text = fails(&w, "# syntax=org/none\nFROM busybox\n", "", &[]);
    assert!(text.contains("org/none"), "{text}");
    let text = fails(&w, "# syntax=busybox\nFROM busybox\n", "", &[]);
    assert!(text.contains("exec: \"/run\""), "it has no entrypoint: {text}");
    // None of them took anybody along.
    let _ = w.build(FILE, &[]).success();
}

#[test]
fn frontends_have_no_more_rights_than_steps_root() {
    let Some(w) = frontend_world("") else { return };
    for (how, message) in [
        ("insecure", "security.insecure is not allowed"),
        ("host", "network.host is not allowed"),
        ("secrets", "secret missing: not found"),
    ] {
        let text = fails(&w, FILE, how, &[]);
        assert!(text.contains(message), "{how}: {text}");
    }
    let [flag, value] = mode("network");
    let _ = w.build(&FILE.replace("org/front", "org/closed:1"), &[&flag, &value]).success();
}

#[test]
fn only_listed_repositories_are_run_root() {
    let Some(w) = frontend_world("[frontend.\"gateway.v0\"]\nallowedRepositories = [\"org/closed\"]\n")
    else {
        return;
    };
    let text = w.build(FILE, &[]).failure().stderr;
    assert!(text.contains("'org/front' is not an allowed gateway source"), "{text}");
    let _ = w.build(&FILE.replace("org/front", "org/closed:1"), &[]).success();
}

fn running() -> BTreeMap<u32, String> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = all.filter_map(|e| e.file_name().to_str()?.parse().ok());
    let args = |id: u32| Some((id, std::fs::read_to_string(format!("/proc/{id}/cmdline")).ok()?));
    ids.filter_map(args).filter(|(_, args)| args.starts_with("/frontend\0")).collect()
}

#[test]
fn a_frontend_that_hangs_goes_with_its_client_root() {
    let Some(w) = frontend_world("") else { return };
    w.context("Dockerfile", FILE);
    let args = ["build", "--build-arg", "MODE=hang", "."];
    let mut child = w.env.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let log = || w.daemon.as_ref().unwrap().log();
    wait_until("the frontend runs", || {
        log().contains("frontend in mode \\\"hang\\\"") || log().contains("frontend in mode \"hang\"")
    });
    let before = running();
    child.kill().unwrap();
    child.wait().unwrap();
    // Tests beside this one have frontends of their own; those end soon.
    wait_until("the frontend is ended", || !running().keys().any(|id| before.contains_key(id)));
    let _ = w.build(FILE, &[]).success();
}

#[test]
fn a_frontend_that_does_not_end_is_ended_root() {
    let Some(w) = frontend_world("") else { return };
    let [flag, value] = mode("lingers");
    let dir = w.build_to_dir(FILE, &[&flag, &value]);
    assert!(dir.join("out").exists());
}
