//! Running git.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use super::GitConfig;
use super::auth::Setting;
use super::bundle::Staged;
use super::ssh::Ssh;
use crate::redact::Redactor;
use crate::{LogStream, Progress, SourceError};

/// Bytes of output that are kept.
const OUTPUT_LIMIT: u64 = 16 << 20;
/// Bytes of a line, and of messages that end up in an error.
const LINE_LIMIT: u64 = 16 << 10;
const MESSAGE_LIMIT: usize = 16 << 10;

/// Settings that hold for every command: nothing runs in the background, no hook or monitor of a repository runs,
/// a server that sends nothing for two minutes is given up, and what is fetched comes as a pack: as loose objects, a
/// fetch that is killed would leave a commit without all that belongs to it, which looks as if it had been fetched.
const SETTINGS: [&str; 11] = [
    "advice.detachedHead=false",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "credential.helper=",
    "fetch.unpackLimit=1",
    "gc.autoDetach=false",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=120",
    "init.defaultBranch=master",
    "maintenance.autoDetach=false",
    "submodule.recurse=false",
];

/// Git as it is run for one source.
pub(super) struct Git {
    pub(super) config: GitConfig,
    pub(super) ssh: Arc<Ssh>,
    pub(super) header: Option<Setting>,
    pub(super) redactor: Redactor,
    pub(super) progress: Arc<dyn Progress>,
    /// Where commits come from: the remote, or a repository of our own in its place.
    pub(super) address: Address,
    /// For errors.
    pub(super) remote: String,
}

/// What commits are fetched from.
pub(super) enum Address {
    /// The remote itself.
    Remote(String),
    /// What a bundle held.
    Staged(Arc<Staged>),
}

/// One command.
pub(super) struct Call<'a> {
    git: &'a Git,
    git_dir: Option<PathBuf>,
    work_tree: Option<PathBuf>,
    file: bool,
    quiet: bool,
    args: Vec<OsString>,
}

/// A command that failed.
#[derive(Debug)]
pub(super) struct Failed {
    /// What git said, redacted.
    pub(super) message: String,
}

impl Git {
    /// A command with these arguments; the first is the sub-command.
    pub(super) fn call<const N: usize>(&self, args: [&str; N]) -> Call<'_> {
        let args = args.iter().map(OsString::from).collect();
        Call { git: self, git_dir: None, work_tree: None, file: false, quiet: false, args }
    }

    /// As [`Self::call`], with `--` and where commits come from behind the arguments.
    pub(super) fn ask<const N: usize>(&self, args: [&str; N]) -> Call<'_> {
        self.call(args).address()
    }

    /// An error about a step.
    pub(super) fn error(&self, step: &str, message: impl AsRef<str>) -> SourceError {
        SourceError::Git {
            step: step.to_string(),
            remote: self.remote.clone(),
            message: self.redactor.clean(message.as_ref().trim()),
        }
    }
}

impl Call<'_> {
    /// In this repository.
    pub(super) fn in_dir(mut self, git_dir: &Path) -> Self {
        self.git_dir = Some(git_dir.to_path_buf());
        self
    }

    /// With the files here; also the working directory.
    pub(super) fn work_tree(mut self, dir: &Path) -> Self {
        self.work_tree = Some(dir.to_path_buf());
        self
    }

    /// May read our own repositories through `file://`.
    pub(super) fn with_file(mut self) -> Self {
        self.file = true;
        self
    }

    /// With `--` and where commits come from as arguments.
    pub(super) fn address(self) -> Self {
        match &self.git.address {
            Address::Remote(address) => self.arg("--").arg(address),
            Address::Staged(staged) => self.with_file().arg("--").arg(staged.address()),
        }
    }

    /// One more argument.
    pub(super) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Runs the command; a failure becomes an error about `step`.
    pub(super) async fn run(self, step: &str) -> Result<String, SourceError> {
        let git = self.git;
        self.try_run().await?.map_err(|failed| git.error(step, failed.message))
    }

    /// As [`Self::try_run`] for a question whose answer may be no: what git says about that is not shown.
    pub(super) async fn try_run_quiet(mut self) -> Result<Result<String, Failed>, SourceError> {
        self.quiet = true;
        self.try_run().await
    }

    /// Runs the command to its end and gives its output. When the future is dropped, git and all it started end.
    pub(super) async fn try_run(self) -> Result<Result<String, Failed>, SourceError> {
        Ok(self.try_run_bytes().await?.map(|output| String::from_utf8_lossy(&output).into_owned()))
    }

    /// As [`Self::try_run`], for output that is not text.
    pub(super) async fn try_run_bytes(self) -> Result<Result<Vec<u8>, Failed>, SourceError> {
        let io = |e| SourceError::io(format!("run {}", self.git.config.program.display()))(e);
        let mut child = self.command().spawn().map_err(io)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut group = Group::of(child);
        let output = collect(stdout);
        let messages = self.messages(stderr);
        let (output, message) = tokio::join!(output, messages);
        let status = group.child.wait().await.map_err(io)?;
        group.ended = true;
        match (status.success(), output) {
            (true, Some(output)) => Ok(Ok(output)),
            (true, None) => {
                Ok(Err(Failed { message: format!("git printed more than {OUTPUT_LIMIT} bytes") }))
            }
            (false, _) if message.trim().is_empty() => {
                Ok(Err(Failed { message: format!("git ended with {status}") }))
            }
            (false, _) => Ok(Err(Failed { message: format!("git stderr:\n{}", message.trim_end()) })),
        }
    }

    fn command(&self) -> Command {
        let git = self.git;
        let mut command = std::process::Command::new(&git.config.program);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(self.environment());
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        if let Some(dir) = &self.work_tree {
            command.arg("--work-tree").arg(dir).current_dir(dir);
        }
        if let Some(dir) = &self.git_dir {
            command.arg("--git-dir").arg(dir);
            if self.work_tree.is_none() {
                command.current_dir(dir);
            }
        }
        command.args(&self.args);
        // A group of its own, so that what git starts (ssh, remote helpers, index-pack) can be ended with it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        if let Some(prepare) = &git.config.prepare {
            prepare(&mut command);
        }
        let mut command = Command::from(command);
        command.kill_on_drop(true);
        command
    }

    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let config = &self.git.config;
        let file = self.file || config.allow_file;
        let mut env: Vec<(&'static str, OsString)> = vec![
            ("PATH", (&config.path).into()),
            ("LC_ALL", "C".into()),
            ("HOME", "/dev/null".into()),
            ("GIT_CONFIG_NOSYSTEM", "1".into()),
            ("GIT_CONFIG_GLOBAL", "/dev/null".into()),
            ("GIT_TERMINAL_PROMPT", "0".into()),
            ("GIT_ASKPASS", "/bin/false".into()),
            (
                "GIT_ALLOW_PROTOCOL",
                if file { "file:git:http:https:ssh" } else { "git:http:https:ssh" }.into(),
            ),
            ("GIT_SSH_COMMAND", self.git.ssh.command().into()),
        ];
        if let Some(agent) = &self.git.ssh.agent {
            env.push(("SSH_AUTH_SOCK", agent.into()));
        }
        let proxies = [
            ("http_proxy", &config.proxies.http),
            ("https_proxy", &config.proxies.https),
            ("no_proxy", &config.proxies.no_proxy),
        ];
        env.extend(proxies.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?.into()))));
        if let Some(Setting { key, value }) = &self.git.header {
            env.extend([
                ("GIT_CONFIG_COUNT", "1".into()),
                ("GIT_CONFIG_KEY_0", key.into()),
                ("GIT_CONFIG_VALUE_0", value.into()),
            ]);
        }
        env
    }

    /// Passes lines on as they come and keeps the last of them.
    async fn messages(&self, stream: Option<impl AsyncRead + Unpin>) -> String {
        let Some(stream) = stream else { return String::new() };
        let mut kept = String::new();
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut reader).take(LINE_LIMIT).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return kept,
                Ok(_) => {}
            }
            let text = self.git.redactor.clean(&String::from_utf8_lossy(&line));
            if !self.quiet {
                self.git.progress.log(LogStream::Stderr, text.as_bytes());
            }
            kept.push_str(&text);
            if kept.len() > MESSAGE_LIMIT {
                let cut = kept.ceil_char_boundary(kept.len() - MESSAGE_LIMIT);
                kept.drain(..cut);
            }
        }
    }
}

/// All output, `None` if it is too much. It is read to the end in any case, so that git does not block.
async fn collect(stream: Option<impl AsyncRead + Unpin>) -> Option<Vec<u8>> {
    let mut stream = stream?;
    let mut out = Vec::new();
    (&mut stream).take(OUTPUT_LIMIT).read_to_end(&mut out).await.ok()?;
    let more = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap_or(0);
    (more == 0).then_some(out)
}

/// A process and its group; killed when dropped before the end.
struct Group {
    child: Child,
    pid: Option<Pid>,
    ended: bool,
}

impl Group {
    fn of(child: Child) -> Self {
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Self { child, pid, ended: false }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The leader is not reaped yet, so the number is still that of our group.
        if let (false, Some(pid)) = (self.ended, self.pid) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}
