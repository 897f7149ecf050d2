//! A root with busybox, and short ways to run things in it.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::print_stderr)]

use kiln_sandbox::{
    Executor, ExitStatus, Launcher, LauncherConfig, Process, ProcessSpec, ProgramSpec, SandboxError, Stdio,
};
use kiln_sys::mount::{self, OverlayOptions};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The OCI runtimes that are installed and can run here, by name.
pub fn runtimes() -> Vec<(&'static str, &'static str)> {
    let mut all = vec![("runc", "/usr/sbin/runc"), ("crun", "/usr/bin/crun")];
    all.retain(|(name, path)| {
        // crun wants one version of cgroups or the other.
        let hybrid = *name == "crun" && Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists();
        let usable = Path::new(path).exists() && !hybrid;
        if !usable {
            eprintln!("SKIPPED {name}: {}", if hybrid { "not with hybrid cgroups" } else { "not installed" });
        }
        usable
    });
    all
}

/// Says why a test is skipped; true when it has to be.
pub fn skip(test: &str) -> bool {
    let mut missing = kiln_sys::caps::missing_for_build();
    if !Path::new("/bin/busybox").exists() {
        missing.push("/bin/busybox".into());
    }
    if missing.is_empty() {
        return false;
    }
    eprintln!("SKIPPED {test}: missing {}", missing.join(", "));
    true
}

/// A directory that is used as a lower layer.
pub struct Image {
    pub dir: tempfile::TempDir,
}

impl Image {
    /// busybox with all its applets, a user file, and the usual directories.
    pub fn busybox() -> Image {
        let image = Image { dir: tempfile::tempdir().unwrap() };
        let root = image.root();
        for dir in ["bin", "etc", "tmp", "proc", "sys", "dev", "root", "usr/bin", "home/user"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        let list = Command::new("/bin/busybox").arg("--list").output().unwrap();
        for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|a| *a != "busybox") {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n";
        fs::write(root.join("etc/passwd"), passwd).unwrap();
        fs::set_permissions(root.join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
        image
    }

    pub fn root(&self) -> PathBuf {
        let root = self.dir.path().join("rootfs");
        fs::create_dir_all(&root).unwrap();
        root
    }

    /// A fresh overlay over the image; the upper directory is `upper(name)`.
    pub fn overlay(&self, name: &str) -> OwnedFd {
        let (upper, work) = (self.upper(name), self.dir.path().join(format!("work-{name}")));
        fs::create_dir_all(&upper).unwrap();
        fs::create_dir_all(&work).unwrap();
        let lower = self.root();
        mount::overlay(
            &[(&lower).into()],
            Some(((&upper).into(), (&work).into())),
            &OverlayOptions::default(),
        )
        .unwrap()
    }

    pub fn upper(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("upper-{name}"))
    }
}

/// A launcher with its own state directory.
pub struct Env {
    pub state: tempfile::TempDir,
    pub launcher: Launcher,
    pub image: Image,
}

/// What came out of a run.
#[derive(Debug, PartialEq)]
pub struct Output {
    pub status: ExitStatus,
    pub text: String,
}

impl Env {
    pub async fn new() -> Env {
        Env::with(|_| ()).await
    }

    pub async fn with(change: impl FnOnce(&mut LauncherConfig)) -> Env {
        Env::at(tempfile::tempdir().unwrap(), change).await
    }

    pub async fn at(state: tempfile::TempDir, change: impl FnOnce(&mut LauncherConfig)) -> Env {
        let helper = Some(env!("CARGO_BIN_EXE_kiln-sandbox-helper").into());
        let mut config = LauncherConfig { helper, ..LauncherConfig::default() };
        change(&mut config);
        let launcher = Launcher::start(state.path(), config).await.unwrap();
        Env { state, launcher, image: Image::busybox() }
    }

    /// A spec for a shell script in a fresh overlay.
    pub fn script(&self, id: &str, script: &str) -> ProcessSpec {
        self.command(id, &["/bin/sh", "-c", script])
    }

    pub fn command(&self, id: &str, args: &[&str]) -> ProcessSpec {
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        let mut spec = ProcessSpec::new(id, self.image.overlay(id), ProgramSpec::new(args));
        spec.program.env.push(PATH.into());
        spec
    }

    /// Runs to the end; stdout and stderr together.
    pub async fn run(&self, spec: ProcessSpec) -> Result<Output, SandboxError> {
        run_with(&self.launcher, spec).await
    }

    pub async fn sh(&self, id: &str, script: &str) -> Output {
        self.run(self.script(id, script)).await.unwrap()
    }
}

pub async fn run_with(executor: &dyn Executor, spec: ProcessSpec) -> Result<Output, SandboxError> {
    let (process, text) = start(executor, spec).await?;
    let text = tokio::task::spawn_blocking(move || drain(text)).await.unwrap();
    Ok(Output { status: process.wait().await?, text })
}

/// Starts it and gives the reading end of its output.
pub async fn start(executor: &dyn Executor, spec: ProcessSpec) -> Result<(Process, OwnedFd), SandboxError> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let stdio = Stdio {
        stdin: File::open("/dev/null").unwrap().into(),
        stdout: write.try_clone().unwrap(),
        stderr: write,
    };
    Ok((executor.run(spec, stdio).await?, read))
}

pub fn drain(fd: OwnedFd) -> String {
    let mut bytes = Vec::new();
    // A terminal ends with EIO.
    let _ = File::from(fd).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How long what is sure to come may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `test` holds.
pub async fn until(what: &str, mut test: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !test() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Reads until all that came ends with `what`.
pub async fn wait_for(fd: &OwnedFd, what: &'static str) -> String {
    let fd = fd.try_clone().unwrap();
    let read = move || {
        let mut seen = String::new();
        while !seen.ends_with(what) {
            let mut byte = [0];
            assert_eq!(rustix::io::read(&fd, &mut byte).unwrap(), 1, "it ended: {seen}");
            seen.push(char::from(byte[0]));
        }
        seen
    };
    tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(read)).await.expect(what).unwrap()
}

/// Waits until no cgroup of this name is left.
pub async fn cgroup_goes(name: &str) {
    let found = || Command::new("find").args(["/sys/fs/cgroup", "-name", name]).output().unwrap().stdout;
    until(name, || found().is_empty()).await;
}
