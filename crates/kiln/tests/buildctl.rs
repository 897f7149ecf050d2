//! The binary under the name buildctl.

mod common;

use common::{World, world};
use kiln_proto::pb;
use kiln_testkit::{Env, Need, Output, free_port, require, wait_until};
use prost::Message as _;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const FILE: &str = "FROM busybox\nRUN echo 'hello <you>' > /x && cat /x\n";

/// The binary under another name.
fn face(env: &Env, name: &str) -> PathBuf {
    let path = env.path().join("bin").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    if !path.exists() {
        symlink(env!("CARGO_BIN_EXE_kiln"), &path).unwrap();
    }
    path
}

/// A program with the world's environment, its own programs first.
fn command(env: &Env, program: &Path, args: &[&str]) -> Command {
    let sealed = env.command(&[]);
    let mut command = Command::new(program);
    command.args(args).current_dir(env.path().join("context")).env_clear().stdin(Stdio::null());
    for (name, value) in sealed.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let path = format!("{}:{}", env.path().join("bin").display(), std::env::var("PATH").unwrap_or_default());
    command.env("PATH", path);
    command.env("BUILDKIT_HOST", format!("unix://{}", env.socket().display()));
    command
}

fn finish(mut command: Command) -> Output {
    let out = command.output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Output { status: out.status.code().unwrap_or(-1), stdout: text(&out.stdout), stderr: text(&out.stderr) }
}

fn buildctl(env: &Env, args: &[&str]) -> Output {
    finish(command(env, &face(env, "buildctl"), args))
}

fn build(world: &World, more: &[&str]) -> Output {
    world.context("Dockerfile", FILE);
    let args = ["build", "--frontend", "dockerfile.v0", "--local", "context=.", "--local", "dockerfile=."];
    buildctl(&world.env, &[&args, more].concat())
}

#[test]
fn the_version_is_four_words() {
    let out = buildctl(&Env::new(env!("CARGO_BIN_EXE_kiln")), &["--version"]).success();
    // nerdctl wants exactly these.
    let words: Vec<&str> = out.stdout.split_whitespace().collect();
    assert!(
        matches!(words[..], ["buildctl", "github.com/moby/buildkit", version, _] if version.starts_with("v0."))
    );
    assert_eq!(out.stdout, format!("{}\n", words.join(" ")));
}

#[test]
fn mistakes_are_told_as_buildctl_tells_them() {
    let env = Env::new(env!("CARGO_BIN_EXE_kiln"));
    let socket = env.socket();
    let unreachable = format!(
        "connection error: desc = \"transport: Error while dialing: dial unix {}: connect: no such file or directory\"",
        socket.display()
    );
    let stream = "rpc error: code = Unavailable desc = rpc error: code = Unavailable desc = ";
    for (args, expected) in [
        (&["debug", "workers"][..], format!("error: failed to list workers: Unavailable: {unreachable}\n")),
        (&["du"], format!("error: failed to call diskusage: Unavailable: {unreachable}\n")),
        (&["prune"], format!("error: failed to call prune: {stream}{unreachable}\n")),
        (&["debug", "histories"], format!("error: {stream}{unreachable}\n")),
        (&["debug", "get", "x"], "error: invalid checksum digest format\n".into()),
        (&["debug", "ctl", "x"], "error: must specify one of --pin, --unpin, --delete\n".into()),
        (
            &["build", "--frontend", "dockerfile.v0", "--output", "type=local"],
            "error: invalid output option: output: output directory is required for local exporter\n".into(),
        ),
        (&["build"], "error: please specify --frontend or pipe LLB definition to stdin\n".into()),
        (
            &["build", "--frontend", "dockerfile.v0", "--progress", "nosuch"],
            "error: invalid progress mode nosuch\n".into(),
        ),
        (
            &["du", "--nosuch"],
            "Incorrect Usage: flag provided but not defined: -nosuch\n\nerror: flag provided but not defined: -nosuch\n"
                .into(),
        ),
        (&["--addr", "docker-container://", "du"], "error: url lacks container name\n".into()),
        (&["--addr", "tcp://127.0.0.1:1", "dial-stdio"], "error: invalid address tcp://127.0.0.1:1 (expected unix://, got tcp://)\n".into()),
    ] {
        let out = buildctl(&env, args);
        assert_eq!((out.status, out.stdout.as_str(), out.stderr.as_str()), (1, "", expected.as_str()), "{args:?}");
    }
    let out = buildctl(&env, &["nosuch"]);
    assert_eq!((out.status, out.stderr.as_str()), (3, "No help topic for 'nosuch'\n"));
    assert!(buildctl(&env, &["--help"]).success().stdout.contains("   build, b         build\n"));
    assert!(buildctl(&env, &["--version"]).success().stdout.starts_with("buildctl "));
}

#[test]
fn a_build_and_its_history_root() {
    let Some(w) = world() else { return };
    let out = build(
        &w,
        &[
            "--output",
            "type=local,dest=../out",
            "--metadata-file",
            "../meta.json",
            "--ref-file",
            "../ref",
            "--trace",
            "../trace",
            "--progress",
            "plain",
        ],
    )
    .success();
    assert!(out.stderr.contains("] RUN echo 'hello <you>'"), "{}", out.stderr);
    assert_eq!(std::fs::read_to_string(w.env.path().join("out/x")).unwrap(), "hello <you>\n");
    let trace = std::fs::read_to_string(w.env.path().join("trace")).unwrap();
    assert!(trace.contains("hello \\u003cyou\\u003e"), "{trace}");
    assert!(std::fs::read_to_string(w.env.path().join("meta.json")).unwrap().starts_with('{'));
    let reference = std::fs::read_to_string(w.env.path().join("ref")).unwrap();

    let table = buildctl(&w.env, &["debug", "histories"]).success().stdout;
    assert!(table.starts_with("TYPE\t") && table.contains(&reference), "{table}");
    let json = buildctl(&w.env, &["debug", "histories", "--format", "{{json .}}"]).success().stdout;
    let event: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&event["type"], &event["record"]["Ref"]), (&1.into(), &reference.as_str().into()));
    let log = buildctl(&w.env, &["debug", "logs", "--progress", "plain", &reference]).success().stdout;
    assert!(log.contains(" hello <you>\n"), "{log}");
    let digest = event["record"]["logs"]["digest"].as_str().unwrap();
    assert!(!buildctl(&w.env, &["debug", "get", digest]).success().stdout.is_empty());

    let _ = buildctl(&w.env, &["debug", "ctl", "--pin", &reference]).success();
    assert!(!buildctl(&w.env, &["prune-histories"]).success().stdout.contains(&reference));
    let _ = buildctl(&w.env, &["debug", "ctl", "--unpin", &reference]).success();
    assert!(buildctl(&w.env, &["prune-histories"]).success().stdout.contains(&reference));
    let out = buildctl(&w.env, &["debug", "logs", "nosuch"]).failure();
    assert!(out.stderr.starts_with("error: rpc error: code = NotFound desc = "), "{}", out.stderr);
}

#[test]
fn what_the_daemon_holds_root() {
    let Some(w) = world() else { return };
    let out = build(&w, &["--progress", "quiet"]).success();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
    let du = buildctl(&w.env, &["du"]).success().stdout;
    assert!(du.starts_with("ID") && du.contains("\nTotal:\t"), "{du}");
    let count = buildctl(&w.env, &["du", "--format", "{{len .}}"]).success().stdout;
    assert!(count.trim().parse::<usize>().unwrap() > 0, "{count}");
    let pruned = buildctl(&w.env, &["prune", "--all"]).success().stdout;
    assert!(pruned.starts_with("ID") && pruned.contains("\nTotal:\t"), "{pruned}");
    let workers = buildctl(&w.env, &["debug", "workers", "-v"]).success().stdout;
    assert!(workers.contains("\nLabels:\n\torg.mobyproject.buildkit.worker.executor:\t"), "{workers}");
    assert!(buildctl(&w.env, &["debug", "info"]).success().stdout.starts_with("BuildKit: "));
}

#[test]
fn a_question_to_the_frontend_root() {
    let Some(w) = world() else { return };
    let out = build(&w, &["--opt", "requestid=frontend.subrequests.describe", "--progress", "quiet"]);
    let out = out.success();
    assert!(out.stdout.contains("List available subrequest types"), "{}", out.stdout);
}

#[test]
fn a_failing_step_is_shown_in_its_file_root() {
    let Some(w) = world() else { return };
    w.context("Dockerfile", "FROM busybox\nRUN exit 7\n");
    let args = ["build", "--frontend", "dockerfile.v0", "--local", "context=.", "--local", "dockerfile=."];
    let out = buildctl(&w.env, &[&args[..], &["--progress", "quiet"]].concat()).failure();
    assert_eq!(
        out.stderr,
        "Dockerfile:2\n--------------------\n   1 |     FROM busybox\n   2 | >>> RUN exit 7\n   3 |     \n--------------------\nerror: failed to solve: process \"/bin/sh -c exit 7\" did not complete successfully: exit code: 7\n"
    );
}

/// A graph that makes one file.
fn graph() -> Vec<u8> {
    let mkfile = pb::FileActionMkFile {
        path: "/made".into(),
        mode: 0o644,
        data: b"here".to_vec(),
        timestamp: -1,
        ..Default::default()
    };
    let action = pb::FileAction {
        input: -1,
        secondary_input: -1,
        action: Some(pb::file_action::Action::Mkfile(mkfile)),
        ..Default::default()
    };
    let file =
        pb::Op { op: Some(pb::op::Op::File(pb::FileOp { actions: vec![action] })), ..Default::default() };
    let file = file.encode_to_vec();
    let digest = kiln_digest::Digest::sha256(&file).to_string();
    let root = pb::Op { inputs: vec![pb::Input { digest, index: 0 }], ..Default::default() };
    pb::Definition { def: vec![file, root.encode_to_vec()], ..Default::default() }.encode_to_vec()
}

#[test]
fn a_graph_from_a_pipe_root() {
    let Some(w) = world() else { return };
    let run = |input: &[u8], args: &[&str]| {
        let path = w.env.write("graph", input);
        let mut command = command(&w.env, &face(&w.env, "buildctl"), args);
        command.stdin(std::fs::File::open(path).unwrap());
        finish(command)
    };
    for no_cache in [&[][..], &["--no-cache"]] {
        let _ =
            run(&graph(), &[&["build", "--output", "type=local,dest=../out"], no_cache].concat()).success();
        assert_eq!(std::fs::read_to_string(w.env.path().join("out/made")).unwrap(), "here");
    }
    let json = run(&graph(), &["debug", "dump-llb"]).success().stdout;
    assert!(json.contains("\"mkfile\":{\"path\":\"/made\",\"mode\":420,\"data\":\"aGVyZQ==\""), "{json}");
    let dot = run(&graph(), &["debug", "dump-llb", "--dot"]).success().stdout;
    assert!(dot.contains("[label=\"mkfile{path=/made}\" shape=\"note\"]"), "{dot}");
    let out = run(b"", &["build"]).failure();
    assert_eq!(out.stderr, "error: empty definition sent to build. Specify --frontend instead?\n");
    let out = run(b"no graph", &["build"]).failure();
    assert!(out.stderr.starts_with("error: failed to parse input: "), "{}", out.stderr);
}

#[test]
fn an_image_layout_of_the_client_root() {
    let Some(w) = world() else { return };
    let _ = build(&w, &["--output", "type=oci,tar=false,dest=../layout", "--metadata-file", "../meta.json"])
        .success();
    let meta = std::fs::read_to_string(w.env.path().join("meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
    let digest = meta["containerimage.digest"].as_str().unwrap();
    w.context("Dockerfile", "FROM base\nRUN cat /x > /y\n");
    let context = format!("context:base=oci-layout://mine/app@{digest}");
    let args = ["build", "--frontend", "dockerfile.v0", "--local", "context=.", "--local", "dockerfile=."];
    let more = ["--oci-layout", "mine=../layout", "--opt", &context, "--output", "type=local,dest=../out"];
    let _ = buildctl(&w.env, &[&args[..], &more].concat()).success();
    assert_eq!(std::fs::read_to_string(w.env.path().join("out/y")).unwrap(), "hello <you>\n");
}

/// A program that runs what follows the container's name, as `docker exec` does.
fn fake_docker(env: &Env) {
    let script = "#!/bin/sh\necho \"$@\" >> \"$HOME/docker.log\"\n[ \"$3\" = dead ] && { echo 'No such container: dead' >&2; exit 1; }\n[ \"$3\" = noisy ] && { echo hello; cat > /dev/null; exit 0; }\nshift 3\nexec \"$@\"\n";
    let _ = face(env, "buildctl");
    let path = env.write("bin/docker", script);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_daemon_in_a_container_root() {
    let Some(w) = world() else { return };
    fake_docker(&w.env);
    let out = buildctl(&w.env, &["--addr", "docker-container://c", "debug", "workers"]).success();
    assert!(out.stdout.starts_with("ID\t"), "{}", out.stdout);
    let _ = build(&w, &["--addr", "docker-container://c", "--output", "type=tar,dest=../t.tar"]).success();
    assert!(w.env.path().join("t.tar").metadata().unwrap().len() > 512);
    let log = std::fs::read_to_string(w.env.path().join("home/docker.log")).unwrap();
    assert!(log.lines().all(|l| l == "exec -i c buildctl dial-stdio"), "{log}");
}

#[test]
fn a_container_that_is_not_there_or_says_something_else() {
    let env = Env::new(env!("CARGO_BIN_EXE_kiln"));
    fake_docker(&env);
    let error = |name: &str| {
        let address = format!("docker-container://{name}");
        buildctl(&env, &["--addr", &address, "debug", "workers"]).failure().stderr
    };
    let dead = error("dead");
    assert!(dead.contains("command [docker exec -i dead buildctl dial-stdio] has exited with"), "{dead}");
    assert!(dead.contains("stderr=No such container: dead"), "{dead}");
    let noisy = error("noisy");
    assert!(noisy.contains("it does not speak gRPC; it says \"hello\""), "{noisy}");
}

#[test]
fn stdio_ends_when_one_side_does_root() {
    let Some(w) = world() else { return };
    let program = face(&w.env, "buildctl");
    let mut child = command(&w.env, &program, &["dial-stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The daemon greets with its settings whatever the client does, and ends when the client says nothing more.
    let mut head = [0; 9];
    child.stdout.as_mut().unwrap().read_exact(&mut head).unwrap();
    assert_eq!(head[3], 4);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    drop(stdin);
    wait_until("dial-stdio ends", || child.try_wait().unwrap().is_some());
}

/// Kills it when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn certificates(env: &Env) -> PathBuf {
    let dir = env.path().join("certs");
    std::fs::create_dir_all(&dir).unwrap();
    let script = "set -e
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca
printf 'subjectAltName=DNS:builder,IP:127.0.0.1\\n' > ext
for n in server client; do
  openssl req -newkey rsa:2048 -nodes -keyout $n.key -out $n.csr -subj /CN=$n
  openssl x509 -req -in $n.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $n.pem
done
cp client.pem cert.pem; cp client.key key.pem";
    let out = Command::new("sh").args(["-c", script]).current_dir(&dir).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    dir
}

#[test]
fn certificates_on_both_sides_root() {
    if !require(&[Need::Root, Need::Program("openssl")]) {
        return;
    }
    let env = Env::new(env!("CARGO_BIN_EXE_kiln"));
    let certs = certificates(&env);
    let address = format!("tcp://127.0.0.1:{}", free_port());
    let file = |name: &str| certs.join(name).display().to_string();
    let root = env.path().join("root").display().to_string();
    let (cert, key, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
    let args =
        ["--root", &root, "--addr", &address, "--tlscert", &cert, "--tlskey", &key, "--tlscacert", &ca];
    let log = std::fs::File::create(env.path().join("daemon.log")).unwrap();
    let mut daemon = command(&env, &face(&env, "buildkitd"), &args);
    let _daemon = Running(daemon.stderr(log.try_clone().unwrap()).stdout(log).spawn().unwrap());

    let tls = certs.display().to_string();
    let with =
        |flags: &[&str]| buildctl(&env, &[&["--addr", &address], flags, &["debug", "workers"]].concat());
    let waiting = with(&["--tlsdir", &tls, "--wait", "--timeout", "60"]);
    assert!(waiting.success().stdout.starts_with("ID\t"));
    let (own, own_key) = (file("cert.pem"), file("key.pem"));
    let identity = ["--tlscacert", &ca, "--tlscert", &own, "--tlskey", &own_key];
    let _ = with(&[&identity[..], &["--tlsservername", "builder"]].concat()).success();
    let other = with(&[&identity[..], &["--tlsservername", "other"]].concat()).failure().stderr;
    assert!(other.contains("authentication handshake failed") && other.contains("other"), "{other}");
    let anonymous = with(&["--tlscacert", &ca]).failure().stderr;
    assert!(anonymous.contains("error reading server preface"), "{anonymous}");
    let plain = with(&[]).failure().stderr;
    assert!(plain.contains("error reading server preface"), "{plain}");
}
