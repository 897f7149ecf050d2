//! The launcher as the worker uses it.
#![allow(missing_docs)]

mod common;

use common::{Env, PATIENCE, drain, skip, start, wait_for};
use kiln_sandbox::*;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn root_output_and_exit_codes_come_back() {
    if skip("root_output_and_exit_codes_come_back") {
        return;
    }
    let env = Env::new().await;
    let out = env.sh("hello", "echo hello; echo err >&2; exit 7").await;
    assert_eq!((out.status, out.text.as_str()), (ExitStatus::Code(7), "hello\nerr\n"));
    assert_eq!(env.sh("t", "true").await.status, ExitStatus::Code(0));
    // Process 1 has no default actions; a child of it does.
    assert_eq!(env.sh("sig", "sh -c 'kill -TERM $$'; echo $?").await.text, "Terminated\n143\n");
    // Written files end up in the upper directory, owned as written.
    let out = env.sh("w", "echo data > /new; chown 12:34 /new").await;
    assert_eq!(out.text, "");
    let meta = fs::metadata(env.image.upper("w").join("new")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.len()), (12, 34, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn root_spec_fields_reach_the_process() {
    if skip("root_spec_fields_reach_the_process") {
        return;
    }
    let env = Env::new().await;
    let mut spec = env.script(
        "fields",
        "echo $$ $(id -u):$(id -g) $(grep ^Groups: /proc/self/status | cut -c9-) $(hostname) $(pwd) $HOME $A \
         $(ulimit -Sn)/$(ulimit -Hn) $(umask); ls -ld . /made",
    );
    spec.program.uid = 1000;
    spec.program.gid = 100;
    spec.program.additional_gids = vec![5, 6];
    spec.hostname = "box".into();
    spec.program.cwd = "/made/by/../us".into();
    spec.program.env.push("A=b c".into());
    spec.program.ulimits = vec![Ulimit { name: "nofile".into(), soft: 100, hard: 200 }];
    let out = env.run(spec).await.unwrap();
    let mut lines = out.text.lines();
    assert_eq!(
        lines.next().unwrap(),
        "1 1000:100 5 6 box /made/us /home/user b c 100/200 0022",
        "{}",
        out.text
    );
    assert!(lines.next().unwrap().starts_with("drwxr-xr-x    2 user     100"), "{}", out.text);
    assert!(lines.next().unwrap().starts_with("drwxr-xr-x    4 user     100"), "{}", out.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_signals_start_with_their_defaults() {
    if skip("root_signals_start_with_their_defaults") {
        return;
    }
    let env = Env::new().await;
    let out = env.run(env.command("sig", &["grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"])).await;
    let zero = "0000000000000000";
    assert_eq!(out.unwrap().text, format!("SigBlk:\t{zero}\nSigIgn:\t{zero}\nSigCgt:\t{zero}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn root_programs_that_cannot_run_have_typed_errors() {
    if skip("root_programs_that_cannot_run_have_typed_errors") {
        return;
    }
    let env = Env::new().await;
    let root = env.image.root();
    fs::write(root.join("plain"), "x").unwrap();
    fs::write(root.join("bad"), "x").unwrap();
    fs::write(root.join("noint"), "#!/nope\n").unwrap();
    for name in ["bad", "noint"] {
        fs::set_permissions(root.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    for (program, text, code) in [
        ("foo", "exec: \"foo\": executable file not found in $PATH", 127),
        ("", "exec: \"\": executable file not found in $PATH", 127),
        ("/foo", "exec: \"/foo\": stat /foo: no such file or directory", 127),
        ("./foo", "exec: \"./foo\": stat ./foo: no such file or directory", 127),
        ("/plain", "exec: \"/plain\": permission denied", 126),
        ("/etc", "exec: \"/etc\": permission denied", 126),
        ("/bad", "exec /bad: exec format error", 126),
        ("/noint", "exec /noint: no such file or directory", 127),
        ("/proc/self/exe", "exec: \"/proc/self/exe\": permission denied", 126),
    ] {
        let id = format!("x{}", program.replace('/', "_").replace('.', "-"));
        match env.run(env.command(&id, &[program])).await {
            Err(SandboxError::Exec(e)) => assert_eq!((e.to_string().as_str(), e.exit_code()), (text, code)),
            other => panic!("{program}: {other:?}"),
        }
    }
    assert_eq!(env.run(env.command("rel", &["bin/true"])).await.unwrap().status, ExitStatus::Code(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn root_mounts_show_up_and_missing_points_are_made() {
    if skip("root_mounts_show_up_and_missing_points_are_made") {
        return;
    }
    let env = Env::new().await;
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("f"), "from host\n").unwrap();
    let open = |p: &Path| File::open(p).unwrap().into();
    let mut spec = env.script(
        "mounts",
        "cat /rw/f /ro/f /one /etc/resolv.conf; echo changed > /rw/g; (echo x > /ro/x) 2>&1; (echo x > /one) 2>&1; \
         stat -c '%a %u:%g %s' /run/secrets/s; (echo x > /run/secrets/s) 2>&1; echo x > /t/x; df -k /t | tail -1 | \
         awk '{print $2}'; stat -c %a /t; df -k /dev/shm | tail -1 | awk '{print $2}'",
    );
    let bind =
        |fd, read_only| MountKind::Bind { fd, options: BindOptions { read_only, ..BindOptions::default() } };
    let file = |text: &str, mode, uid, gid| MountKind::File { contents: text.into(), mode, uid, gid };
    for (dest, kind) in [
        ("/rw", bind(open(host.path()), false)),
        ("/ro", bind(open(host.path()), true)),
        ("/one", bind(open(&host.path().join("f")), true)),
        ("/etc/resolv.conf", file("nameserver 1.2.3.4\n", 0o644, 0, 0)),
        ("/run/secrets/s", file("secret", 0o400, 7, 8)),
        ("/t", MountKind::Tmpfs { size: Some(1 << 20), mode: 0o1777 }),
        ("/dev/shm", MountKind::Tmpfs { size: Some(2 << 20), mode: 0o1777 }),
    ] {
        spec.mounts.push(SandboxMount { dest: dest.into(), kind });
    }
    let out = env.run(spec).await.unwrap();
    let lines: Vec<&str> = out.text.lines().collect();
    assert_eq!(
        lines,
        [
            "from host",
            "from host",
            "from host",
            "nameserver 1.2.3.4",
            "/bin/sh: can't create /ro/x: Read-only file system",
            "/bin/sh: can't create /one: Read-only file system",
            "400 7:8 6",
            "/bin/sh: can't create /run/secrets/s: Read-only file system",
            "1024",
            "1777",
            "2048",
        ]
    );
    assert_eq!(fs::read_to_string(host.path().join("g")).unwrap(), "changed\n");
    // Stubs of the mount points stay, empty, for the worker to remove; no content does.
    let upper = env.image.upper("mounts");
    assert_eq!(fs::metadata(upper.join("run/secrets/s")).unwrap().len(), 0);
    assert_eq!(fs::metadata(upper.join("one")).unwrap().len(), 0);
    assert!(fs::read_dir(upper.join("t")).unwrap().next().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn root_read_only_root_and_no_network() {
    if skip("root_read_only_root_and_no_network") {
        return;
    }
    let env = Env::new().await;
    let mut spec = env.script(
        "ro",
        "(echo x > /x) 2>&1; echo ok > /dev/shm/x; ip -o link | cut -d: -f2; ping -c1 -W1 127.0.0.1 >/dev/null && echo up",
    );
    spec.read_only_root = true;
    spec.program.cwd = "/made/first".into();
    spec.network = Network::None;
    let out = env.run(spec).await.unwrap();
    assert_eq!(out.text.lines().next().unwrap(), "/bin/sh: can't create /x: Read-only file system");
    assert!(out.text.contains(" lo\n") && out.text.ends_with("up\n"), "{}", out.text);
    assert!(!out.text.contains("eth"), "{}", out.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_killing_takes_everything() {
    if skip("root_killing_takes_everything") {
        return;
    }
    let env = Env::new().await;
    let script =
        "(trap '' TERM; sleep 1000) & trap 'echo term' TERM; echo ready; while :; do sleep 1000 & wait; done";
    let (process, out) = start(&env.launcher, env.script("kill", script)).await.unwrap();
    wait_for(&out, "ready\n").await;
    process.kill(15).unwrap();
    wait_for(&out, "term\n").await;
    let pid = process.pid().unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    process.kill(9).unwrap();
    let status = tokio::time::timeout(PATIENCE, process.wait()).await.expect("it ends");
    assert_eq!(status.unwrap(), ExitStatus::Signal(9));
    // The end of the pipe comes only when every process that held it is gone.
    assert_eq!(drain(out), "");
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    process.kill(9).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_dropping_a_process_kills_it() {
    if skip("root_dropping_a_process_kills_it") {
        return;
    }
    let env = Env::new().await;
    let (process, out) = start(&env.launcher, env.script("drop", "sleep 1000 & sleep 1000")).await.unwrap();
    drop(process);
    let end = tokio::task::spawn_blocking(move || drain(out));
    tokio::time::timeout(PATIENCE, end).await.expect("the step ends").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_giving_up_a_start_kills_what_was_started() {
    if skip("root_giving_up_a_start_kills_what_was_started") {
        return;
    }
    let env = Env::new().await;
    // Compiles the profile, so that the starts below differ in what they get to.
    env.sh("warm", "true").await;
    for i in 0..20u64 {
        let mut spec = env.script(&format!("up{i}"), "sleep 1000");
        spec.program.env.insert(0, "GIVEN=up".into());
        let limit = Duration::from_micros(i * 60);
        let Ok(started) = tokio::time::timeout(limit, start(&env.launcher, spec)).await else { continue };
        drop(started.unwrap());
    }
    common::until("the steps end", || !sleeping()).await;
}

/// True when a process of such a step is there, told by its environment.
fn sleeping() -> bool {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .any(|e| fs::read(e.path().join("environ")).is_ok_and(|env| env.starts_with(b"GIVEN=up")))
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_terminal_is_one() {
    if skip("root_a_terminal_is_one") {
        return;
    }
    let env = Env::new().await;
    let mut spec =
        env.script("tty", "tty; stty size; test -c /dev/console && echo console; stat -c %u $(tty)");
    spec.program.tty = Some(TerminalSize { rows: 33, columns: 111 });
    spec.program.uid = 1000;
    let (mut process, _out) = start(&env.launcher, spec).await.unwrap();
    let master = process.take_terminal().unwrap();
    let text = tokio::task::spawn_blocking(move || drain(master)).await.unwrap();
    assert!(process.wait().await.unwrap().success());
    assert_eq!(text, "/dev/pts/0\r\n33 111\r\nconsole\r\n1000\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_forty_at_once() {
    if skip("root_forty_at_once") {
        return;
    }
    let env = Env::new().await;
    let runs = (0..40).map(|i| {
        let spec = env.script(&format!("many{i}"), &format!("echo {i}; exit {i}"));
        let launcher = env.launcher.clone();
        tokio::spawn(async move { common::run_with(&launcher, spec).await.unwrap() })
    });
    for (i, run) in futures::future::join_all(runs).await.into_iter().enumerate() {
        let out = run.unwrap();
        assert_eq!((out.status.code(), out.text), (i32::try_from(i).unwrap(), format!("{i}\n")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_dead_helper_is_replaced() {
    if skip("root_a_dead_helper_is_replaced") {
        return;
    }
    let env = Env::new().await;
    // Several times: the next step must not reach the dead helper's socket while a dying child holds it.
    for round in 0..20 {
        let id = format!("lost{round}");
        let (process, out) = start(&env.launcher, env.script(&id, "sleep 1000")).await.unwrap();
        // The helper is the parent of the step.
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid().unwrap())).unwrap();
        let helper: i32 = stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let helper = rustix::process::Pid::from_raw(helper).unwrap();
        rustix::process::kill_process(helper, rustix::process::Signal::KILL).unwrap();
        assert!(matches!(process.wait().await, Err(SandboxError::HelperGone)));
        assert_eq!(env.sh(&format!("again{round}"), "echo back").await.text, "back\n");
        assert_eq!(drain(out), "");
        common::cgroup_goes(&id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_memory_limit_counts_kills() {
    if skip("root_memory_limit_counts_kills") {
        return;
    }
    let env = Env::new().await;
    // busybox's awk keeps doubling a string.
    let mut spec = env.script("oom", "awk 'BEGIN { s = \"x\"; while (1) s = s s }'; echo $?");
    spec.resources.memory = Some(16 << 20);
    spec.resources.memory_swap = Some(16 << 20);
    spec.resources.pids = Some(50);
    let (process, out) = match start(&env.launcher, spec).await {
        Ok(started) => started,
        Err(SandboxError::Invalid { field: "resources", reason }) => {
            return eprintln!("SKIPPED root_memory_limit_counts_kills: {reason}");
        }
        Err(e) => panic!("{e}"),
    };
    let text = tokio::task::spawn_blocking(move || drain(out)).await.unwrap();
    let usage = process.usage().await.unwrap();
    assert!(usage.oom_kills > 0, "{text} {usage:?}");
    assert!(text.contains("137"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_no_cgroup_stays_behind() {
    if skip("root_no_cgroup_stays_behind") {
        return;
    }
    let env = Env::new().await;
    let out = env.sh("seen", "cat /proc/self/cgroup").await;
    assert!(out.text.lines().all(|l| !l.contains("kiln-")), "{}", out.text);
    drop(env);
    common::cgroup_goes("seen").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_cgroup_parent_is_joined() {
    if skip("root_a_cgroup_parent_is_joined") {
        return;
    }
    let env = Env::new().await;
    let mut spec = env.script("member", "cat /proc/self/cgroup; echo joined; sleep 1000");
    spec.cgroup_parent = Some("/../kiln-sandbox-test".into());
    spec.resources.pids = Some(20);
    let (process, out) = match start(&env.launcher, spec).await {
        Ok(started) => started,
        Err(e @ (SandboxError::Invalid { .. } | SandboxError::Prepare { .. })) => {
            return eprintln!("SKIPPED root_a_cgroup_parent_is_joined: {e}");
        }
        Err(e) => panic!("{e}"),
    };
    let inside = wait_for(&out, "joined\n").await;
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", process.pid().unwrap())).unwrap();
    let of = |name: &str| groups.lines().find(|l| l.contains(name)).map(|l| l.rsplit(':').next().unwrap());
    for name in [":pids:", "0::"] {
        if let Some(path) = of(name) {
            assert_eq!(path, "/kiln-sandbox-test/buildkit/member", "{groups}");
        }
    }
    process.kill(9).unwrap();
    process.wait().await.unwrap();
    // Inside, the step is at the root of what it sees.
    assert!(!inside.contains("member"), "{inside}");
    common::cgroup_goes("member").await;
    for dir in ["pids/", "unified/", ""] {
        let base = Path::new("/sys/fs/cgroup").join(dir).join("kiln-sandbox-test");
        let _ = fs::remove_dir(base.join("buildkit"));
        let _ = fs::remove_dir(base);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_insecure_steps_make_cgroups_that_go_with_them() {
    if skip("root_insecure_steps_make_cgroups_that_go_with_them") {
        return;
    }
    let env = Env::new().await;
    let mut spec = env.script(
        "own-cgroups",
        "cd /sys/fs/cgroup; test -d cpuset && cd cpuset; mkdir -p made-inside/deep && echo made; mkdir /sys/fs/cgroup/unified/made-too 2>/dev/null",
    );
    spec.program.security = Security::Insecure;
    assert_eq!(env.run(spec).await.unwrap().text, "made\n");
    common::cgroup_goes("own-cgroups").await;
    common::cgroup_goes("made-inside").await;
    // A sandboxed step makes none.
    let out = env.sh("no-cgroups", "cd /sys/fs/cgroup; mkdir x; mkdir unified/x; mkdir cpuset/x; true").await;
    assert!(!out.text.is_empty());
}
