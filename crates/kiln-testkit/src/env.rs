//! The real binary in a world of its own: home, state, socket, configuration.

use crate::PATIENCE;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A temporary folder with everything a test touches; removed when dropped.
#[derive(Debug)]
pub struct Env {
    dir: tempfile::TempDir,
    binary: PathBuf,
}

/// What a command said.
#[derive(Debug)]
#[must_use = "assert success or failure"]
pub struct Output {
    /// Exit status; -1 when killed by a signal.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Fails the test unless the command succeeded.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn success(self) -> Self {
        assert_eq!(self.status, 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Fails the test unless the command failed with status 1.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn failure(self) -> Self {
        assert_eq!(self.status, 1, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// How many lines of standard error are `#N CACHED`.
    pub fn cached(&self) -> usize {
        self.stderr.lines().filter(|l| l.starts_with('#') && l.ends_with(" CACHED")).count()
    }
}

impl Env {
    /// A new world around `binary` (`env!("CARGO_BIN_EXE_kiln")`).
    ///
    /// # Panics
    /// If no temporary folder can be made.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let dir = tempfile::Builder::new().prefix("kiln-test-").tempdir().expect("a temporary folder");
        for sub in ["home", "run", "context", "tmp"] {
            fs::create_dir(dir.path().join(sub)).expect("a temporary folder");
        }
        Self { dir, binary: binary.into() }
    }

    /// The folder of this world.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where the daemon's socket is.
    pub fn socket(&self) -> PathBuf {
        self.path().join("run/s.sock")
    }

    /// Writes `text` to `path` below the world; folders are made.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("a file below the world")).expect("a folder");
        fs::write(&path, text).expect("a file");
        path
    }

    /// The binary with this world's environment and nothing of the caller's but `PATH`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(args)
            .current_dir(self.path().join("context"))
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin")
            .env("HOME", self.path().join("home"))
            .env("XDG_RUNTIME_DIR", self.path().join("run"))
            .env("TMPDIR", self.path().join("tmp"))
            .env("KILN_HOST", format!("unix://{}", self.socket().display()))
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn kiln(&self, args: &[&str]) -> Output {
        output(self.command(args).output().expect("kiln starts"))
    }

    /// Runs the binary with `input` on standard input.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn kiln_with_input(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kiln starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let out = child.wait_with_output().expect("kiln ends");
        drop(writer.join());
        output(out)
    }

    /// Starts a daemon for this world and waits for its socket.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn daemon(&self, args: &[&str]) -> Daemon {
        self.daemon_with(args, &[])
    }

    /// As [`daemon`](Self::daemon), with more variables.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn daemon_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Daemon {
        let log = self.path().join("daemon.log");
        let file = fs::OpenOptions::new().append(true).create(true).open(&log).expect("a log file");
        let address = format!("unix://{}", self.socket().display());
        let root = self.path().join("root");
        let base = ["daemon", "--root", root.to_str().expect("UTF-8"), "--addr", &address];
        let child = self
            .command(&[&base[..], args].concat())
            .envs(variables.iter().copied())
            .stdout(file.try_clone().expect("a log file"))
            .stderr(file)
            .spawn()
            .expect("the daemon starts");
        let mut daemon = Daemon { child, log };
        let end = Instant::now() + PATIENCE;
        while UnixStream::connect(self.socket()).is_err() {
            let state = daemon.child.try_wait().expect("the daemon's state");
            assert!(state.is_none(), "the daemon ended ({state:?}):\n{}", daemon.log());
            assert!(Instant::now() < end, "the daemon does not listen:\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(2));
        }
        daemon
    }
}

fn output(out: std::process::Output) -> Output {
    Output {
        status: out.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// A running daemon; ended when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn stop(mut self) -> Option<i32> {
        self.ask_to_end();
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the daemon's state") {
                return status.code();
            }
            assert!(Instant::now() < end, "the daemon ignores SIGTERM");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Daemon {
    fn ask_to_end(&self) {
        drop(Command::new("kill").args(["-TERM", &self.pid().to_string()]).status());
    }

    fn ended_within(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        false
    }
}

/// A daemon that is asked takes its cgroups along. Asked more than once, it waits for nobody.
impl Drop for Daemon {
    fn drop(&mut self) {
        for _ in 0..100 {
            self.ask_to_end();
            if self.ended_within(Duration::from_millis(50)) {
                return;
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
