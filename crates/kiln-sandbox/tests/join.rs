//! More processes in one sandbox, by our launcher and by OCI runtimes.
#![allow(missing_docs, clippy::print_stderr)]

mod common;

use common::{Env, Output, PATH, drain, skip, start, wait_for};
use kiln_sandbox::*;
use std::fs::{self, File};
use std::os::fd::OwnedFd;

fn joining(script: &str) -> ProgramSpec {
    let mut spec = ProgramSpec::new(["/bin/sh", "-c", script].map(str::to_owned).to_vec());
    spec.env.push(PATH.into());
    spec
}

fn pipes() -> (Stdio, OwnedFd) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let stdin = File::open("/dev/null").unwrap().into();
    (Stdio { stdin, stdout: write.try_clone().unwrap(), stderr: write }, read)
}

async fn join(first: &Process, spec: ProgramSpec) -> Result<Output, SandboxError> {
    let (stdio, read) = pipes();
    let process = first.join(spec, stdio).await?;
    let text = tokio::task::spawn_blocking(move || drain(read)).await.unwrap();
    Ok(Output { status: process.wait().await?, text })
}

async fn sh(first: &Process, script: &str) -> Output {
    join(first, joining(script)).await.unwrap()
}

/// The launcher, and the runtimes that are installed.
async fn executors(env: &Env) -> Vec<(&'static str, Box<dyn Executor>)> {
    let mut all: Vec<(&'static str, Box<dyn Executor>)> = vec![("kiln", Box::new(env.launcher.clone()))];
    for (name, path) in common::runtimes() {
        let runtime = OciRuntime::new(path, &env.state.path().join(name)).unwrap();
        all.push((name, Box::new(runtime)));
    }
    all
}

/// A sandbox whose first process waits.
async fn waiting(env: &Env, executor: &dyn Executor, id: &str, change: fn(&mut ProcessSpec)) -> Process {
    let mut spec = env.script(id, "trap 'exit 7' HUP; echo waits; sleep 1000 & wait");
    change(&mut spec);
    let (process, out) = start(executor, spec).await.unwrap();
    // Process 1 gets no signal that it has no trap for.
    wait_for(&out, "waits\n").await;
    process
}

const SPACES: &str = "for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done";
const STATUS: &str =
    "grep -E '^(Uid|Gid|Groups|Cap|Seccomp:|NoNewPrivs|SigBlk|SigIgn)' /proc/self/status; ls /proc/self/fd";

#[tokio::test(flavor = "multi_thread")]
async fn root_later_processes_are_in_the_same_sandbox() {
    if skip("root_later_processes_are_in_the_same_sandbox") {
        return;
    }
    let env = Env::new().await;
    for (name, executor) in executors(&env).await {
        let mut spec = env.script(
            &format!("same-{name}"),
            &format!("{SPACES} > /spaces; {{ {STATUS}; }} > /status; cat /proc/self/cgroup > /groups; hostname > /t/h; sleep 1000"),
        );
        spec.hostname = "box".into();
        spec.network = Network::None;
        spec.mounts
            .push(SandboxMount { dest: "/t".into(), kind: MountKind::Tmpfs { size: None, mode: 0o755 } });
        let (first, _out) = start(&*executor, spec).await.unwrap();
        while sh(&first, "test -s /t/h").await.status != ExitStatus::Code(0) {}
        assert_eq!(sh(&first, "cat /t/h; hostname").await.text, "box\nbox\n", "{name}");
        assert_eq!(sh(&first, &format!("{SPACES} | diff /spaces -")).await.text, "", "{name}");
        assert_eq!(sh(&first, &format!("{{ {STATUS}; }} | diff /status -")).await.text, "", "{name}");
        assert_eq!(sh(&first, "cat /proc/self/cgroup | diff /groups -").await.text, "", "{name}");
        // Its own parent is out of sight.
        assert_eq!(sh(&first, "echo $PPID; ps -o pid | grep -c '^ *1$'").await.text, "0\n1\n", "{name}");
        first.kill(9).unwrap();
        assert_eq!(first.wait().await.unwrap(), ExitStatus::Signal(9), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_later_processes_have_their_own_fields() {
    if skip("root_later_processes_have_their_own_fields") {
        return;
    }
    let env = Env::new().await;
    for (name, executor) in executors(&env).await {
        let first = waiting(&env, &*executor, &format!("fields-{name}"), |_| ()).await;
        let mut spec = joining("id -u; id -g; pwd; echo $A $HOME; ulimit -Sf; umask; exit 3");
        (spec.uid, spec.gid, spec.additional_gids) = (1000, 100, vec![5]);
        spec.cwd = "/tmp".into();
        spec.env.push("A=b c".into());
        spec.ulimits = vec![Ulimit { name: "fsize".into(), soft: 51200, hard: 99999 }];
        let out = join(&first, spec).await.unwrap();
        let expected = "1000\n100\n/tmp\nb c /home/user\n100\n0022\n";
        assert_eq!((out.text.as_str(), out.status), (expected, ExitStatus::Code(3)), "{name}");
    }
    // Made when missing, by the launcher.
    let first = waiting(&env, &env.launcher, "cwd", |_| ()).await;
    let mut spec = joining("pwd; stat -c %u .");
    (spec.uid, spec.cwd) = (1000, "/new/dir".into());
    assert_eq!(join(&first, spec).await.unwrap().text, "/new/dir\n1000\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_the_first_process_takes_the_others_along() {
    if skip("root_the_first_process_takes_the_others_along") {
        return;
    }
    let env = Env::new().await;
    for (name, executor) in executors(&env).await {
        let first = waiting(&env, &*executor, &format!("along-{name}"), |_| ()).await;
        let (stdio, read) = pipes();
        let second = first.join(joining("echo up; sleep 1000 & sleep 1000"), stdio).await.unwrap();
        let (stdio, _other) = pipes();
        let third = first.join(joining("sleep 1000"), stdio).await.unwrap();
        while sh(&first, "test $(ps | grep -c 'sleep 100[0]') -ge 5").await.status.code() != 0 {}
        first.kill(1).unwrap();
        assert_eq!(first.wait().await.unwrap(), ExitStatus::Code(7), "{name}");
        assert_eq!(second.wait().await.unwrap(), ExitStatus::Signal(9), "{name}");
        assert_eq!(third.wait().await.unwrap().code(), 137, "{name}");
        assert_eq!(drain(read), "up\n", "{name}");
        // Nobody can come any more.
        assert!(matches!(join(&first, joining("true")).await, Err(SandboxError::Ended)), "{name}");
    }
    common::cgroup_goes("along-kiln").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_later_process_ends_alone() {
    if skip("root_a_later_process_ends_alone") {
        return;
    }
    let env = Env::new().await;
    for (name, executor) in executors(&env).await {
        let first = waiting(&env, &*executor, &format!("alone-{name}"), |_| ()).await;
        for signal in [15, 9, 10] {
            let (stdio, read) = pipes();
            let second = first.join(joining("echo up; exec sleep 1000"), stdio).await.unwrap();
            wait_for(&read, "up\n").await;
            second.kill(signal).unwrap();
            assert_eq!(second.wait().await.unwrap(), ExitStatus::Signal(signal), "{name}");
            assert!(matches!(join(&second, joining("true")).await, Err(SandboxError::Ended)), "{name}");
        }
        let (stdio, read) = pipes();
        let second = first.join(joining("exec sleep 1000"), stdio).await.unwrap();
        let (again, _read) = pipes();
        assert!(matches!(second.join(joining("true"), again).await, Err(SandboxError::Invalid { .. })));
        drop(second);
        assert_eq!(tokio::task::spawn_blocking(move || drain(read)).await.unwrap(), "", "{name}");
        assert_eq!(sh(&first, "echo still").await.text, "still\n", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_cannot_join_has_typed_errors() {
    if skip("root_what_cannot_join_has_typed_errors") {
        return;
    }
    let env = Env::new().await;
    for (name, executor) in executors(&env).await {
        let first = waiting(&env, &*executor, &format!("errors-{name}"), |_| ()).await;
        let mut missing = ProgramSpec::new(vec!["no-such".into()]);
        missing.env.push(PATH.into());
        let Err(SandboxError::Exec(e)) = join(&first, missing).await else { panic!("{name}") };
        assert_eq!(e.kind, ExecFailureKind::NotInPath, "{name}");
        let Err(SandboxError::Invalid { field, .. }) = join(&first, ProgramSpec::new(Vec::new())).await
        else {
            panic!("{name}")
        };
        assert_eq!(field, "args");
        let mut relative = joining("true");
        relative.cwd = "tmp".into();
        assert!(matches!(join(&first, relative).await, Err(SandboxError::Invalid { field: "cwd", .. })));
    }
    // A process that is over before anybody looks.
    for i in 0..20 {
        let (first, _) = start(&env.launcher, env.script(&format!("short{i}"), "true")).await.unwrap();
        match join(&first, joining("true")).await {
            Ok(out) => assert!([0, 137].contains(&out.status.code())),
            Err(e) => assert!(matches!(e, SandboxError::Ended), "{e}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_terminals_and_their_sizes() {
    if skip("root_terminals_and_their_sizes") {
        return;
    }
    let env = Env::new().await;
    for (name, executor) in executors(&env).await {
        let script = "stty size; test -t 0 && test -t 1 && test -t 2 && echo tty; \
                      trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.05; done";
        let size = |rows, columns| TerminalSize { rows, columns };
        let mut spec = env.script(&format!("{name}-one"), script);
        spec.program.tty = Some(size(33, 111));
        let (first, _) = start(&*executor, spec).await.unwrap();
        check_terminal(name, first).await;

        let first = waiting(&env, &*executor, &format!("screen-{name}"), |_| ()).await;
        let mut spec = joining(script);
        spec.tty = Some(size(33, 111));
        check_terminal(name, first.join(spec, pipes().0).await.unwrap()).await;
    }
}

async fn check_terminal(name: &str, mut process: Process) {
    let master = process.take_terminal().unwrap();
    assert_eq!(wait_for(&master, "ready\r\n").await, "33 111\r\ntty\r\nready\r\n", "{name}");
    process.resize(TerminalSize { rows: 40, columns: 90 }).unwrap();
    let rest = tokio::task::spawn_blocking(move || drain(master)).await.unwrap();
    // Some versions of crun pass on that the size has changed, but not the size.
    let seen = if name == "crun" && rest == "33 111\r\n" { "40 90\r\n" } else { &rest };
    assert_eq!((seen, process.wait().await.unwrap()), ("40 90\r\n", ExitStatus::Code(5)), "{name}");
    // After its end there is nothing to resize, which is no error.
    process.resize(TerminalSize { rows: 1, columns: 1 }).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_joining_gives_no_more_than_the_sandbox_has() {
    if skip("root_joining_gives_no_more_than_the_sandbox_has") {
        return;
    }
    let env = Env::new().await;
    let caps = "grep -E '^(CapEff|CapBnd|Seccomp:)' /proc/self/status | tr '\\n' ' '";
    for (name, executor) in executors(&env).await {
        let first = waiting(&env, &*executor, &format!("rights-{name}"), |_| ()).await;
        let usual = sh(&first, caps).await.text;
        assert!(usual.contains("00000000a80425fb"), "{name} {usual}");
        let mut spec = joining(caps);
        spec.security = Security::Insecure;
        assert_eq!(join(&first, spec).await.unwrap().text, usual, "{name}");
        let mut spec = joining("mount -t tmpfs x /tmp; mknod /b b 7 0 && cat /b");
        spec.security = Security::Insecure;
        assert_ne!(join(&first, spec).await.unwrap().status.code(), 0, "{name}");
    }
    // The other way round a process may be more confined.
    let first = waiting(&env, &env.launcher, "open", |s| s.program.security = Security::Insecure).await;
    assert!(sh(&first, caps).await.text.contains("00000000a80425fb"));
    let mut spec = joining(caps);
    spec.security = Security::Insecure;
    let open = join(&first, spec).await.unwrap().text;
    assert!(!open.contains("00000000a80425fb") && open.contains("Seccomp:\t0"), "{open}");
}

/// CVE-2016-9962, CVE-2019-5736: processes of the sandbox look into, and write to, those that are just joining.
#[tokio::test(flavor = "multi_thread")]
async fn root_a_joining_process_cannot_be_looked_into() {
    if skip("root_a_joining_process_cannot_be_looked_into") {
        return;
    }
    let env = Env::new().await;
    let spy = "cd /proc; while :; do for p in [0-9]*; do \
               case $p in 1) continue;; esac; \
               f=$(readlink $p/exe 2>/dev/null); case $f in ''|/bin/busybox) ;; *) echo exe $f >> /seen;; esac; \
               for d in $p/fd/[0-9]*; do case $(readlink $d) in *socket*|*memfd*|*anon_inode*|*cgroup*) echo fd >> /seen;; esac; done; \
               ls -d $p/root/scratch $p/cwd/scratch >> /seen 2>/dev/null; \
               done; done";
    let (first, _out) = start(&env.launcher, env.script("spy", spy)).await.unwrap();
    let (stdio, _other) = pipes();
    let _second = first.join(joining(spy), stdio).await.unwrap();
    for _ in 0..150 {
        assert_eq!(join(&first, joining("true")).await.unwrap().status.code(), 0);
    }
    assert_eq!(sh(&first, "cat /seen 2>/dev/null | sort | uniq -c").await.text, "");
    // The helper's program as the interpreter of a script, and as a file to write.
    let script = "#!/proc/self/exe\n";
    let write = format!("printf '{}' > /bin/evil; chmod 755 /bin/evil", script.replace('\n', "\\n"));
    sh(&first, &write).await;
    let mut evil = ProgramSpec::new(vec!["/bin/evil".into()]);
    evil.env.push(PATH.into());
    // Whatever it answers, it is not kiln that writes or is written.
    let _ = join(&first, evil).await;
    let helper = fs::read(env!("CARGO_BIN_EXE_kiln-sandbox-helper")).unwrap();
    assert!(helper.starts_with(b"\x7fELF"));
}

/// CVE-2025-52565, -52881, CVE-2024-21626: what a terminal and a directory are taken from has been prepared.
#[tokio::test(flavor = "multi_thread")]
async fn root_prepared_files_do_not_mislead_a_joining_process() {
    if skip("root_prepared_files_do_not_mislead_a_joining_process") {
        return;
    }
    let env = Env::new().await;
    let first = waiting(&env, &env.launcher, "bait", |_| ()).await;
    let out = sh(
        &first,
        "rm /dev/ptmx; ln -s /proc/1/fd/0 /dev/ptmx; rm -f /dev/console; mkdir /x; ln -s /proc/self/fd/3 /x/l; \
         mv /dev/pts /dev/other 2>&1; rm /etc/passwd; mkfifo /etc/passwd",
    )
    .await;
    assert!(out.text.contains("Device or resource busy"), "{}", out.text);
    let mut spec = joining("tty; echo $HOME");
    spec.tty = Some(TerminalSize { rows: 5, columns: 5 });
    let mut process = first.join(spec, pipes().0).await.unwrap();
    let master = process.take_terminal().unwrap();
    let text = tokio::task::spawn_blocking(move || drain(master)).await.unwrap();
    assert_eq!(text, "/dev/pts/0\r\n/\r\n");
    for cwd in ["/proc/self/fd/3", "/x/l", "/proc/1/cwd/..", "/proc/1/root/../../.."] {
        let mut spec = joining("pwd -P; ls -d boot home proc/1 root/.. 2>/dev/null | tr '\\n' ' '");
        spec.cwd = cwd.into();
        match join(&first, spec).await {
            Ok(out) => assert!(!out.text.contains("boot"), "{cwd}: {}", out.text),
            Err(SandboxError::Setup { step, .. }) => assert_eq!(step, Step::WorkingDirectory, "{cwd}"),
            Err(e) => panic!("{cwd}: {e}"),
        }
    }
    // With something else mounted over /dev there is no devpts to take a terminal from.
    let first = waiting(&env, &env.launcher, "nodev", |s| {
        // The shell has no /dev/null for what it starts in the background.
        s.program.args[2] = "echo waits; exec sleep 1000".into();
        s.mounts
            .push(SandboxMount { dest: "/dev".into(), kind: MountKind::Tmpfs { size: None, mode: 0o755 } });
    })
    .await;
    for prepare in ["true", "mkdir /dev/pts && mkfifo /dev/pts/ptmx"] {
        assert_eq!(sh(&first, prepare).await.status.code(), 0);
        let mut spec = joining("true");
        spec.tty = Some(TerminalSize { rows: 5, columns: 5 });
        let error = first.join(spec, pipes().0).await.err().unwrap();
        assert!(matches!(error, SandboxError::Setup { step: Step::Terminal, .. }), "{error}");
        assert!(prepare == "true" || error.to_string().contains("not the container's own devpts"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_many_join_at_once() {
    if skip("root_many_join_at_once") {
        return;
    }
    let env = Env::new().await;
    let first = waiting(&env, &env.launcher, "many", |_| ()).await;
    let other = waiting(&env, &env.launcher, "other", |_| ()).await;
    let joins = (0..40).map(|i| {
        let into = if i % 2 == 0 { &first } else { &other };
        async move { sh(into, &format!("echo {i}; exit {i}")).await }
    });
    // New sandboxes in between must not end up in one that is being joined.
    let runs = (0..10).map(|i| env.command(&format!("between{i}"), &["/bin/sh", "-c", "echo $$"]));
    let runs = futures::future::join_all(runs.map(|spec| env.run(spec)));
    let (joined, ran) = tokio::join!(futures::future::join_all(joins), runs);
    for (i, out) in joined.into_iter().enumerate() {
        assert_eq!((out.status.code(), out.text), (i32::try_from(i).unwrap(), format!("{i}\n")));
    }
    for out in ran {
        assert_eq!(out.unwrap().text, "1\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_dead_helper_ends_joined_processes() {
    if skip("root_a_dead_helper_ends_joined_processes") {
        return;
    }
    let env = Env::new().await;
    let first = waiting(&env, &env.launcher, "lost-join", |_| ()).await;
    let (stdio, read) = pipes();
    let second = first.join(joining("echo up; exec sleep 1000"), stdio).await.unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", first.pid().unwrap())).unwrap();
    let helper: i32 = stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let helper = rustix::process::Pid::from_raw(helper).unwrap();
    rustix::process::kill_process(helper, rustix::process::Signal::KILL).unwrap();
    assert!(matches!(second.wait().await, Err(SandboxError::HelperGone)));
    assert!(["", "up\n"].contains(&tokio::task::spawn_blocking(move || drain(read)).await.unwrap().as_str()));
    assert!(matches!(
        join(&first, joining("true")).await,
        Err(SandboxError::Ended | SandboxError::HelperGone)
    ));
    assert_eq!(env.sh("again", "echo back").await.text, "back\n");
    common::cgroup_goes("lost-join").await;
}
