//! Hooks of the OCI runtime specification: with the launcher and with runc the same programs see the same.
#![allow(missing_docs, clippy::print_stderr)]

mod common;

use common::{Env, drain, run_with, skip, start};
use kiln_sandbox::*;
use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The launcher, and runc where it is installed.
struct World {
    env: Env,
    runtimes: Vec<(&'static str, OciRuntime)>,
}

impl World {
    async fn new(test: &str) -> Option<World> {
        if skip(test) {
            return None;
        }
        let env = Env::new().await;
        // crun has words and states of its own.
        let there = common::runtimes().into_iter().filter(|(name, _)| *name == "runc");
        let runtime = |(name, path)| (name, OciRuntime::new(path, &env.state.path().join(name)).unwrap());
        let runtimes = there.map(runtime).collect();
        Some(World { env, runtimes })
    }

    fn executors(&self) -> Vec<(&'static str, &dyn Executor)> {
        let runtimes = self.runtimes.iter().map(|(name, runtime)| (*name, runtime as &dyn Executor));
        std::iter::once(("kiln", &self.env.launcher as &dyn Executor)).chain(runtimes).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.env.state.path().join(name)
    }

    /// A program of the machine's that is called with `args`.
    fn hook(&self, name: &str, script: &str, args: &[&str]) -> Hook {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let args = std::iter::once(name).chain(args.iter().copied()).map(str::to_owned).collect();
        Hook { path, args, env: vec!["PATH=/usr/bin:/bin".into()], timeout: None }
    }

    /// No bundle and no mount of one is left.
    fn assert_clean(&self) {
        for dir in ["bundles", "runc/bundles"] {
            let left = fs::read_dir(self.path(dir)).into_iter().flatten().count();
            assert_eq!(left, 0, "{dir}");
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let state = self.env.state.path().to_str().unwrap();
        assert!(!mounts.lines().any(|line| line.contains(state)), "{mounts}");
    }
}

fn inside(script: &str) -> Hook {
    let args = ["sh", "-c", script].map(str::to_owned).into();
    Hook { path: "/bin/busybox".into(), args, env: vec![common::PATH.into()], timeout: None }
}

/// Waits for a condition that is sure to come.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Writes a line about what it sees to the file of its second argument.
const LOOK: &str = r#"
state=$(cat)
field() { echo "$state" | sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p"; }
space() { if [ "$(readlink /proc/self/ns/$1)" = "$3" ]; then echo "$1=host"; else echo "$1=own"; fi; }
bundle=$(field bundle)
root=$(sed 's/.*"root":{[^}]*"path":"\([^"]*\)".*/\1/' $bundle/config.json)
is() { if eval "$2"; then echo "$1"; else echo "no-$1"; fi; }
pid=$(field pid)
uts=$(readlink /proc/${pid:-x}/ns/uts)
case "$1" in
createContainer) alive="pid-$pid" ;;
*) alive=$(is process "[ -n '$uts' ] && [ '$uts' != '$3' ]") ;;
esac
echo "$1 $(field ociVersion | cut -c1-2)x $(field id) $(field status) $alive $(space mnt x $4) $(space uts x $3) \
$(is root "[ -x $root/bin/busybox ]") $(is dev "[ -c $root/dev/null ]") $(is mounted "[ -e $root/given/file ]") \
$(env | grep -c ^SECRET) $(grep -c SECRET=42 $bundle/config.json)" >> "$2"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn root_hooks_are_run_at_their_moments() {
    let Some(world) = World::new("root_hooks_are_run_at_their_moments").await else { return };
    let space = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    fs::create_dir(world.path("given")).unwrap();
    fs::write(world.path("given/file"), "").unwrap();
    for (name, executor) in world.executors() {
        let log = world.path(&format!("{name}.log"));
        let at = |moment: &str| {
            vec![world.hook("look", LOOK, &[moment, log.to_str().unwrap(), &space("uts"), &space("mnt")])]
        };
        let mut spec = world.env.script(&format!("all-{name}"), "cat /made /in; echo $SECRET");
        spec.program.env.push("SECRET=42".into());
        let kind = MountKind::Bind {
            fd: fs::File::open(world.path("given")).unwrap().into(),
            options: BindOptions::default(),
        };
        spec.mounts.push(SandboxMount { dest: "/given".into(), kind });
        let make = world.hook("make", "echo made from $PWD | sed 's/[^ ]*rootfs$/the root/' > made", &[]);
        spec.hooks = Hooks {
            prestart: at("prestart"),
            create_runtime: at("createRuntime"),
            create_container: [at("createContainer"), vec![make]].concat(),
            start_container: vec![inside("cat > /in; echo >> /in; id -u >> /in; hostname >> /in")],
            poststart: at("poststart"),
            poststop: at("poststop"),
        };
        let out = run_with(executor, spec).await.unwrap();
        let lines: Vec<&str> = out.text.lines().collect();
        assert_eq!(
            (out.status, lines[0]),
            (ExitStatus::Code(0), "made from the root"),
            "{name}: {}",
            out.text
        );
        assert!(
            lines[1].contains(r#""status":"created""#) && lines[1].contains(r#""pid":1"#),
            "{name}: {}",
            lines[1]
        );
        assert_eq!(lines[2..], ["0", "buildkitsandbox", "42"], "{name}");
        let seen = |moment: &str, status: &str, pid: &str, space: &str, dev: &str, mounted: &str| {
            format!("{moment} 1.x all-{name} {status} {pid} mnt={space} uts={space} root {dev} {mounted} 0 1")
        };
        let log = fs::read_to_string(log).unwrap();
        let mut lines: Vec<&str> = log.lines().collect();
        // The program may have ended by then.
        let running = lines.remove(3);
        let status = if name == "runc" { "created" } else { "running" };
        assert!(running.starts_with(&format!("poststart 1.x all-{name} {status}")), "{running}");
        assert!(running.ends_with("mnt=host uts=host root no-dev no-mounted 0 1"), "{running}");
        assert_eq!(
            lines,
            [
                seen("prestart", "creating", "process", "host", "no-dev", "no-mounted"),
                seen("createRuntime", "creating", "process", "host", "no-dev", "no-mounted"),
                seen("createContainer", "creating", "pid-1", "own", "dev", "mounted"),
                seen("poststop", "stopped", "no-process", "host", "no-dev", "no-mounted"),
            ],
            "{name}"
        );
        world.assert_clean();
    }
}

type Into = fn(&mut Hooks, Hook);
const EACH: [(&str, Into); 4] = [
    ("prestart", |hooks, hook| hooks.prestart.push(hook)),
    ("createRuntime", |hooks, hook| hooks.create_runtime.push(hook)),
    ("createContainer", |hooks, hook| hooks.create_container.push(hook)),
    ("poststart", |hooks, hook| hooks.poststart.push(hook)),
];

#[tokio::test(flavor = "multi_thread")]
async fn root_a_hook_that_fails_fails_the_run() {
    let Some(world) = World::new("root_a_hook_that_fails_fails_the_run").await else { return };
    for (name, executor) in world.executors() {
        for (moment, put) in EACH {
            let ends = world.path(&format!("{name}-{moment}"));
            let mut spec = world.env.script(&format!("{name}-{moment}"), "sleep 1000");
            put(&mut spec.hooks, world.hook("bad", "echo what went wrong >&2; exit 7", &[]));
            spec.hooks.poststop.push(world.hook("end", "touch $1", &[ends.to_str().unwrap()]));
            let error = run_with(executor, spec).await.unwrap_err().to_string();
            assert!(
                error.contains("what went wrong") && error.contains("exit status"),
                "{name} {moment}: {error}"
            );
            if name == "kiln" {
                assert!(
                    error.starts_with(&format!("sandbox set-up failed at running hooks: {moment} hook /")),
                    "{error}"
                );
                assert!(ends.exists(), "{moment}: the hooks of the end are run all the same");
            }
        }
        let mut spec = world.env.script(&format!("{name}-inside"), "echo started");
        spec.hooks.start_container.push(inside("echo in there; exit 9"));
        let told = match run_with(executor, spec).await {
            Err(error) => error.to_string(),
            // To runc it is the process that failed.
            Ok(out) => {
                assert_eq!((name, out.status), ("runc", ExitStatus::Code(1)), "{}", out.text);
                out.text
            }
        };
        assert!(told.contains("in there") && !told.contains("started"), "{name}: {told}");
        let mut spec = world.env.script(&format!("{name}-stop"), "echo fine");
        spec.hooks.poststop.push(world.hook("bad", "exit 7", &[]));
        let out = run_with(executor, spec).await.unwrap();
        assert_eq!((out.status, out.text.as_str()), (ExitStatus::Code(0), "fine\n"), "{name}");
        world.assert_clean();
    }
}

/// Hangs with a child of its own after writing both their numbers to the file of its argument.
const HANG: &str = "sleep 1000 & echo $$ $! > $1.part; mv $1.part $1; wait";

/// The numbers are of the process's namespace.
fn are_gone(pids: &Path) -> bool {
    let text = fs::read_to_string(pids).unwrap();
    text.split_whitespace().all(|pid| match fs::read_to_string(format!("/proc/{pid}/cmdline")) {
        Err(_) => true,
        Ok(command) => !(command.contains("hang") || command.contains("sleep\x001000")),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_hook_that_hangs_ends_with_the_run() {
    let Some(world) = World::new("root_a_hook_that_hangs_ends_with_the_run").await else { return };
    for (name, executor) in world.executors() {
        for (moment, put) in EACH {
            let pids = world.path(&format!("{name}-{moment}.pids"));
            let mut spec = world.env.script(&format!("hang-{name}-{moment}"), "true");
            put(&mut spec.hooks, world.hook("hang", HANG, &[pids.to_str().unwrap()]));
            let (process, output) = start(executor, spec).await.unwrap();
            until("the hook runs", || pids.exists());
            process.kill(9).unwrap();
            let ended = process.wait().await;
            assert!(
                matches!(ended, Ok(ExitStatus::Signal(9) | ExitStatus::Code(0))),
                "{name} {moment}: {ended:?}"
            );
            if moment != "createContainer" {
                until("the hook and its child are gone", || are_gone(&pids));
            }
            drop(process);
            // Whoever were left would hold it.
            drain(output);
            world.assert_clean();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_hook_is_killed_at_its_timeout() {
    let Some(world) = World::new("root_a_hook_is_killed_at_its_timeout").await else { return };
    for (name, executor) in world.executors() {
        for (moment, put) in [EACH[1], EACH[2]] {
            let mut spec = world.env.script(&format!("timeout-{name}-{moment}"), "true");
            put(
                &mut spec.hooks,
                Hook { timeout: NonZeroU32::new(1), ..world.hook("slow", "exec sleep 1000", &[]) },
            );
            let error = run_with(executor, spec).await.unwrap_err().to_string();
            assert!(error.contains("timeout"), "{name} {moment}: {error}");
        }
    }
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_dropping_a_run_ends_its_hooks() {
    let Some(world) = World::new("root_dropping_a_run_ends_its_hooks").await else { return };
    let pids = world.path("pids");
    let mut spec = world.env.script("dropped", "true");
    spec.hooks.create_runtime.push(world.hook("hang", HANG, &[pids.to_str().unwrap()]));
    let (process, output) = start(&world.env.launcher, spec).await.unwrap();
    until("the hook runs", || pids.exists());
    drop(process);
    until("the hook and its child are gone", || are_gone(&pids));
    drain(output);
    until("the bundle is gone", || fs::read_dir(world.path("bundles")).unwrap().next().is_none());
}

/// What a root holds decides nothing about which hooks are run and where.
#[tokio::test(flavor = "multi_thread")]
async fn root_a_hostile_root_does_not_lead_hooks_astray() {
    let Some(world) = World::new("root_a_hostile_root_does_not_lead_hooks_astray").await else { return };
    let root = world.env.image.root();
    let outside = world.path("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, root.join("rootfs")).unwrap();
    symlink(&outside, root.join("scratch")).unwrap();
    fs::write(root.join("config.json"), "{}").unwrap();
    // The same names as the machine's, in the root.
    let decoy = root.join(world.path("good").strip_prefix("/").unwrap());
    fs::create_dir_all(decoy.parent().unwrap()).unwrap();
    fs::write(&decoy, "#!/bin/sh\necho decoy > /decoy\n").unwrap();
    fs::set_permissions(&decoy, fs::Permissions::from_mode(0o755)).unwrap();
    for (name, executor) in world.executors() {
        let mut spec = world.env.script(&format!("hostile-{name}"), "ls /decoy; cat /real");
        spec.hooks.create_container.push(world.hook("good", "echo $0 > $PWD/real", &[]));
        let out = run_with(executor, spec).await.unwrap();
        assert!(out.text.contains("No such file") && out.text.ends_with("/good\n"), "{name}: {}", out.text);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        for dev in ["dev", "proc"] {
            let other = common::Image::busybox();
            fs::remove_dir(other.root().join(dev)).unwrap();
            symlink(&outside, other.root().join(dev)).unwrap();
            let mut spec = world.env.script(&format!("link-{dev}-{name}"), "true");
            spec.root = other.overlay("x");
            spec.hooks.create_container.push(world.hook("good", "exit 0", &[]));
            let error = run_with(executor, spec).await.unwrap_err().to_string();
            assert!(error.contains(&format!("/{dev} of the root is a symbolic link")), "{name}: {error}");
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        }
    }
    world.assert_clean();
}

/// After the hooks, the machine's files are as far away as ever.
#[tokio::test(flavor = "multi_thread")]
async fn root_with_hooks_a_sandbox_is_as_tight() {
    let Some(world) = World::new("root_with_hooks_a_sandbox_is_as_tight").await else { return };
    let script = "cat /proc/self/mountinfo | wc -l; ls / | sort; ls /proc/1/fd > /tmp/fds; cat /tmp/fds; \
                  grep -E '^(Cap|Seccomp:)' /proc/self/status; readlink /proc/1/root; ls /proc/self/task | wc -l";
    let plain = world.env.run(world.env.script("plain", script)).await.unwrap();
    let mut spec = world.env.script("hooked", script);
    spec.hooks.create_container.push(world.hook("good", "exit 0", &[]));
    spec.hooks.start_container.push(inside("grep -c . /proc/self/mountinfo > /dev/null"));
    let hooked = world.env.run(spec).await.unwrap();
    assert_eq!(hooked.text, plain.text);
    let mut spec = world.env.script("as-user", "true");
    spec.program.uid = 1000;
    spec.hooks
        .start_container
        .push(inside("echo $(id -u) $(grep -c 'Seccomp:.*2' /proc/self/status); exit 1"));
    let error = world.env.run(spec).await.unwrap_err().to_string();
    assert!(error.ends_with("exit status: 1: 1000 1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_is_done_with_a_device_is_limited() {
    let Some(world) = World::new("root_what_is_done_with_a_device_is_limited").await else { return };
    let without = Env::with(|config| config.cgroups = false).await;
    // Devices that anybody can read and write, and that are not given to every sandbox.
    let candidates = [("/dev/fuse", 10, 229), ("/dev/net/tun", 10, 200)];
    let usable = |path: &str| fs::File::options().read(true).write(true).open(path).is_ok();
    let Some((_, major, minor)) = candidates.into_iter().find(|(path, _, _)| usable(path)) else {
        eprintln!("SKIPPED root_what_is_done_with_a_device_is_limited: no device to try it with");
        return;
    };
    let node = |read: bool, write: bool| {
        let access = DeviceAccess { read, write, mknod: true };
        DeviceNode { kind: NodeKind::Char, major, minor, mode: 0o666, uid: 0, gid: 0, access }
    };
    let script = "for p in /dev/a /log; do (: < $p) 2>/dev/null && echo read; (: > $p) 2>/dev/null && echo wrote; done";
    let mut executors = world.executors();
    executors.push(("without a filter", &without.launcher));
    for (name, executor) in executors {
        for (read, write, want) in [
            (true, true, "read wrote read wrote"),
            (true, false, "read read"),
            (false, true, "wrote wrote"),
            (false, false, ""),
        ] {
            let id = format!("limited-{}-{read}-{write}", name.replace(' ', "-"));
            let mut spec = world.env.script(&id, &format!("mknod /log c {major} {minor}; {script}"));
            let kind = MountKind::Device(node(read, write));
            spec.mounts.push(SandboxMount { dest: "/dev/a".into(), kind });
            if (read, write) == (true, true) && name != "runc" {
                let out = run_with(executor, spec).await.unwrap();
                let seen = out.text.split_whitespace().collect::<Vec<_>>().join(" ");
                // Without a filter it is the given node that can be used, and no other.
                assert!(seen == want || seen == "read wrote", "{name}: {seen}");
                continue;
            }
            match run_with(executor, spec).await {
                Ok(out) => {
                    assert_eq!(out.text.split_whitespace().collect::<Vec<_>>().join(" "), want, "{name}")
                }
                Err(error) => {
                    let error = error.to_string();
                    assert!(
                        error.contains("no device cgroup") && name == "without a filter",
                        "{name}: {error}"
                    );
                }
            }
        }
    }
    let mut spec = world.env.script("pipe", "(cat /dev/p &) ; echo through > /dev/p; sleep 0.1");
    let pipe = DeviceNode { kind: NodeKind::Fifo, major: 0, minor: 0, ..node(true, true) };
    spec.mounts.push(SandboxMount { dest: "/dev/p".into(), kind: MountKind::Device(pipe) });
    assert_eq!(world.env.run(spec).await.unwrap().text, "through\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_cannot_be_done_is_refused() {
    let Some(world) = World::new("root_what_cannot_be_done_is_refused").await else { return };
    let mut spec = world.env.script("rdt", "true");
    spec.intel_rdt = Some(IntelRdt::default());
    let error = world.env.run(spec).await.unwrap_err().to_string();
    assert_eq!(error, "intelRdt: only an OCI runtime can be asked for it");
    let mut spec = world.env.script("relative", "true");
    spec.hooks.poststop.push(Hook { path: "h".into(), args: vec![], env: vec![], timeout: None });
    let error = world.env.run(spec).await.unwrap_err().to_string();
    assert_eq!(error, "hooks: h is not an absolute path");
}
