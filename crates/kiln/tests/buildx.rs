//! The binary under the name docker-buildx: alone, and under the real Docker CLI where that is installed.

mod common;
#[path = "common/engine.rs"]
mod engine;

use common::{World, world};
use kiln_testkit::{Env, Need, Output, require};
use std::io::Read as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const FILE: &str = "FROM busybox\nRUN echo hi > /x\n";

/// A directory with the binary under another name.
fn plugin(env: &Env) -> PathBuf {
    let dir = env.path().join("home/.docker/cli-plugins");
    std::fs::create_dir_all(&dir).unwrap();
    let plugin = dir.join("docker-buildx");
    if !plugin.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kiln"), &plugin).unwrap();
    }
    plugin
}

/// A program with the world's environment.
fn command(env: &Env, program: &Path, args: &[&str]) -> Command {
    let sealed = env.command(&[]);
    let mut command = Command::new(program);
    command.args(args).current_dir(env.path().join("context")).env_clear().stdin(Stdio::null());
    for (name, value) in sealed.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command
}

fn run(mut command: Command) -> Output {
    let out = command.output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Output { status: out.status.code().unwrap_or(-1), stdout: text(&out.stdout), stderr: text(&out.stderr) }
}

fn buildx(env: &Env, args: &[&str]) -> Output {
    run(command(env, &plugin(env), args))
}

fn env() -> Env {
    Env::new(env!("CARGO_BIN_EXE_kiln"))
}

#[test]
fn the_docker_cli_learns_what_this_is() {
    let env = env();
    let out = buildx(&env, &["docker-cli-plugin-metadata"]).success();
    let metadata: serde_json::Value = serde_json::from_str(&out.stdout).unwrap();
    assert_eq!(metadata["SchemaVersion"], "0.1.0");
    assert_eq!(metadata["ShortDescription"], "Docker Buildx");
    let version = buildx(&env, &["version"]).success().stdout;
    assert!(version.starts_with("github.com/docker/buildx v0."), "{version}");
    assert_eq!(version.split_whitespace().count(), 3, "{version}");
    assert!(!env.path().join("home/.docker/buildx").exists(), "nothing is touched");
}

#[test]
fn mistakes_are_told_as_docker_tells_them() {
    let env = env();
    let alone = |args: &[&str]| buildx(&env, args).failure().stderr;
    assert_eq!(alone(&["build", "--foo", "."]), "ERROR: unknown flag: --foo\n");
    assert_eq!(
        alone(&["build"]),
        "ERROR: docker-buildx: 'docker-buildx build' requires 1 argument\n\nUsage:  docker-buildx build [OPTIONS] PATH | URL | -\n\nRun 'docker-buildx build --help' for more information\n"
    );
    assert_eq!(alone(&["foo"]), "ERROR: unknown command: \"foo\"\n");
    assert_eq!(alone(&["inspect", "nope"]), "ERROR: no builder \"nope\" found\n");
    for name in ["bake", "history", "imagetools", "policy", "dap"] {
        assert!(alone(&[name, "x"]).starts_with(&format!("ERROR: {name} is not built yet: ")), "{name}");
    }
    let mut under_docker =
        command(&env, &plugin(&env), &["--log-level", "info", "buildx", "build", "--foo", "."]);
    under_docker.env("DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND", "docker");
    let out = run(under_docker);
    assert_eq!(out.status, 125);
    assert!(
        out.stderr.starts_with("unknown flag: --foo\n\nUsage:  docker buildx build [OPTIONS]"),
        "{}",
        out.stderr
    );
}

#[test]
fn every_command_has_help() {
    let env = env();
    let all = buildx(&env, &["--help"]).success().stdout;
    for name in ["bake", "build", "create", "dial-stdio", "du", "inspect", "ls", "prune", "rm", "stop", "use"]
    {
        assert!(all.contains(&format!("  {name} ")), "{name}: {all}");
        let help = buildx(&env, &[name, "--help"]).success().stdout;
        assert!(help.contains(&format!("docker-buildx {name}")), "{help}");
    }
    let words = buildx(&env, &["__complete", "build", "--pu"]).success().stdout;
    assert!(words.contains("--pull\t") && words.contains("--push\t") && words.ends_with(":4\n"), "{words}");
}

#[test]
fn builders_live_in_buildxs_files() {
    let env = env();
    let remote = "unix:///nonexistent/b.sock";
    let create = ["create", "--name", "b", "--driver", "remote", "--use", remote];
    assert_eq!(buildx(&env, &create).success().stdout, "b\n");
    let again = buildx(&env, &create).failure().stderr;
    assert!(again.contains("existing instance for \"b\" but no append mode"), "{again}");
    let dir = env.path().join("home/.docker/buildx");
    let stored = std::fs::read_to_string(dir.join("instances/b")).unwrap();
    assert!(stored.starts_with(r#"{"Name":"b","Driver":"remote","Nodes":[{"Name":"b0","#), "{stored}");
    let inspect = buildx(&env, &["inspect"]).success().stdout;
    assert!(inspect.contains("Endpoint: unix:///nonexistent/b.sock\nStatus:   inactive\n"), "{inspect}");
    let names = buildx(&env, &["ls", "--format", "{{.Name}} {{.Status}}"]).success().stdout;
    assert!(names.starts_with("b \nb0 inactive\n"), "{names}");
    let table = buildx(&env, &["ls"]).success().stdout;
    assert!(table.starts_with("NAME/NODE") && table.contains("\nb* "), "{table}");
    let _ = buildx(&env, &["use", "default"]).success();
    assert_eq!(buildx(&env, &["rm", "b"]).success().stderr, "b removed\n");
    assert!(!dir.join("instances/b").exists());
}

#[test]
fn an_engine_that_is_not_there_is_named() {
    let env = env();
    let mut build = command(&env, &plugin(&env), &["build", "."]);
    build.env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    let out = run(build).failure().stderr;
    assert!(out.contains("failed to connect to the docker API at unix:///nonexistent/docker.sock"), "{out}");
    assert!(out.contains("hint: "), "{out}");
}

/// A world with a builder `k` that is kiln's own daemon.
fn with_builder() -> Option<World> {
    let w = world()?;
    let _ = buildx(&w.env, &["create", "--name", "k", "--driver", "kiln", "--use"]).success();
    w.context("Dockerfile", FILE);
    Some(w)
}

#[test]
fn a_build_on_kilns_own_daemon_root() {
    let Some(w) = with_builder() else { return };
    let metadata = w.env.path().join("md.json");
    let args = ["build", "-t", "app", "--metadata-file", metadata.to_str().unwrap(), "."];
    let out = buildx(&w.env, &args).success();
    assert!(
        out.stderr.starts_with("#0 building with \"k\" instance using kiln driver\n\n#1 [internal]"),
        "{}",
        out.stderr
    );
    let metadata: serde_json::Value = serde_json::from_slice(&std::fs::read(&metadata).unwrap()).unwrap();
    let build_ref = metadata["buildx.build.ref"].as_str().unwrap();
    let refs = w.env.path().join("home/.docker/buildx/refs");
    let id = build_ref.strip_prefix("k/k0/").expect(build_ref);
    assert!(std::fs::read_to_string(refs.join("k/k0").join(id)).unwrap().contains("\"LocalPath\""));
    let id = buildx(&w.env, &["build", "-q", "-t", "app", "."]).success();
    assert_eq!((id.stdout.trim().len(), id.stderr.as_str()), (71, ""));
    let out = buildx(&w.env, &["build", "-o", "out", "."]).success();
    assert_eq!(out.cached(), 1);
    assert_eq!(std::fs::read_to_string(w.env.path().join("context/out/x")).unwrap(), "hi\n");
    let du = buildx(&w.env, &["du", "--filter", "type=regular"]).success().stdout;
    assert!(du.starts_with("ID ") && du.contains("RECLAIMABLE"), "{du}");
    let pruned = buildx(&w.env, &["prune", "-af"]).success().stdout;
    assert!(pruned.contains("\nTotal:\t"), "{pruned}");
    assert!(
        buildx(&w.env, &["inspect", "--bootstrap"]).success().stdout.contains("Status:           running")
    );
}

#[test]
fn a_build_that_fails_root() {
    let Some(w) = with_builder() else { return };
    w.context("Dockerfile", "FROM busybox\nRUN exit 7\n");
    let out = buildx(&w.env, &["build", "."]).failure().stderr;
    let end = "ERROR: failed to build: failed to solve: process \"/bin/sh -c exit 7\" did not complete successfully: exit code: 7\n";
    assert!(out.ends_with(end), "{out}");
    assert!(
        out.contains("Dockerfile:2\n--------------------\n") && out.contains("   2 | >>> RUN exit 7"),
        "{out}"
    );
    let out = buildx(&w.env, &["build", "/nonexistent"]).failure().stderr;
    assert_eq!(out, "ERROR: failed to build: unable to prepare context: path \"/nonexistent\" not found\n");
}

#[test]
fn a_dockerfile_is_asked_root() {
    let Some(w) = with_builder() else { return };
    assert_eq!(
        buildx(&w.env, &["build", "--check", "."]).success().stdout,
        "Check complete, no warnings found.\n"
    );
    w.context("Dockerfile", "FROM busybox AS one\nARG V=1\nfrom one\n");
    let out = buildx(&w.env, &["build", "--check", "."]).failure().stdout;
    assert!(
        out.starts_with("Check complete, 1 warning has been found!\n\nWARNING: ConsistentInstructionCasing"),
        "{out}"
    );
    let out = buildx(&w.env, &["build", "--call", "targets", "."]).success().stdout;
    assert_eq!(out, "TARGET    DESCRIPTION\none       \n(default) \n");
}

#[test]
fn the_docker_cli_ends_a_build_root() {
    let Some(w) = with_builder() else { return };
    w.context("Dockerfile", "FROM busybox\nRUN sleep 300\n");
    let socket = w.env.path().join("run/plugin.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut build = command(&w.env, &plugin(&w.env), &["buildx", "build", "."]);
    build.env("DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND", "docker").env("DOCKER_CLI_PLUGIN_SOCKET", &socket);
    let mut child = build.stderr(Stdio::piped()).spawn().unwrap();
    let (connection, _) = listener.accept().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert!(child.try_wait().unwrap().is_none(), "it builds");
    drop(connection);
    kiln_testkit::wait_until("the build ends", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_program_speaks_to_the_daemon_through_stdio_root() {
    let Some(w) = with_builder() else { return };
    let mut dial = command(&w.env, &plugin(&w.env), &["dial-stdio"]);
    let mut child = dial.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // The preface of HTTP/2 and empty settings; the answer begins with the daemon's settings.
    let hello = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    std::io::Write::write_all(&mut stdin, &hello).unwrap();
    let mut frame = [0; 9];
    child.stdout.as_mut().unwrap().read_exact(&mut frame).unwrap();
    assert_eq!(frame[3], 4, "a SETTINGS frame");
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_real_docker_cli_drives_the_plugin_root() {
    if !require(&[Need::Program("docker")]) {
        return;
    }
    if UnixStream::connect("/var/run/docker.sock").is_ok() {
        eprintln!("SKIPPED: a Docker Engine runs here, and docker build would go to it");
        return;
    }
    let Some(w) = world() else { return };
    w.context("Dockerfile", FILE);
    plugin(&w.env);
    let docker = |args: &[&str]| run(command(&w.env, Path::new("docker"), args));
    assert!(docker(&["buildx", "version"]).success().stdout.starts_with("github.com/docker/buildx"));
    let out = docker(&["build", "-t", "app", "."]).success().stderr;
    assert!(out.starts_with("#0 building with \"default\" instance using kiln driver\n"), "{out}");
    assert_eq!(docker(&["buildx", "build", "-t", "app", "."]).success().cached(), 1);
    let ls = docker(&["buildx", "ls"]).success().stdout;
    assert!(ls.contains("default*") && ls.contains("running"), "{ls}");
    assert!(docker(&["builder", "du"]).success().stdout.contains("Total:"));
    assert!(docker(&["builder", "prune", "-f"]).success().stdout.contains("Total:"));
    let address = format!("unix://{}", w.env.socket().display());
    let _ = docker(&["buildx", "create", "--name", "r", "--driver", "remote", "--use", &address]).success();
    let out = docker(&["buildx", "build", "."]).success().stderr;
    assert!(
        out.contains("using remote driver")
            && out.contains("WARNING: No output specified with remote driver."),
        "{out}"
    );
    let _ = docker(&["buildx", "stop"]).success();
    assert_eq!(docker(&["buildx", "rm", "r"]).success().stderr, "r removed\n");
    let out = docker(&["buildx", "build", "--load", "."]).failure().stderr;
    assert!(out.contains("hint: there is no Docker Engine to load the image into"), "{out}");
    assert_eq!(docker(&["buildx", "build", "--foo"]).status, 125);
}

#[test]
fn a_builder_in_a_container_root() {
    let Some(w) = world() else { return };
    w.context("Dockerfile", FILE);
    let socket = w.env.path().join("run/docker.sock");
    let asked = engine::start(&socket, &w.env.socket());
    let config = w.env.write("b.toml", "debug = true\n");
    let docker = |args: &[&str]| {
        let mut command = command(&w.env, &plugin(&w.env), args);
        command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
        run(command)
    };
    let options =
        ["--driver-opt", "image=kiln-image,env.A=b", "--buildkitd-config", config.to_str().unwrap()];
    let create =
        [&["create", "--name", "c", "--driver", "docker-container", "--bootstrap"][..], &options].concat();
    let out = docker(&create).success();
    assert_eq!(out.stdout, "c\n");
    for step in [
        "[internal] booting buildkit",
        "using local image kiln-image",
        "creating container buildx_buildkit_c0",
    ] {
        assert!(out.stderr.contains(step), "{step}: {}", out.stderr);
    }
    let out = docker(&["build", "--builder", "c", "-t", "app", "--load", "."]).success().stderr;
    assert!(out.contains("using docker-container driver") && out.contains("importing to docker"), "{out}");
    let out = docker(&["build", "--builder", "c", "."]).success().stderr;
    assert!(out.contains("WARNING: No output specified with docker-container driver."), "{out}");
    assert!(docker(&["inspect", "c"]).success().stdout.contains("Status:                running"));
    let _ = docker(&["stop", "c"]).success();
    assert!(docker(&["inspect", "c"]).success().stdout.contains("Status:                stopped"));
    assert_eq!(docker(&["rm", "c"]).success().stderr, "c removed\n");
    let asked = asked.lock().unwrap().join("\n");
    for part in [
        "POST /containers/create?name=buildx_buildkit_c0 {\"Image\":\"kiln-image\",\"Env\":[\"A=b\"],\"Cmd\":[\"--config\",\"/etc/buildkit/buildkitd.toml\",\"--allow-insecure-entitlement=network.host\"]",
        "\"Privileged\":true",
        "\"CgroupParent\":\"/docker/buildx\"",
        "PUT /containers/buildx_buildkit_c0/archive?path=%2Fetc ",
        "\"Cmd\":[\"buildctl\",\"debug\",\"workers\"]",
        "\"Cmd\":[\"buildctl\",\"dial-stdio\"]",
        "POST /images/load?quiet=1 ",
        "DELETE /containers/buildx_buildkit_c0?force=1&v=1",
        "DELETE /volumes/buildx_buildkit_c0_state",
    ] {
        assert!(asked.contains(part), "{part}\n{asked}");
    }
}
