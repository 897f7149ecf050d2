//! The daemon's life: kill -9, cancelled clients, idle exit, disk usage and prune.

mod common;

use common::{world, world_without_daemon};
use kiln_testkit::wait_until;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const FILE: &str =
    "FROM busybox\nRUN --mount=type=cache,target=/c echo x >> /c/n && cp /c/n /n\nRUN echo two > /two\n";

/// Whether a process is `sleep MARKER`, or a shell that will start it.
fn sleeps(marker: &str) -> bool {
    let wanted = format!("sleep {marker}");
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(&wanted)
    })
}

#[test]
fn the_cache_survives_restart_and_kill_root() {
    let Some(mut w) = world() else { return };
    let iid = w.env.path().join("iid");
    let image = ["--output", "type=image", "-t", "a", "--iidfile", iid.to_str().unwrap()];
    let _ = w.build(FILE, &image).success();
    let id = std::fs::read_to_string(&iid).unwrap();
    assert_eq!(w.daemon.take().unwrap().stop(), Some(0));
    w.start();
    assert_eq!(w.build(FILE, &image).success().cached(), 2, "after a stop");
    assert_eq!(std::fs::read_to_string(&iid).unwrap(), id, "the same image");
    w.daemon.take().unwrap().kill();
    w.start();
    assert_eq!(w.build(FILE, &[]).success().cached(), 2, "after kill -9");
    let dir =
        w.build_to_dir("FROM busybox\nRUN --mount=type=cache,target=/c cat /c/n > /n; test -s /n\n", &[]);
    assert_eq!(std::fs::read_to_string(dir.join("n")).unwrap(), "x\n", "the cache mount survives too");
}

#[test]
fn kill_in_the_middle_leaves_nothing_running_and_nothing_broken_root() {
    let Some(mut w) = world() else { return };
    let marker = format!("31{}", std::process::id());
    for round in 0..8u32 {
        w.context("Dockerfile", format!("{FILE}RUN echo {round} && sleep {marker}\n"));
        let mut client = w.env.command(&["build", "."]).stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(40 * u64::from(round)));
        if round == 7 {
            wait_until("the step runs", || sleeps(&marker));
        }
        let pid = w.daemon.as_ref().unwrap().pid();
        w.daemon.take().unwrap().kill();
        wait_until("steps die with the daemon", || !sleeps(&marker));
        assert_ne!(client.wait().unwrap().code(), Some(0));
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(w.env.path().to_str().unwrap()), "{mounts}");
        w.start();
    }
    let _ = w.build(FILE, &[]).success();
    assert_eq!(w.build(FILE, &[]).success().cached(), 2);
}

#[test]
fn a_cancelled_build_stops_its_step_root() {
    let Some(w) = world() else { return };
    let marker = format!("32{}", std::process::id());
    w.context("Dockerfile", format!("FROM busybox\nRUN sleep {marker}\n"));
    let mut client = w
        .env
        .command(&["build", "--progress", "plain", "."])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the step runs", || sleeps(&marker));
    drop(Command::new("kill").args(["-INT", &client.id().to_string()]).status());
    wait_until("the step stops", || !sleeps(&marker));
    assert_ne!(client.wait().unwrap().code(), Some(0));
    let _ = w.build("FROM busybox\nRUN true\n", &[]).success();
}

#[test]
fn disk_usage_and_prune_root() {
    let Some(w) = world() else { return };
    let _ = w.build(FILE, &[]).success();
    let du = w.env.kiln(&["du"]).success();
    assert!(
        du.stdout.starts_with("ID") && du.stdout.contains("RECLAIMABLE") && du.stdout.contains("Total:"),
        "{}",
        du.stdout
    );
    let verbose = w.env.kiln(&["du", "--verbose"]).success();
    assert!(
        verbose.stdout.contains("exec.cachemount") && verbose.stdout.contains("source.local"),
        "{}",
        verbose.stdout
    );
    let recent = w.env.kiln(&["prune", "--force", "--filter", "until=24h"]).success();
    assert!(recent.stdout.contains("Total:"), "{}", recent.stdout);
    assert_eq!(w.build(FILE, &[]).success().cached(), 2, "what was used today stays");
    let all = w.env.kiln(&["prune", "--all", "--force"]).success();
    assert!(all.stdout.contains("Total:"));
    let du = w.env.kiln(&["du"]).success();
    assert!(du.stdout.contains("Total:\t0B") || du.stdout.contains("0B"), "{}", du.stdout);
    assert_eq!(w.build(FILE, &[]).success().cached(), 0);
    let wrong = w.env.kiln(&["prune", "--force", "--filter", "until=tomorrow"]).failure();
    assert!(wrong.stderr.contains("duration"), "{}", wrong.stderr);
}

#[test]
fn the_daemon_starts_by_itself_and_in_the_process_root() {
    let Some(w) = world_without_daemon() else { return };
    w.context("Dockerfile", "FROM scratch\nCOPY <<E /x\nauto\nE\n");
    let out = w.env.path().join("o");
    let output = format!("type=local,dest={}", out.display());
    let root = w.env.path().join("own");
    let daemonless = ["build", "--daemonless", "--root", root.to_str().unwrap(), "-o", &output, "."];
    let _ = w.env.kiln(&daemonless).success();
    assert_eq!(std::fs::read_to_string(out.join("x")).unwrap(), "auto\n");
    assert_eq!(w.env.kiln(&daemonless).success().cached(), 1);
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused_root() {
    let Some(w) = world() else { return };
    let root = w.env.path().join("root");
    let addr = format!("unix://{}", w.env.path().join("run/other.sock").display());
    let out = w.env.kiln(&["daemon", "--root", root.to_str().unwrap(), "--addr", &addr]);
    // Its own status (EX_TEMPFAIL), by which a client that started it knows that another daemon is there.
    assert_eq!(out.status, 75, "{}", out.stderr);
    assert!(out.stderr.contains("another instance running"), "{}", out.stderr);
}

#[test]
fn an_oci_runtime_can_be_chosen_root() {
    if !kiln_testkit::require(&[kiln_testkit::Need::Program("runc")]) {
        return;
    }
    let Some(mut w) = world_without_daemon() else { return };
    w.start_with(&["--oci-worker-binary", "runc"]);
    let out = w.out("RUN id -u > /out; cat /proc/self/status | grep CapEff >> /out", &[]);
    assert!(out.contains("00000000a80425fb"), "{out}");
    let failed = w.build("FROM busybox\nRUN exit 9\n", &[]).failure();
    assert!(failed.stderr.contains("exit code: 9"), "{}", failed.stderr);
}
