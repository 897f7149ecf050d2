//! What a step sees of the daemon and the host, and what it can reach from inside.

use crate::canary::{Canary, attempt, holds};
use crate::common::{World, world};

/// CVE-2024-21626: no descriptor of the daemon as working directory, source or destination.
#[test]
fn working_directories_by_descriptor_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    for base in ["/proc/self/fd", "/proc/1/fd", "/dev/fd"] {
        for n in 0..14 {
            let look = format!(
                "pwd -P; ls -la . ..; cat ../../../../../..{0}/secret ../../..{0}/secret",
                canary.path()
            );
            let file = format!("FROM busybox\nWORKDIR {base}/{n}\nRUN {look}; true\n");
            let (said, out) = attempt(&w, &file, &[]);
            canary.unread(&w, &said, &out);
            assert!(
                !said.stderr.contains("kiln.db") && !said.stderr.contains("daemon.log"),
                "{}",
                said.stderr
            );
        }
    }
    let file = "FROM busybox\nRUN ln -s /proc/self/fd/6 /w && ln -s /proc/self/cwd /v\nWORKDIR /w\nRUN ls -la; true\n";
    let (said, out) = attempt(&w, file, &[]);
    canary.unread(&w, &said, &out);
}

/// Standard input, output and error, and what `ls` opened itself: nothing of the daemon is inherited.
#[test]
fn no_descriptor_is_inherited_root() {
    let Some(w) = world() else { return };
    let out =
        w.out("RUN [\"/bin/sh\", \"-c\", \"ls -l /proc/self/fd > /out; ls -l /proc/1/fd >> /out\"]", &[]);
    let mut numbers = Vec::new();
    for line in out.lines().filter(|l| !l.starts_with("total")) {
        let (link, target) = line.split_once(" -> ").unwrap_or((line, "/proc/"));
        let fine = ["pipe:[", "/dev/null", "/out", "/proc/"].iter().any(|ok| target.starts_with(ok));
        assert!(fine, "{out}");
        numbers.extend(link.split(' ').next_back());
    }
    // The last one is the directory that `ls`, which became process 1, reads itself.
    assert_eq!(numbers, ["0", "1", "2", "3", "0", "1", "2", "3"], "{out}");
}

/// CVE-2021-3602, CVE-2022-27651, CVE-2022-2990: environment, inheritable capabilities, groups.
#[test]
fn nothing_of_the_daemon_is_inherited_root() {
    let Some(w) = world() else { return };
    let status = "grep -E '^(Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t ' ' '";
    let out = w.out(&format!("RUN env -i true; tr '\\0' '\\n' < /proc/1/environ > /out; {status} >> /out; chmod 666 /out\nUSER daemon\nRUN {status} >> /out"), &[]);
    let caps = "00000000a80425fb";
    let none = "0000000000000000";
    for (name, values) in [
        ("CapInh", [none, none]),
        ("CapPrm", [caps, none]),
        ("CapEff", [caps, none]),
        ("CapBnd", [caps, caps]),
        ("CapAmb", [none, none]),
        ("Seccomp", ["2", "2"]),
        // Programs such as sudo work, as in BuildKit.
        ("NoNewPrivs", ["0", "0"]),
        // The own one and those of the image's /etc/group.
        ("Groups", ["0 10", "1 10 100"]),
    ] {
        let found: Vec<_> =
            out.lines().filter_map(|l| l.strip_prefix(name)?.strip_prefix(": ")).map(str::trim).collect();
        assert_eq!(found, values, "{name}\n{out}");
    }
    let environment: Vec<_> = out
        .lines()
        .take_while(|l| !l.starts_with("Groups"))
        .filter_map(|l| l.split_once('='))
        .map(|(k, _)| k)
        .collect();
    for name in ["KILN_HOST", "XDG_RUNTIME_DIR", "TMPDIR", "KILN_CANARY", "RUST_LOG"] {
        assert!(!environment.contains(&name), "{out}");
    }
    assert!(!out.contains("kiln-test-"), "a path of the host: {out}");
    assert!(environment.contains(&"PATH") && environment.len() <= 4, "{out}");
}

/// CVE-2019-5736, CVE-2025-31133, CVE-2023-25809: the launcher's program, masked and read-only paths, cgroups, disks.
#[test]
fn nothing_of_the_host_can_be_written_root() {
    let Some(w) = world() else { return };
    let canary = Canary::new();
    let binary = std::fs::metadata(env!("CARGO_BIN_EXE_kiln")).unwrap();
    let tries = [
        "for p in /proc/[0-9]*/exe; do readlink $p; (echo x >> $p) 2>&1; done",
        "for f in /proc/*/fd/*; do readlink $f | grep -v -E '^(pipe|/dev/null|/proc)'; done",
        "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/vm/drop_caches /proc/irq/default_smp_affinity; do (echo x > $f) 2>&1 && echo WROTE $f; done",
        "for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /sys/firmware/*; do cat $f 2>/dev/null | head -c 10; done",
        "find /sys/fs/cgroup -maxdepth 2 -name 'cgroup.procs' -o -maxdepth 2 -name release_agent -o -maxdepth 2 -name '*.max' | while read f; do (echo 1 > $f) 2>/dev/null && echo WROTE $f; done",
        "mkdir /sys/fs/cgroup/evil 2>/dev/null && echo WROTE cgroup",
        "umount /proc/kcore 2>/dev/null && echo WROTE umount; mount -o remount,rw /proc/sys 2>/dev/null && echo WROTE remount",
        "mknod /d b 259 0 2>/dev/null; (: < /d) 2>/dev/null && echo WROTE disk",
        "chroot / true 2>/dev/null; ls /proc | grep -c '^[0-9]'",
        "cat /proc/1/root/etc/hostname /proc/1/cwd/secret; ls /proc/1/map_files 2>/dev/null | head -1",
    ];
    let file = format!("FROM busybox\nRUN ({}) > /out 2>/dev/null; cat /out; true\n", tries.join("; "));
    let (said, out) = attempt(&w, &file, &[]);
    canary.unread(&w, &said, &out);
    let _ = said.success();
    let text = std::fs::read_to_string(out.join("out")).unwrap();
    assert!(!text.contains("WROTE"), "{text}");
    assert!(!text.contains("kiln"), "{text}");
    let after = std::fs::metadata(env!("CARGO_BIN_EXE_kiln")).unwrap();
    assert_eq!((after.len(), after.modified().unwrap()), (binary.len(), binary.modified().unwrap()));
}

/// CVE-2024-23653, GHSA-7236-3392-c5c6: what needs an entitlement is refused without it, by client and by daemon.
#[test]
fn entitlements_are_asked_for_root() {
    let Some(w) = world() else { return };
    for (step, flag) in
        [("RUN --security=insecure true", "security.insecure"), ("RUN --network=host true", "network.host")]
    {
        let file = format!("FROM busybox\n{step}\n");
        let said = w.build(&file, &[]).failure();
        assert!(said.stderr.contains(flag), "{}", said.stderr);
        let said = w.build(&file, &["--allow", flag]).failure();
        assert!(said.stderr.contains(flag), "the daemon was not started with it: {}", said.stderr);
    }
    let file = "FROM busybox\nRUN --security=unheard-of true\n";
    let said = w.build(file, &[]).failure();
    assert!(said.stderr.contains("unheard-of"), "{}", said.stderr);
}

/// Nothing of a build stays: no process of a step, no mount the host can see.
#[test]
fn nothing_stays_behind_root() {
    let Some(mut w) = world() else { return };
    let marker = format!("42{}", std::process::id());
    let file = format!(
        "FROM busybox\nRUN (setsid sh -c ': > /a; sleep {marker}' &); (trap '' HUP; sh -c ': > /b; sleep {marker}' &); until test -e /a && test -e /b; do sleep 0.01; done\n\
         RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t true\n"
    );
    let _ = w.build(&file, &[]).success();
    assert!(!running(&marker), "a process of a step");
    let root = w.env.path().join("root").display().to_string();
    assert!(!mounts_of_host().contains(&root), "a mount");
    stop(&mut w);
    assert!(!mounts_of_host().contains(&root), "a mount");
}

fn stop(w: &mut World) {
    assert_eq!(w.daemon.take().unwrap().stop(), Some(0));
}

fn mounts_of_host() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap()
}

/// Whether a process was started with this text; applets of a shell keep the shell's arguments.
fn running(text: &str) -> bool {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|p| std::fs::read(p.path().join("cmdline")).ok()).any(|line| holds(&line, text))
}
