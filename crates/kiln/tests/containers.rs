//! Containers on results of a build, and processes in them, driven in raw messages.

mod common;
#[path = "common/exec.rs"]
mod exec;
#[path = "common/gateway.rs"]
mod raw;

use exec::{Stream, begin, image, init, mount, request};
use kiln_proto::control::SolveRequest;
use kiln_proto::gateway::exec_message::Input;
use kiln_proto::{gateway, pb};
use kiln_testkit::PATIENCE;
use raw::{Bridge, Client, result, run, solve};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tonic::Code;

const UNKNOWN: u32 = u32::MAX;

/// What is wrong, what is sent to which process, and the answer.
type Case = (&'static str, Vec<(&'static str, Input)>, Code);

#[tokio::test]
async fn several_processes_talk_at_once_root() {
    let Some(w) = common::world() else { return };
    let (mut bridge, build) = begin(&w, "several").await;
    let mut stream = Stream::open(&mut bridge).await;
    stream.start("one", "c", "cat > /tmp/from-one; echo $$; exit 0", &[0, 1]).await;
    stream.start("two", "c", "cat; echo two >&2; exit 4", &[0, 1, 2]).await;
    stream.write("two", "hel", false).await;
    stream.write("two", "lo", true).await;
    let said = stream.done(&["two"]).await;
    assert_eq!((said["two"].text(), said["two"].out[&2].as_str()), ("hello", "two\n"));
    assert_eq!((said["two"].code(), said["two"].error()), (4, "exit code: 4"));
    let mut eof = said["two"].eof.clone();
    eof.sort_unstable();
    assert_eq!(eof, [1, 2]);
    let env = stream.sh("c", "echo $PATH; pwd; id -u; cat /proc/1/comm; test $(readlink /proc/self/ns/pid) = $(readlink /proc/1/ns/pid) && echo 1").await;
    assert_eq!(env.text(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n/\n0\nsh\n1\n");
    let missing = gateway::InitMessage {
        meta: Some(pb::Meta { args: vec!["no-such".into()], ..pb::Meta::default() }),
        ..init("c", "", &[1])
    };
    stream.init("missing", missing).await;
    let missing = stream.done(&["missing"]).await.remove("missing").unwrap();
    assert!(missing.code() == 127 && missing.error().contains("executable file not found"), "{missing:?}");
    stream.write("one", "data", true).await;
    // It started before; only what it says now is new.
    stream.wait_for("one", "1\n").await;
    while !matches!(stream.next().await.unwrap().unwrap().input, Some(Input::Done(_))) {}
    bridge.release_container(gateway::ReleaseContainerRequest { container_id: "c".into() }).await.unwrap();
    bridge.r#return(result("")).await.unwrap();
    build.await.unwrap().unwrap();
}

#[tokio::test]
async fn terminals_sizes_and_signals_root() {
    let Some(w) = common::world() else { return };
    let (mut bridge, build) = begin(&w, "signals").await;
    let mut stream = Stream::open(&mut bridge).await;
    stream.start("first", "c", "sleep 1000 & wait", &[]).await;
    let script =
        "trap 'stty size' WINCH; trap 'echo usr; exit 9' USR1; echo $TERM; tty; while :; do sleep 0.05; done";
    stream.init("tty", gateway::InitMessage { tty: true, ..init("c", script, &[0, 1]) }).await;
    assert_eq!(stream.wait_for("tty", "pts/0\r\n").await, "xterm\r\n/dev/pts/0\r\n");
    stream.send("tty", Input::Resize(gateway::ResizeMessage { rows: 41, cols: 91 })).await;
    stream.wait_for("tty", "41 91").await;
    stream.signal("tty", "USR1").await;
    let rest = {
        let mut code = None;
        while let Some(message) = stream.next().await.unwrap() {
            match message.input {
                Some(Input::Exit(exit)) => code = Some(exit.code),
                Some(Input::Done(_)) => break,
                _ => {}
            }
        }
        code
    };
    assert_eq!(rest, Some(9));
    for (name, code) in [("TERM", 143), ("KILL", 137), ("INT", 130)] {
        let id = format!("sleep-{name}");
        stream.start(&id, "c", "echo up; exec sleep 1000", &[1]).await;
        stream.wait_for(&id, "up").await;
        stream.signal(&id, name).await;
        let exit = loop {
            if let Some(Input::Exit(exit)) = stream.next().await.unwrap().unwrap().input {
                break exit;
            }
        };
        assert_eq!((exit.code, exit.error.unwrap().message), (code, format!("exit code: {code}")), "{name}");
    }
    // The end of the first process is the end of all.
    stream.start("last", "c", "echo up; exec sleep 1000", &[1]).await;
    stream.wait_for("last", "up").await;
    stream.signal("first", "KILL").await;
    let mut codes = BTreeMap::new();
    while codes.len() < 2 {
        let message = stream.next().await.unwrap().unwrap();
        if let Some(Input::Exit(exit)) = message.input {
            codes.insert(message.process_id, exit.code);
        }
    }
    assert_eq!(codes, BTreeMap::from([("first".into(), 137), ("last".into(), 137)]));
    build.abort();
}

#[tokio::test]
async fn a_client_that_goes_takes_its_processes_along_root() {
    let Some(w) = common::world() else { return };
    let (mut bridge, build) = begin(&w, "goes").await;
    let mark = format!("{}", 100_000 + rand::random::<u16>() as u32);
    let alive = || {
        let ps = std::process::Command::new("ps").args(["axo", "args"]).output().unwrap();
        String::from_utf8_lossy(&ps.stdout).lines().filter(|l| *l == format!("sleep {mark}")).count()
    };
    let until = async |count: usize, what: &str| {
        let end = Instant::now() + PATIENCE;
        while alive() != count {
            assert!(Instant::now() < end, "{what}: {} run", alive());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let run = format!("echo up; exec sleep {mark}");
    // The stream ends without a word.
    let mut stream = Stream::open(&mut bridge).await;
    stream.start("first", "c", "sleep 1000", &[1]).await;
    stream.start("p", "c", &run, &[1]).await;
    stream.wait_for("p", "up").await;
    until(1, "it sleeps").await;
    drop(stream);
    until(0, "the stream is gone").await;
    // The container is released: its processes say that they were canceled.
    let root = image(&mut bridge).await;
    bridge.new_container(request("d", vec![mount("/", &root)])).await.unwrap();
    let mut stream = Stream::open(&mut bridge).await;
    stream.start("p", "d", &run, &[1]).await;
    stream.wait_for("p", "up").await;
    let release = gateway::ReleaseContainerRequest { container_id: "d".into() };
    let killed = bridge.release_container(release.clone()).await.unwrap_err();
    assert_eq!((killed.code(), killed.message()), (Code::Cancelled, "context canceled"));
    until(0, "the container is released").await;
    let exit = loop {
        if let Some(Input::Exit(exit)) = stream.next().await.unwrap().unwrap().input {
            break exit;
        }
    };
    assert_eq!((exit.code, exit.error.unwrap().message.as_str()), (UNKNOWN, "context canceled"));
    assert!(bridge.release_container(release).await.unwrap_err().message().contains("not found"));
    // The build ends.
    bridge.new_container(request("d", vec![mount("/", &root)])).await.unwrap();
    let mut stream = Stream::open(&mut bridge).await;
    stream.start("p", "d", &run, &[1]).await;
    stream.wait_for("p", "up").await;
    bridge.r#return(result("")).await.unwrap();
    build.await.unwrap().unwrap();
    until(0, "the build is over").await;
    // The daemon is killed.
    let (mut bridge, _build) = begin(&w, "again").await;
    let mut stream = Stream::open(&mut bridge).await;
    stream.start("first", "c", "sleep 1000", &[1]).await;
    stream.start("p", "c", &run, &[1]).await;
    stream.wait_for("p", "up").await;
    w.daemon.unwrap().kill();
    until(0, "the daemon is gone").await;
}

#[tokio::test]
async fn mounts_and_their_files_root() {
    let Some(w) = common::world() else { return };
    let (mut bridge, build) = Client::connect(&w.env.socket()).await.begin("mounts");
    let root = image(&mut bridge).await;
    let made = solve(&mut bridge, run("mkdir -p /d/sub && echo in > /d/sub/f && ln -s /d/sub/f /abs"))
        .await
        .unwrap();
    let mut mounts = vec![
        mount("/", &root),
        pb::Mount { selector: "/d".into(), readonly: true, ..mount("/ro", &made) },
        pb::Mount { selector: "d/sub".into(), ..mount("/rw", &made) },
        pb::Mount {
            mount_type: 3,
            cache_opt: Some(pb::CacheOpt { id: "../../x".into(), sharing: 0 }),
            ..mount("/cache", "")
        },
        pb::Mount { mount_type: 4, tmpfs_opt: Some(pb::TmpfsOpt { size: 1 << 20 }), ..mount("/t", "") },
        mount("/scratch", ""),
    ];
    let request = |mounts: &[pb::Mount]| gateway::NewContainerRequest {
        hostname: "box".into(),
        extra_hosts: vec![pb::HostIp { host: "db".into(), ip: "10.1.2.3".into() }],
        network: 2,
        ..request("c", mounts.to_vec())
    };
    bridge.new_container(request(&mounts)).await.unwrap();
    let mut stream = Stream::open(&mut bridge).await;
    let first = stream
        .sh("c", "hostname; grep -c 10.1.2.3 /etc/hosts; cat /ro/sub/f /rw/f; (echo x > /ro/x) 2>/dev/null || echo ro; \
                  echo out > /rw/f; echo s > /scratch/s; echo c > /cache/c; df -k /t | tail -1 | awk '{print $2}'; \
                  echo r > /r; ls /sys/class/net; exec sleep 0")
        .await;
    assert_eq!(first.text(), "box\n1\nin\nin\nro\n1024\nlo\n");
    let read = async |bridge: &mut Bridge, index: i32, path: &str| {
        let read = gateway::ReadFileRequest {
            r#ref: "c".into(),
            file_path: path.into(),
            mount_index: index,
            ..Default::default()
        };
        bridge.read_file_container(read).await.map(|r| String::from_utf8(r.into_inner().data).unwrap())
    };
    assert_eq!(read(&mut bridge, 0, "/r").await.unwrap(), "r\n");
    assert_eq!(read(&mut bridge, 1, "/d/sub/f").await.unwrap(), "in\n");
    assert_eq!(read(&mut bridge, 2, "/d/sub/f").await.unwrap(), "out\n", "its own copy was written");
    assert_eq!(read(&mut bridge, 2, "/abs").await.unwrap(), "out\n", "links are resolved in the mount");
    assert_eq!(read(&mut bridge, 3, "/c").await.unwrap(), "c\n");
    assert_eq!(read(&mut bridge, 5, "s").await.unwrap(), "s\n");
    for (index, path) in [
        (4, "/x"),
        (6, "/r"),
        (-1, "/r"),
        (i32::MAX, "/r"),
        (0, "/no"),
        (0, "/proc/1/environ"),
        (0, "../../etc/shadow"),
    ] {
        let refused = read(&mut bridge, index, path).await.unwrap_err();
        assert!(!refused.message().is_empty() && refused.message().len() < 300, "{index} {path}: {refused}");
    }
    let list = gateway::ReadDirRequest {
        r#ref: "c".into(),
        dir_path: "/d".into(),
        mount_index: 1,
        ..Default::default()
    };
    assert_eq!(bridge.read_dir_container(list).await.unwrap().into_inner().entries[0].path, "sub");
    let stat = gateway::StatFileRequest { r#ref: "c".into(), path: "/abs".into(), mount_index: 1 };
    assert_eq!(bridge.stat_file_container(stat).await.unwrap().into_inner().stat.unwrap().size, 3);
    bridge.release_container(gateway::ReleaseContainerRequest { container_id: "c".into() }).await.unwrap();
    // What was written is gone, but in the cache.
    mounts[0].readonly = true;
    bridge.new_container(request(&mounts)).await.unwrap();
    let again =
        stream.sh("c", "cat /rw/f /cache/c; ls /r /scratch; (echo x > /r) 2>/dev/null || echo ro").await;
    assert_eq!(again.text(), "in\nc\n/scratch:\nro\n");
    build.abort();
}

/// CVE-2024-23653, GHSA-7236-3392-c5c6: every way to start a process asks for the same rights as a step.
#[tokio::test]
async fn rights_that_were_not_granted_root() {
    let Some(mut w) = common::world_without_daemon() else { return };
    w.start_with(&[
        "--allow-insecure-entitlement",
        "security.insecure",
        "--allow-insecure-entitlement",
        "network.host",
    ]);
    let (mut bridge, build) = begin(&w, "rights").await;
    let mut stream = Stream::open(&mut bridge).await;
    let caps = "grep -E '^(CapEff|Seccomp):' /proc/self/status | tr -s '\\t\\n' '  '";
    let usual = stream.sh("c", caps).await.text().to_string();
    assert!(usual.contains("00000000a80425fb") && usual.contains("Seccomp: 2"), "{usual}");
    for (security, message) in [
        (1, "security.insecure is not allowed"),
        (2, "invalid security mode 2"),
        (-1, "invalid security mode -1"),
        (i32::MAX, "invalid security mode"),
    ] {
        let id = format!("s{security}");
        stream.init(&id, gateway::InitMessage { security, ..init("c", caps, &[1]) }).await;
        let said = stream.done(&[&id]).await.remove(&id).unwrap();
        assert_eq!((said.text(), said.code()), ("", UNKNOWN));
        assert!(said.error().contains(message), "{}", said.error());
    }
    let root = image(&mut bridge).await;
    let host = gateway::NewContainerRequest { network: 1, ..request("h", vec![mount("/", &root)]) };
    let refused = bridge.new_container(host.clone()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "network.host is not allowed"));
    for network in [3, -1, i32::MIN] {
        let odd = gateway::NewContainerRequest { network, ..host.clone() };
        assert_eq!(bridge.new_container(odd).await.unwrap_err().code(), Code::InvalidArgument);
    }
    build.abort();
    // Granted, they are given; a joining process has no more than the first.
    let entitlements = vec!["security.insecure".into(), "network.host".into()];
    let request2 = SolveRequest { r#ref: "granted".into(), entitlements, ..SolveRequest::default() };
    let (mut bridge, build) = Client::connect(&w.env.socket()).await.begin_with(request2);
    let root = image(&mut bridge).await;
    bridge
        .new_container(gateway::NewContainerRequest { network: 1, ..request("h", vec![mount("/", &root)]) })
        .await
        .unwrap();
    bridge.new_container(request("s", vec![mount("/", &root)])).await.unwrap();
    let mut stream = Stream::open(&mut bridge).await;
    stream.init("in", gateway::InitMessage { security: 1, ..init("h", caps, &[1]) }).await;
    let open = stream.done(&["in"]).await.remove("in").unwrap().text().to_string();
    assert!(open.contains("Seccomp: 0") && !open.contains("a80425fb"), "{open}");
    stream.start("wait", "s", "echo up; sleep 1000", &[1]).await;
    stream.wait_for("wait", "up").await;
    stream.init("more", gateway::InitMessage { security: 1, ..init("s", caps, &[1]) }).await;
    assert_eq!(stream.done(&["more"]).await["more"].text(), usual);
    build.abort();
}

#[tokio::test]
async fn wrong_messages_hurt_nobody_else_root() {
    let Some(w) = common::world() else { return };
    let (mut bridge, build) = begin(&w, "wrong").await;
    let mut good = Stream::open(&mut bridge).await;
    good.start("first", "c", "sleep 1000", &[1]).await;
    let file = |fd, data: &str| Input::File(gateway::FdMessage { fd, eof: false, data: data.into() });
    let signal = |name: &str| Input::Signal(gateway::SignalMessage { name: name.into() });
    let cases: Vec<Case> = vec![
        ("no process id", vec![("", signal("TERM"))], Code::InvalidArgument),
        ("nobody", vec![("x", signal("TERM"))], Code::NotFound),
        (
            "no signal",
            vec![("p", Input::Init(init("c", "sleep 1000", &[]))), ("p", signal("../KILL"))],
            Code::InvalidArgument,
        ),
        (
            "closed input",
            vec![("p", Input::Init(init("c", "sleep 1000", &[1]))), ("p", file(0, "x"))],
            Code::OutOfRange,
        ),
        (
            "output written",
            vec![("p", Input::Init(init("c", "sleep 1000", &[0, 1]))), ("p", file(1, "x"))],
            Code::OutOfRange,
        ),
        ("no such container", vec![("p", Input::Init(init("../c", "true", &[])))], Code::NotFound),
        (
            "twice",
            vec![
                ("p", Input::Init(init("c", "sleep 1000", &[]))),
                ("p", Input::Init(init("c", "true", &[]))),
            ],
            Code::AlreadyExists,
        ),
        (
            "many descriptors",
            vec![("p", Input::Init(init("c", "true", &(0..99).collect::<Vec<_>>())))],
            Code::ResourceExhausted,
        ),
    ];
    for (what, messages, code) in cases {
        let mut stream = Stream::open(&mut bridge).await;
        for (id, input) in messages {
            stream.send(id, input).await;
        }
        let status = loop {
            match stream.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{what}: no error"),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), code, "{what}: {status}");
        assert!(status.message().len() < 300, "{what}");
    }
    // What cannot be started is told to its own process.
    let odd = [
        gateway::InitMessage { meta: None, ..init("c", "", &[1]) },
        gateway::InitMessage { meta: Some(pb::Meta::default()), ..init("c", "", &[1]) },
        gateway::InitMessage {
            meta: Some(pb::Meta { args: vec!["a\0b".into()], ..pb::Meta::default() }),
            ..init("c", "", &[1])
        },
        gateway::InitMessage {
            meta: Some(pb::Meta {
                args: vec!["true".into()],
                user: "nobody:no-group".into(),
                ..pb::Meta::default()
            }),
            ..init("c", "", &[1])
        },
        gateway::InitMessage {
            secretenv: vec![pb::SecretEnv { id: String::new(), name: "A".into(), optional: false }],
            ..init("c", "true", &[1])
        },
        gateway::InitMessage {
            meta: Some(pb::Meta {
                args: vec!["true".into()],
                ulimit: vec![pb::Ulimit { name: "x".into(), soft: -9, hard: 0 }],
                ..pb::Meta::default()
            }),
            ..init("c", "", &[1])
        },
    ];
    for (n, init) in odd.into_iter().enumerate() {
        let id = format!("odd{n}");
        good.init(&id, init).await;
        let said = good.done(&[&id]).await.remove(&id).unwrap();
        assert!(said.code() != 0 && !said.error().is_empty(), "{n}: {said:?}");
    }
    let root = image(&mut bridge).await;
    let new = async |bridge: &mut Bridge, r: gateway::NewContainerRequest| {
        bridge.new_container(r).await.unwrap_err()
    };
    assert_eq!(new(&mut bridge, request("c", vec![mount("/", &root)])).await.code(), Code::AlreadyExists);
    assert!(new(&mut bridge, request("n", vec![])).await.message().contains("no root mount"));
    assert!(
        new(&mut bridge, request("n", vec![mount("/", "no-such-ref")]))
            .await
            .message()
            .contains("no such ref")
    );
    assert!(
        new(&mut bridge, request("n", vec![pb::Mount { mount_type: 4, ..mount("/", "") }]))
            .await
            .message()
            .contains("bind mount")
    );
    let outside = pb::Mount { selector: "/../../../etc".into(), ..mount("/x", &root) };
    bridge.new_container(request("../../evil/\u{1}", vec![mount("/", &root), outside])).await.unwrap();
    assert_eq!(
        new(&mut bridge, request(&"n".repeat(2000), vec![mount("/", &root)])).await.code(),
        Code::InvalidArgument
    );
    let mut stream = Stream::open(&mut bridge).await;
    let inside = stream.sh("../../evil/\u{1}", "diff /x/passwd /etc/passwd && echo same").await;
    assert_eq!(inside.text(), "same\n", "the selector stays in the result");
    // The first stream has not noticed anything.
    assert_eq!(good.sh("c", "echo still here").await.text(), "still here\n");
    build.abort();
}

#[tokio::test]
async fn a_failed_step_can_be_entered_root() {
    use prost::Message as _;
    let Some(w) = common::world() else { return };
    let (mut bridge, build) = Client::connect(&w.env.socket()).await.begin("enter");
    let id = solve(&mut bridge, run("echo partial > /left && exit 3")).await.unwrap();
    let status = bridge.evaluate(gateway::EvaluateRequest { r#ref: id }).await.unwrap_err();
    let full = kiln_proto::google::rpc::Status::decode(status.details()).unwrap();
    let any = full.details.iter().find(|any| any.type_url.contains("errdefs.Solve")).expect("a Solve detail");
    let solve: serde_json::Value = serde_json::from_slice(&any.value).unwrap();
    let left = solve["mountIDs"][0].as_str().unwrap().to_string();
    bridge.new_container(request("c", vec![mount("/", &left)])).await.unwrap();
    let mut stream = Stream::open(&mut bridge).await;
    assert_eq!(stream.sh("c", "cat /left; echo more >> /left").await.text(), "partial\n");
    build.abort();
}
