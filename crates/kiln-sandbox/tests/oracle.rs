//! The launcher against runc: the same probe in the same root must see the same sandbox.
#![allow(missing_docs, clippy::print_stderr)]

mod common;

use common::{Env, run_with, skip};
use kiln_sandbox::*;
use std::collections::BTreeMap;
use std::path::Path;

/// The environment with the runtime next to the launcher; `None` when runc is missing.
async fn both(test: &str) -> Option<(Env, OciRuntime)> {
    if skip(test) {
        return None;
    }
    if !Path::new("/usr/sbin/runc").exists() {
        eprintln!("SKIPPED {test}: missing /usr/sbin/runc");
        return None;
    }
    let env = Env::new().await;
    let runc = OciRuntime::new("/usr/sbin/runc", &env.state.path().join("oci")).unwrap();
    Some((env, runc))
}

/// Runs the script under both and gives both outputs.
async fn probe(
    env: &Env,
    runc: &OciRuntime,
    id: &str,
    script: &str,
    change: fn(&mut ProcessSpec),
) -> [String; 2] {
    let mut outputs = Vec::new();
    let executors: [(&str, &dyn Executor); 2] = [("kiln", &env.launcher), ("runc", runc)];
    for (name, executor) in executors {
        let mut spec = env.script(&format!("{id}-{name}"), script);
        change(&mut spec);
        let out = run_with(executor, spec).await.unwrap();
        outputs.push(format!("{}\nstatus {}\n", out.text, out.status.code()));
    }
    outputs.try_into().unwrap()
}

async fn same(env: &Env, runc: &OciRuntime, id: &str, script: &str, change: fn(&mut ProcessSpec)) {
    let [kiln, oracle] = probe(env, runc, id, script, change).await;
    assert_eq!(kiln, oracle, "{id}");
}

const STATUS: &str = "grep -E '^(Uid|Gid|Groups|Cap|Seccomp:|NoNewPrivs|NSpid|SigBlk)' /proc/self/status";

#[tokio::test(flavor = "multi_thread")]
async fn root_runc_agrees_on_privileges() {
    let Some((env, runc)) = both("root_runc_agrees_on_privileges").await else { return };
    same(&env, &runc, "root", STATUS, |_| ()).await;
    same(&env, &runc, "user", STATUS, |s| {
        (s.program.uid, s.program.gid, s.program.additional_gids) = (1000, 100, vec![4, 7]);
    })
    .await;
    same(&env, &runc, "insecure", STATUS, |s| s.program.security = Security::Insecure).await;
    same(&env, &runc, "insecure-user", STATUS, |s| {
        s.program.security = Security::Insecure;
        s.program.uid = 1000;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_runc_agrees_on_the_surroundings() {
    let Some((env, runc)) = both("root_runc_agrees_on_the_surroundings").await else { return };
    same(&env, &runc, "env", "env | sort; pwd; hostname; id; umask; echo $$", |s| {
        s.program.env.extend(["A=1".into(), "B=x y".into()]);
        s.program.cwd = "/not/there".into();
        s.program.uid = 1000;
    })
    .await;
    same(&env, &runc, "ulimit", "ulimit -a; ulimit -Ha", |s| {
        let limit = |name: &str, soft, hard| Ulimit { name: name.into(), soft, hard };
        s.program.ulimits = vec![limit("nofile", 64, 128), limit("core", 0, 0), limit("nproc", 10, 20)];
    })
    .await;
    // The shell's own script descriptor does not count: `-c` has none.
    same(&env, &runc, "fds", "cd /proc/self/fd; for f in *; do [ -e $f ] && echo $f; done", |_| ()).await;
    same(&env, &runc, "codes", "exit 42", |_| ()).await;
    same(&env, &runc, "tree", "ps -o args > /tmp/ps; cat /tmp/ps", |_| ()).await;
    same(&env, &runc, "net", "ls /sys/class/net; cat /proc/net/dev | wc -l", |s| s.network = Network::None)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_runc_agrees_on_devices() {
    let Some((env, runc)) = both("root_runc_agrees_on_devices").await else { return };
    let list = "find /dev | sort | while read f; do stat -c '%A %u %g %t:%T %N' $f; done";
    same(&env, &runc, "list", list, |_| ()).await;
    let use_them = "for d in null zero full random urandom; do head -c1 /dev/$d | wc -c; done; (echo x > /dev/full) 2>&1; \
                    echo x > /dev/null && echo wrote; (: < /dev/tty) 2>&1; \
                    mknod /tmp/disk b 254 0 && echo made; (head -c1 /tmp/disk) 2>&1; mknod /tmp/mem c 1 1; \
                    (: < /tmp/mem) 2>&1; mknod /dev/mem2 c 1 1; (: < /dev/mem2) 2>&1; \
                    mknod /tmp/null c 1 3; echo x > /tmp/null && echo null works; mknod /tmp/kmsg c 1 11; \
                    (: < /tmp/kmsg) 2>&1";
    same(&env, &runc, "use", use_them, |_| ()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_runc_agrees_on_what_is_refused() {
    let Some((env, runc)) = both("root_runc_agrees_on_what_is_refused").await else { return };
    let script = "for p in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/latency_stats; do \
                    echo $p $(cat $p 2>&1 | wc -c); done; \
                  for d in /proc/acpi /proc/scsi /proc/asound /sys/firmware; do echo $d $(ls $d 2>&1); done; \
                  for p in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/x /proc/sys/vm/drop_caches; do \
                    (echo 1 > $p) 2>&1; done; \
                  (mkdir /sys/fs/cgroup/unified/x; echo 1 > /sys/kernel/mm/x) 2>&1 | \
                    sed 's/No such file.*/Read-only file system/'; \
                  mount -t tmpfs none /tmp 2>&1; mount --bind / /tmp 2>&1; umount /proc 2>&1; \
                  unshare -U true 2>&1; unshare -m true 2>&1; chroot / true && echo chroot; \
                  hostname x 2>&1; dmesg 2>&1 | tail -1; date -s 2020-01-01 >/dev/null 2>&1 || echo no clock";
    same(&env, &runc, "refused", script, |_| ()).await;
}

/// Mount point to filesystem type and options. Options only one side prints are taken out.
fn mounts(text: &str) -> BTreeMap<String, (String, Vec<String>)> {
    text.lines()
        .filter(|l| l.starts_with("M "))
        .map(|line| {
            let f: Vec<&str> = line.split(' ').collect();
            let options = f[4].split(',').filter(|o| {
                !["lowerdir", "upperdir", "workdir", "seclabel", "inode64", "relatime", "index", "metacopy"]
                    .iter()
                    .any(|skip| o.starts_with(skip))
                    && !o.starts_with("redirect_dir")
            });
            (f[2].to_owned(), (f[3].to_owned(), options.map(str::to_owned).collect()))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_runc_agrees_on_mounts() {
    let Some((env, runc)) = both("root_runc_agrees_on_mounts").await else { return };
    let script = "while read a b c d e; do echo M $a $b $c $d; done < /proc/mounts";
    let add = |s: &mut ProcessSpec| {
        let kind = MountKind::File { contents: b"x".into(), mode: 0o644, uid: 0, gid: 0 };
        s.mounts.push(SandboxMount { dest: "/etc/hosts".into(), kind });
        let kind = MountKind::Tmpfs { size: Some(4096), mode: 0o755 };
        s.mounts.push(SandboxMount { dest: "/mnt/t".into(), kind });
    };
    let [kiln, oracle] = probe(&env, &runc, "mounts", script, add).await;
    let (mut kiln, mut oracle) = (mounts(&kiln), mounts(&oracle));
    // runc shows every v1 controller, the launcher those that are joined; runc's directory of them is writable.
    oracle.remove("/sys/fs/cgroup");
    for side in [&mut kiln, &mut oracle] {
        let cgroups: Vec<String> = side.keys().filter(|p| p.starts_with("/sys/fs/cgroup")).cloned().collect();
        for point in cgroups {
            let (_, options) = side.remove(&point).unwrap();
            assert_eq!(&options[..4], ["ro", "nosuid", "nodev", "noexec"], "{point}");
        }
    }
    // Masks: runc covers directories with a filesystem of their own, the launcher with a clone of one.
    for (point, (kind, options)) in kiln.iter_mut().chain(oracle.iter_mut()) {
        if point.starts_with("/proc/") || point.starts_with("/sys/") || point == "/etc/hosts" {
            options.retain(|o| ["ro", "nosuid", "nodev", "noexec"].contains(&o.as_str()));
            if kind == "tmpfs" {
                *options = vec!["ro".into()];
            }
        }
    }
    // Where runc's null device for a mask comes from shows in its options only.
    assert_eq!(kiln.keys().collect::<Vec<_>>(), oracle.keys().collect::<Vec<_>>());
    for (point, seen) in &kiln {
        let expected = &oracle[point];
        if point.starts_with("/proc/") && expected.0 != seen.0 {
            continue;
        }
        if ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/", "/mnt/t"]
            .contains(&point.as_str())
            || point.starts_with("/proc/")
        {
            assert_eq!(seen, expected, "{point}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_runc_agrees_on_programs_that_cannot_run() {
    let Some((env, runc)) = both("root_runc_agrees_on_programs_that_cannot_run").await else { return };
    for (i, program) in ["foo", "", "/foo", "./foo", "/etc/passwd", "/etc"].into_iter().enumerate() {
        let mut texts = Vec::new();
        let executors: [(&str, &dyn Executor); 2] = [("kiln", &env.launcher), ("runc", &runc)];
        for (name, executor) in executors {
            let spec = env.command(&format!("x{i}-{name}"), &[program]);
            match run_with(executor, spec).await {
                Err(SandboxError::Exec(e)) => texts.push(e.to_string()),
                other => panic!("{name} {program:?}: {other:?}"),
            }
        }
        assert_eq!(texts[0], texts[1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_runc_can_be_killed_and_leaves_nothing() {
    let Some((env, runc)) = both("root_runc_can_be_killed_and_leaves_nothing").await else { return };
    let (process, out) =
        common::start(&runc, env.script("kill-runc", "sleep 1000 & sleep 1000")).await.unwrap();
    process.kill(9).unwrap();
    assert_eq!(process.wait().await.unwrap(), ExitStatus::Signal(9));
    // Ends when the last process that held it is gone. (runc says there that its process died.)
    common::drain(out);
    let bundles = env.state.path().join("oci/bundles");
    assert_eq!(std::fs::read_dir(bundles).unwrap().count(), 0);
}
