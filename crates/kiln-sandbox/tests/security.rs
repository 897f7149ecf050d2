//! Ways out of a sandbox that runtimes have had, tried from a step. Each test names what it is about.
#![allow(missing_docs)]

mod common;

use common::{Env, drain, skip, start};
use kiln_sandbox::*;
use std::fs::{self, File};
use std::os::unix::fs::symlink;

/// A file of the host that no step may see or change, and its path.
struct Canary {
    dir: tempfile::TempDir,
}

impl Canary {
    fn new() -> Canary {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("canary"), "host secret").unwrap();
        fs::create_dir(dir.path().join("empty")).unwrap();
        Canary { dir }
    }

    fn path(&self) -> String {
        self.dir.path().display().to_string()
    }

    /// Nothing was added, removed or changed.
    fn check(&self) {
        assert_eq!(fs::read_to_string(self.dir.path().join("canary")).unwrap(), "host secret");
        assert_eq!(fs::read_dir(self.dir.path().join("empty")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 2);
    }
}

/// CVE-2026-41579, CVE-2023-27561: /dev, /proc, /sys of the image are links.
#[tokio::test(flavor = "multi_thread")]
async fn root_standard_directories_that_are_links_are_refused() {
    if skip("root_standard_directories_that_are_links_are_refused") {
        return;
    }
    let env = Env::new().await;
    let canary = Canary::new();
    for name in ["dev", "proc", "sys"] {
        let point = env.image.root().join(name);
        fs::remove_dir(&point).unwrap();
        for target in
            [format!("{}/empty", canary.path()), "/tmp".into(), "../../../../tmp".into(), name.into()]
        {
            symlink(&target, &point).unwrap();
            let id = format!("link-{name}-{}", target.len());
            match env.run(env.script(&id, "true")).await {
                Err(SandboxError::Setup { step, message }) => {
                    assert_eq!(message, format!("/{name} of the root is a symbolic link"));
                    assert!([Step::Dev, Step::Proc, Step::Sys].contains(&step));
                }
                other => panic!("{name} -> {target}: {other:?}"),
            }
            canary.check();
            fs::remove_file(&point).unwrap();
        }
        fs::write(&point, "").unwrap();
        let id = format!("file-{name}");
        assert!(matches!(env.run(env.script(&id, "true")).await, Err(SandboxError::Setup { .. })));
        fs::remove_file(&point).unwrap();
        fs::create_dir(&point).unwrap();
    }
}

/// CVE-2024-45310 and its kind: mount points below links to host directories are made inside the root.
#[tokio::test(flavor = "multi_thread")]
async fn root_mount_points_through_links_stay_inside() {
    if skip("root_mount_points_through_links_stay_inside") {
        return;
    }
    let env = Env::new().await;
    let canary = Canary::new();
    let root = env.image.root();
    fs::remove_file(root.join("etc/passwd")).unwrap();
    fs::remove_dir(root.join("etc")).unwrap();
    symlink(format!("{}/empty", canary.path()), root.join("etc")).unwrap();
    symlink(format!("../../../../../..{}", canary.path()), root.join("up")).unwrap();
    let mut spec = env.script("points", "cat /etc/hosts; ls /up/");
    for dest in ["/etc/hosts", "/etc/sub/dir/f", "/up/canary", "/up/../../../x"] {
        let kind = MountKind::File { contents: "inside\n".into(), mode: 0o644, uid: 0, gid: 0 };
        spec.mounts.push(SandboxMount { dest: dest.into(), kind });
    }
    spec.program.cwd = "/up/empty/made".into();
    let out = env.run(spec).await.unwrap();
    assert_eq!(out.text, "inside\ncanary\nempty\n");
    canary.check();
    // They were made at the same place below the root.
    assert!(env.image.upper("points").join(canary.path().trim_start_matches('/')).join("canary").exists());
}

/// CVE-2024-21626: a directory handle of the launcher as working directory, or any handle at all.
#[tokio::test(flavor = "multi_thread")]
async fn root_no_handle_of_the_host_is_reachable() {
    if skip("root_no_handle_of_the_host_is_reachable") {
        return;
    }
    let canary = Canary::new();
    // The launcher's program inherits this one, as it would any that a library opened carelessly.
    let _careless = rustix::io::dup(File::open(canary.path()).unwrap()).unwrap();
    let env = Env::new().await;
    for number in 0..20 {
        let mut spec =
            env.script(&format!("cwd{number}"), "pwd; ls ..; cat ../../../../..$C/canary 2>/dev/null");
        spec.program.cwd = format!("/proc/self/fd/{number}").into();
        spec.program.env.push(format!("C={}", canary.path()));
        match env.run(spec).await {
            Ok(out) => {
                assert!(!out.text.contains("host secret") && !out.text.contains("boot"), "{}", out.text);
            }
            Err(SandboxError::Setup { step, .. }) => assert_eq!(step, Step::WorkingDirectory),
            Err(e) => panic!("{e}"),
        }
    }
    // Only the standard streams are open, whatever the launcher had.
    let out = env.run(env.command("fds", &["ls", "/proc/self/fd"])).await.unwrap();
    assert_eq!(out.text, "0\n1\n2\n3\n", "3 is the directory being listed");
    canary.check();
}

/// CVE-2019-5736: the launcher's binary through the links of procfs.
#[tokio::test(flavor = "multi_thread")]
async fn root_the_helper_binary_cannot_be_written() {
    if skip("root_the_helper_binary_cannot_be_written") {
        return;
    }
    let env = Env::new().await;
    let root = env.image.root();
    let script = |name: &str, text: &str| {
        fs::write(root.join(name), text).unwrap();
        fs::set_permissions(root.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    script("again", "#!/proc/self/exe\n");
    let before = fs::read(env!("CARGO_BIN_EXE_kiln-sandbox-helper")).unwrap();
    // The interpreter is the helper for a moment. It sees that it was not started as one, and ends with 2, or
    // its libraries are not in the image.
    let again = env.run(env.command("again", &["/again"])).await;
    assert!(!matches!(&again, Ok(out) if out.status.success()), "{again:?}");
    let write = "for p in /proc/self/exe /proc/1/exe; do (: >> $p) 2>&1; done; \
                 for f in /proc/1/fd/* /proc/self/fd/*; do [ -f $f ] && (echo overwritten > $f); done; true";
    env.sh("write", write).await;
    assert!(before == fs::read(env!("CARGO_BIN_EXE_kiln-sandbox-helper")).unwrap());
    assert_eq!(env.sh("after", "echo fine").await.text, "fine\n");
}

/// CVE-2025-31133, CVE-2025-52881: masks and the read-only parts of procfs, and writes that kernels act on.
#[tokio::test(flavor = "multi_thread")]
async fn root_masks_hold_and_cannot_be_removed() {
    if skip("root_masks_hold_and_cannot_be_removed") {
        return;
    }
    let env = Env::new().await;
    let out = env
        .sh(
            "masks",
            "for p in /proc/kcore /proc/keys /proc/timer_list; do [ -e $p ] && cat $p | wc -c; done; \
             umount /proc/kcore /proc/sys /sys/firmware 2>&1 | grep -vc 'not permitted'; \
             for p in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/kernel/modprobe \
               /sys/kernel/uevent_helper /sys/fs/cgroup/release_agent; do \
               [ -e $p ] && (echo x > $p) 2>/dev/null && echo WROTE $p; done; \
             mount -o remount,rw /proc/sys 2>/dev/null && echo REMOUNTED; mount -t proc p /tmp 2>/dev/null && echo PROC; \
             find /sys/fs/cgroup -type d 2>/dev/null | while read d; do mkdir $d/kiln-x 2>/dev/null && echo MADE $d; done; \
             find /sys /proc/sys -type f -perm -200 2>/dev/null | head -2000 | while read f; do \
               (: >> $f) 2>/dev/null && echo OPENED $f; done; true",
        )
        .await;
    let lines: Vec<&str> = out.text.lines().collect();
    assert!(lines.iter().all(|l| *l == "0"), "{lines:?}");
}

/// A mount into procfs would let masks be faked.
#[tokio::test(flavor = "multi_thread")]
async fn root_mounts_inside_proc_are_refused() {
    if skip("root_mounts_inside_proc_are_refused") {
        return;
    }
    let env = Env::new().await;
    symlink("/proc/sys", env.image.root().join("link")).unwrap();
    for (i, dest) in ["/proc", "/proc/sys", "/proc/self/attr", "/link/kernel"].into_iter().enumerate() {
        let mut spec = env.script(&format!("proc{i}"), "true");
        spec.mounts
            .push(SandboxMount { dest: dest.into(), kind: MountKind::Tmpfs { size: None, mode: 0o755 } });
        match env.run(spec).await {
            Err(SandboxError::Setup { step: Step::Mount, message }) => {
                assert!(message.contains("inside /proc"), "{message}");
            }
            other => panic!("{dest}: {other:?}"),
        }
    }
}

/// New namespaces, keyrings, raw mounts and the other calls that widen what a step may do.
#[tokio::test(flavor = "multi_thread")]
async fn root_privileged_calls_are_refused() {
    if skip("root_privileged_calls_are_refused") {
        return;
    }
    let env = Env::new().await;
    let script = "for n in U m u i n p C; do unshare -$n true 2>/dev/null && echo GOT $n; done; \
                  mount -t tmpfs x /tmp 2>/dev/null && echo MOUNT; nsenter -t 1 -m true 2>/dev/null && echo NSENTER; \
                  insmod /bin/busybox 2>/dev/null && echo MODULE; reboot -f 2>/dev/null && echo REBOOT; \
                  swapon /bin/busybox 2>/dev/null && echo SWAP; hostname x 2>/dev/null && echo NAME; \
                  pivot_root / /tmp 2>/dev/null && echo PIVOT; losetup /dev/loop0 /bin/busybox 2>/dev/null && echo LOOP; true";
    assert_eq!(env.sh("calls", script).await.text, "");
    let mut user =
        env.script("user", "grep -c 'Cap\\(Eff\\|Prm\\|Inh\\|Amb\\):.0*$' /proc/self/status; touch /x 2>&1");
    user.program.uid = 1000;
    let out = env.run(user).await.unwrap();
    assert_eq!(out.text, "4\ntouch: /x: Permission denied\n");
}

/// Calls newer than the profile are unknown (ENOSYS), not forbidden, so that C libraries fall back.
#[tokio::test(flavor = "multi_thread")]
async fn root_unknown_calls_are_unknown() {
    if skip("root_unknown_calls_are_unknown") {
        return;
    }
    let env = Env::new().await;
    let Some(caller) = build_caller(&env) else {
        return eprintln!("SKIPPED root_unknown_calls_are_unknown: no C compiler that links statically");
    };
    fs::copy(caller, env.image.root().join("bin/caller")).unwrap();
    // keyctl is known and forbidden; 9999 is nobody's; x32's and i386's tables are covered too.
    let out = env.run(env.command("unknown", &["caller", "250", "9999", "1073751823", "435"])).await.unwrap();
    assert_eq!(out.text, "250 1\n9999 38\n1073751823 38\n435 38\n");
}

/// A static program that prints the errno of each system call named by its arguments.
fn build_caller(env: &Env) -> Option<std::path::PathBuf> {
    let source = env.state.path().join("caller.c");
    let binary = env.state.path().join("caller");
    fs::write(
        &source,
        "#define _GNU_SOURCE\n#include <errno.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n\
         int main(int c, char **v) { for (int i = 1; i < c; i++) { errno = 0; syscall(atol(v[i]), 0, 0, 0, 0, 0); \
         printf(\"%s %d\\n\", v[i], errno); } return 0; }\n",
    )
    .unwrap();
    let mut compiler = std::process::Command::new("cc");
    let built = compiler.arg("-static").arg("-o").arg(&binary).arg(&source).status();
    built.is_ok_and(|status| status.success()).then_some(binary)
}

/// CVE-2021-30465, CVE-2024-23651: another step swaps a mount point's parent for a link while mounts are made.
#[tokio::test(flavor = "multi_thread")]
async fn root_racing_a_shared_mount_never_reaches_the_host() {
    if skip("root_racing_a_shared_mount_never_reaches_the_host") {
        return;
    }
    let env = Env::new().await;
    let canary = Canary::new();
    let shared = tempfile::tempdir().unwrap();
    fs::create_dir(shared.path().join("a")).unwrap();
    let open = || File::open(shared.path()).unwrap().into();
    let bind = |spec: &mut ProcessSpec| {
        let kind = MountKind::Bind { fd: open(), options: BindOptions::default() };
        spec.mounts.push(SandboxMount { dest: "/cache".into(), kind });
    };
    let swap = format!(
        "cd /cache; while :; do mv a b; ln -s {0}/empty a; rm a; mv b a; mv a b; ln -s ../../../../..{0} a; rm a; mv b a; done",
        canary.path()
    );
    let mut racer = env.script("racer", &swap);
    bind(&mut racer);
    let (racer, racer_out) = start(&env.launcher, racer).await.unwrap();
    for i in 0..60 {
        let mut spec = env.script(&format!("victim{i}"), "cat /cache/a/canary 2>/dev/null; true");
        bind(&mut spec);
        let kind = MountKind::File { contents: b"mine".into(), mode: 0o644, uid: 0, gid: 0 };
        spec.mounts.push(SandboxMount { dest: "/cache/a/f".into(), kind });
        spec.mounts.push(SandboxMount {
            dest: "/cache/a/d".into(),
            kind: MountKind::Tmpfs { size: None, mode: 0o755 },
        });
        spec.program.cwd = "/cache/a/w".into();
        match env.run(spec).await {
            Ok(out) => assert!(!out.text.contains("host secret"), "{}", out.text),
            Err(SandboxError::Setup { step: Step::Mount | Step::WorkingDirectory, .. }) => {}
            Err(e) => panic!("{e}"),
        }
        canary.check();
    }
    drop(racer);
    drain(racer_out);
}

/// Without a device filter no device but the standard ones can be opened, on no mount of the step.
#[tokio::test(flavor = "multi_thread")]
async fn root_devices_stay_closed_without_a_cgroup() {
    if skip("root_devices_stay_closed_without_a_cgroup") {
        return;
    }
    let env = Env::with(|config| config.cgroups = false).await;
    let host = tempfile::tempdir().unwrap();
    let mut spec = env.script(
        "nodev",
        "cut -d: -f3 /proc/self/cgroup | grep -c nodev; \
         for d in null zero full random urandom; do head -c1 /dev/$d | wc -c; done; echo x > /dev/null && echo wrote; \
         for p in / /dev/ /tmp/ /t/ /b/ /dev/shm/; do mknod ${p}disk b 254 0; mknod ${p}mem c 1 1; mknod ${p}n c 1 3; \
           for d in disk mem n; do (: < $p$d) 2>&1; (head -c1 $p$d) 2>/dev/null; done; done | grep -vc 'ermission denied'; \
         mount | grep -v nodev | grep -c -v -E ' on /(dev/(null|zero|full|random|urandom|tty|pts)|proc/[a-z_]+) '",
    );
    let kind =
        MountKind::Bind { fd: File::open(host.path()).unwrap().into(), options: BindOptions::default() };
    spec.mounts.push(SandboxMount { dest: "/b".into(), kind });
    spec.mounts.push(SandboxMount { dest: "/t".into(), kind: MountKind::Tmpfs { size: None, mode: 0o755 } });
    let out = env.run(spec).await.unwrap();
    assert_eq!(out.text, "0\n0\n1\n1\n1\n1\nwrote\n0\n0\n");
}

/// No process, mount or namespace of a step survives the daemon, however it ends.
#[tokio::test(flavor = "multi_thread")]
async fn root_nothing_survives_a_killed_daemon() {
    if skip("root_nothing_survives_a_killed_daemon") {
        return;
    }
    // This binary plays the daemon: the test named here runs a step until it is killed.
    if let Ok(marker) = std::env::var("KILN_SANDBOX_DAEMON") {
        let state = tempfile::Builder::new().prefix("state").rand_bytes(0).tempdir().unwrap();
        let env = Env::at(state, |_| ()).await;
        let (process, _out) =
            start(&env.launcher, env.script("killed-step", &format!("sleep 1000 & sleep {marker}")))
                .await
                .unwrap();
        fs::write(std::env::var("KILN_SANDBOX_PID").unwrap(), format!("{}\n", process.pid().unwrap()))
            .unwrap();
        std::future::pending::<()>().await;
    }
    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("pid");
    let mut daemon = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "root_nothing_survives_a_killed_daemon"])
        .env("KILN_SANDBOX_DAEMON", "98765")
        .env("KILN_SANDBOX_PID", &pid_file)
        .env("TMPDIR", dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let said = || fs::read_to_string(&pid_file).unwrap_or_default();
    common::until("the step runs", || said().ends_with('\n') || daemon.try_wait().unwrap().is_some()).await;
    let pid = said().trim().to_owned();
    let namespace = fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    assert!(using(&namespace) > 0);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let gone = || using(&namespace) == 0 && !fs::exists(format!("/proc/{pid}")).unwrap();
    common::until("the processes of the step end", gone).await;
    // Empty cgroups are all that is left; the next daemon of the same state directory removes them.
    let config = LauncherConfig {
        helper: Some(env!("CARGO_BIN_EXE_kiln-sandbox-helper").into()),
        ..Default::default()
    };
    drop(Launcher::start(&dir.path().join("state"), config).await.unwrap());
    common::cgroup_goes("killed-step").await;
}

/// Number of processes in the mount namespace.
fn using(namespace: &std::path::Path) -> usize {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|e| fs::read_link(e.path().join("ns/mnt")).is_ok_and(|ns| ns == namespace))
        .count()
}

/// The host's mounts, processes and environment are out of sight.
#[tokio::test(flavor = "multi_thread")]
async fn root_the_host_is_out_of_sight() {
    if skip("root_the_host_is_out_of_sight") {
        return;
    }
    let env = Env::new().await;
    let canary = Canary::new();
    let script = format!(
        "cat {0}/canary 2>/dev/null; cut -d' ' -f5 /proc/self/mountinfo | grep -c {0}; ls -d /proc/[0-9]* | wc -l; \
         env | sort; ipcs 2>/dev/null | grep -c 0x; readlink /proc/1/root; cat /proc/1/environ | tr '\\0' '\\n' | wc -l",
        canary.path()
    );
    let out = env.sh("sight", &script).await;
    let lines: Vec<&str> = out.text.lines().collect();
    assert_eq!(lines[0], "0", "{lines:?}");
    // The shell, ls and wc at most.
    assert!(lines[1].parse::<u32>().unwrap() <= 3, "{lines:?}");
    assert_eq!(&lines[2..], ["HOME=/root", common::PATH, "PWD=/", "SHLVL=1", "0", "/", "2"]);
    canary.check();
}
