//! The binary under the name of BuildKit's daemon.

mod common;

use common::{NEEDS, World, world_without_daemon};
use kiln_testkit::{PATIENCE, require, wait_until};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The daemon's name for the binary.
fn buildkitd(dir: &Path) -> PathBuf {
    let link = dir.join("buildkitd");
    let _ = std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kiln"), &link);
    link
}

fn failed(dir: &Path, args: &[&str]) -> String {
    let out = Command::new(buildkitd(dir)).args(args).output().unwrap();
    assert_eq!(out.status.code(), Some(1), "{args:?}");
    String::from_utf8(out.stderr).unwrap()
}

#[test]
fn the_version_is_four_words() {
    let dir = tempfile::tempdir().unwrap();
    for flag in ["--version", "-v", "-version"] {
        let out = Command::new(buildkitd(dir.path())).arg(flag).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let words: Vec<_> = text.split_whitespace().collect();
        assert_eq!(words.len(), 4, "{text}");
        assert_eq!(words[..2], ["buildkitd", "github.com/moby/buildkit"]);
        assert!(words[2].starts_with('v'));
    }
}

#[test]
fn what_cannot_be_is_said_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("c.toml");
    std::fs::write(&config, "[worker.oci]\nenabled = \"auto\"\n").unwrap();
    let config = config.to_str().unwrap();
    let text = failed(dir.path(), &["--config", config]);
    assert!(
        text.starts_with(&format!(
            "buildkitd: failed to parse config {config}: line 2: worker.oci.enabled: "
        )),
        "{text}"
    );
    let none = ["--config", "/no/such.toml"];
    for (flag, want) in [
        ("--containerd-worker=true", "kiln has no containerd worker"),
        ("--oci-worker-net=cni", "kiln has no networks of its own"),
        ("--allow-insecure-entitlement=root", "invalid entitlement : root"),
        ("--oci-worker-selinux", "kiln applies no SELinux labels"),
        ("--no-such-flag", "--no-such-flag"),
    ] {
        let text = failed(dir.path(), &[none[0], none[1], flag]);
        assert!(text.contains(want), "{flag}: {text}");
    }
}

/// A daemon under BuildKit's name with the world's registry, and where it says how it is.
struct Served {
    world: World,
    daemon: Child,
    notify: UnixDatagram,
}

fn serve(args: &[&str]) -> Option<Served> {
    if !require(NEEDS) {
        return None;
    }
    let world = world_without_daemon()?;
    let dir = world.env.path().to_path_buf();
    let notify = UnixDatagram::bind(dir.join("notify")).unwrap();
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    let daemon = Command::new(buildkitd(&dir))
        .args([
            "--config",
            dir.join("kiln.toml").to_str().unwrap(),
            "--root",
            dir.join("root").to_str().unwrap(),
        ])
        .arg(format!("--addr=unix://{}", dir.join("b.sock").display()))
        .args(args)
        .env("NOTIFY_SOCKET", dir.join("notify"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let served = Served { world, daemon, notify };
    served.said("READY=1");
    Some(served)
}

impl Served {
    fn said(&self, want: &str) {
        let mut got = [0; 64];
        let n = self.notify.recv(&mut got).expect("the daemon says how it is");
        assert_eq!(String::from_utf8_lossy(&got[..n]), want);
    }

    fn addr(&self) -> String {
        format!("unix://{}", self.world.env.path().join("b.sock").display())
    }

    /// A build whose step says `begun` and goes on until its `sleep` is ended.
    fn long_build(&self) -> Child {
        self.world.context("Dockerfile", format!("FROM busybox\nRUN echo begun; {}; true\n", self.sleep()));
        let mut command =
            self.world.env.command(&["build", "--progress", "plain", "--addr", &self.addr(), "."]);
        let mut build = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(build.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains(" begun")), "the step runs");
        // Whoever does not read what it says would stop it.
        std::thread::spawn(move || lines.count());
        build
    }

    /// An hour, so long as nobody ends it; no other test has the same.
    fn sleep(&self) -> String {
        format!("sleep 36{:07}", self.daemon.id())
    }

    /// Ends the `sleep` of the step.
    fn end_sleep(&self) {
        let line = self.sleep().replace(' ', "\0") + "\0";
        wait_until("the step sleeps", || {
            let all = std::fs::read_dir("/proc").unwrap().flatten();
            let own = |p: &Path| std::fs::read(p.join("cmdline")).is_ok_and(|l| l == line.as_bytes());
            let found = all.map(|e| e.path()).find(|p| own(p));
            found
                .is_some_and(|p| Command::new("kill").arg(p.file_name().unwrap()).status().unwrap().success())
        });
    }

    fn signal(&self) {
        let killed = Command::new("kill").arg(self.daemon.id().to_string()).status().unwrap();
        assert!(killed.success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

#[test]
fn a_stop_lets_builds_finish_root() {
    let Some(mut served) = serve(&[]) else { return };
    let mut build = served.long_build();
    served.signal();
    served.said("STOPPING=1");
    served.world.context("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let refused = served.world.env.kiln(&["build", "--addr", &served.addr(), "."]);
    assert!(refused.stderr.contains("the daemon is shutting down: no new builds"), "{}", refused.stderr);
    assert!(build.try_wait().unwrap().is_none(), "the build goes on");
    served.end_sleep();
    assert_eq!(build.wait().unwrap().code(), Some(0), "the build finished");
    assert_eq!(served.daemon.wait().unwrap().code(), Some(0));
    assert!(!served.world.env.path().join("b.sock").exists());
}

#[test]
fn after_the_deadline_or_a_second_signal_builds_are_stopped_root() {
    for (timeout, signals) in [("200ms", 1), ("1h", 2)] {
        let Some(mut served) = serve(&[&format!("--drain-timeout={timeout}")]) else { return };
        let mut build = served.long_build();
        served.signal();
        if signals > 1 {
            // Two signals that come together are one.
            served.said("STOPPING=1");
            served.signal();
        }
        let mut code = None;
        wait_until("the daemon ends", || {
            code = served.daemon.try_wait().unwrap();
            code.is_some()
        });
        assert_eq!(code.unwrap().code(), Some(0));
        assert_ne!(build.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_second_daemon_is_told_so_root() {
    let Some(served) = serve(&[]) else { return };
    let dir = served.world.env.path();
    let root = dir.join("root");
    let text = failed(
        dir,
        &["--config", "/no/such.toml", "--root", root.to_str().unwrap(), "--addr", "unix:///no/x.sock"],
    );
    let want = format!(
        "buildkitd: could not lock {}, another instance running?\n",
        root.join("kiln.lock").display()
    );
    assert!(text.ends_with(&want), "{text}");
}
