//! Running one hook to its end, in the daemon (on a thread that may wait) and in the new process alike.

use super::{Container, Hook, Moment};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How much of the end of its output is told when a hook fails, in bytes.
const OUTPUT: usize = 2048;

/// What hooks are run for.
pub(crate) struct Call<'a> {
    pub(crate) moment: Moment,
    pub(crate) container: &'a Container,
    /// The container's process as the hooks see it.
    pub(crate) pid: Option<u32>,
    /// Where they run; `None` is where this process is.
    pub(crate) directory: Option<&'a Path>,
}

/// Ends hooks before their time.
#[derive(Clone, Copy)]
pub(crate) struct Stop<'a> {
    /// The reading end of a pipe; its writer being gone says stop.
    pub(crate) pipe: BorrowedFd<'a>,
    /// How long they may go on then.
    pub(crate) grace: Duration,
}

/// Why hooks did not come to a good end.
#[derive(Debug)]
pub(crate) enum HookError {
    /// They were told to stop.
    Stopped,
    /// In words.
    Failed(String),
}

/// Runs them in order, each when the one before has ended well.
pub(crate) fn run_all(call: &Call<'_>, hooks: &[Hook], stop: Option<Stop<'_>>) -> Result<(), HookError> {
    let state = |e| HookError::Failed(format!("state of the container: {e}"));
    let state = call.container.state(call.moment, call.pid).map_err(state)?;
    hooks.iter().try_for_each(|hook| {
        let failed = |why: &dyn std::fmt::Display| {
            HookError::Failed(format!("{} hook {}: {why}", call.moment, hook.path.display()))
        };
        match run(hook, call.directory, &state, stop).map_err(|e| failed(&e))? {
            End::Well => Ok(()),
            End::Stopped => Err(HookError::Stopped),
            End::Badly(why) => Err(failed(&why)),
        }
    })
}

enum End {
    Well,
    Stopped,
    Badly(String),
}

/// Runs one with `state` on its standard input.
fn run(hook: &Hook, directory: Option<&Path>, state: &[u8], stop: Option<Stop<'_>>) -> io::Result<End> {
    if let Some(stop) = stop
        && stop.grace.is_zero()
        && stop.is_said()?
    {
        return Ok(End::Stopped);
    }
    let timeout = hook.timeout.map(|seconds| Duration::from_secs(seconds.get().into()));
    let (mut child, mut output) = start(hook, directory, state)?;
    let ended = wait(&child, &mut output, timeout.map(|t| Instant::now() + t), stop);
    if !matches!(ended, Ok(Ended::ByItself)) {
        // With what it has started. It has not been waited for, so the number is still its own.
        let _ = rustix::process::kill_process_group(Pid::from_child(&child), Signal::KILL);
    }
    let status = child.wait()?;
    Ok(match ended? {
        Ended::ByItself if status.success() => End::Well,
        Ended::ByItself => End::Badly(format!("{status}{}", output.told())),
        Ended::TimedOut => End::Badly(format!(
            "killed after its timeout of {} s{}",
            timeout.unwrap_or_default().as_secs(),
            output.told()
        )),
        Ended::Stopped => End::Stopped,
    })
}

fn start(hook: &Hook, directory: Option<&Path>, state: &[u8]) -> io::Result<(Child, Output)> {
    let (input, writer) = pipe()?;
    // The state is smaller than what a pipe holds.
    std::fs::File::from(writer).write_all(state)?;
    let (reader, writer) = pipe()?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    let variables = hook.env.iter().map(|v| v.split_once('=').unwrap_or((v, "")));
    command.env_clear().envs(variables);
    command.stdin(input).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    if let Some(directory) = directory {
        command.current_dir(directory);
    }
    kiln_sys::process::tie_to_parent(&mut command);
    Ok((command.spawn()?, Output { pipe: Some(reader.into()), kept: Vec::new() }))
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

enum Ended {
    ByItself,
    TimedOut,
    Stopped,
}

/// Waits for its own end. Output that somebody else still could write is not waited for.
fn wait(
    child: &Child,
    output: &mut Output,
    timeout: Option<Instant>,
    mut stop: Option<Stop<'_>>,
) -> io::Result<Ended> {
    let process = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut stopped = None;
    loop {
        let now = Instant::now();
        if timeout.is_some_and(|at| at <= now) {
            return Ok(Ended::TimedOut);
        }
        if stopped.is_some_and(|at| at <= now) {
            return Ok(Ended::Stopped);
        }
        let left = timeout.into_iter().chain(stopped).min().map(|at| at - now);
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut poll = vec![PollFd::new(&process, PollFlags::IN)];
        poll.extend(stop.as_ref().map(|stop| PollFd::from_borrowed_fd(stop.pipe, PollFlags::empty())));
        poll.extend(output.pipe.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, left.as_ref()))?;
        let ended = !poll[0].revents().is_empty();
        let said = stop.is_some() && !poll[1].revents().is_empty();
        drop(poll);
        output.read();
        if ended {
            return Ok(Ended::ByItself);
        }
        if let Some(stop) = stop.take_if(|_| said) {
            stopped = Some(Instant::now() + stop.grace);
        }
    }
}

impl Stop<'_> {
    fn is_said(&self) -> io::Result<bool> {
        let mut poll = [PollFd::from_borrowed_fd(self.pipe, PollFlags::empty())];
        Ok(rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, Some(&Timespec::default())))? > 0)
    }
}

/// The end of what a hook writes.
struct Output {
    /// `None` after its end.
    pipe: Option<std::fs::File>,
    kept: Vec<u8>,
}

impl Output {
    /// Takes what is there.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(n) => {
                    self.kept.extend_from_slice(&buffer[..n]);
                    let surplus = self.kept.len().saturating_sub(OUTPUT);
                    self.kept.drain(..surplus);
                }
                // Nothing more for now.
                Err(_) => return,
            }
        }
    }

    /// For the end of an error.
    fn told(&self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        match text.trim() {
            "" => String::new(),
            text => format!(": {text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;
    use std::os::fd::AsFd;

    fn sh(script: &str) -> Hook {
        let args = ["hook", "-c", script].map(str::to_owned).into();
        Hook {
            path: "/bin/sh".into(),
            args,
            env: vec!["PATH=/usr/bin:/bin".into(), "A=b=c".into()],
            timeout: None,
        }
    }

    fn run_one(hook: Hook, stop: Option<Stop<'_>>) -> Result<(), HookError> {
        let container = Container { id: "x1".into(), bundle: "/b".into() };
        let call = Call {
            moment: Moment::CreateRuntime,
            container: &container,
            pid: Some(7),
            directory: Some("/".as_ref()),
        };
        run_all(&call, &[hook], stop)
    }

    fn why(hook: Hook) -> String {
        match run_one(hook, None) {
            Err(HookError::Failed(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_hook_is_told_the_state_and_has_nothing_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        run_one(sh(&format!("{{ cat; echo; echo $0 $A $PWD; env | wc -l; }} > {}", out.display())), None)
            .unwrap();
        let state = r#"{"ociVersion":"1.0.2","id":"x1","status":"creating","pid":7,"bundle":"/b"}"#;
        let text = std::fs::read_to_string(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], [state, "hook b=c /"]);
        // The shell's own PWD, and `_` of some.
        assert!(lines[2].trim().parse::<u32>().unwrap() <= 5, "{text}");
    }

    #[test]
    fn a_failure_is_told_with_the_end_of_its_output() {
        let noise = "i=0; while [ $i -lt 400 ]; do echo line $i of many; i=$((i+1)); done; echo last words >&2; exit 3";
        let told = why(sh(noise));
        assert!(told.starts_with("createRuntime hook /bin/sh: exit status: 3: "), "{told}");
        assert!(told.ends_with("line 399 of many\nlast words") && told.len() < OUTPUT + 100, "{told}");
        assert_eq!(why(sh("kill -9 $$")), "createRuntime hook /bin/sh: signal: 9 (SIGKILL)");
        let missing = why(Hook { path: "/no/such/hook".into(), ..sh("") });
        assert!(missing.contains("hook /no/such/hook: No such file"), "{missing}");
    }

    #[test]
    fn one_that_hangs_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; echo waiting; wait", pid.display());
        // Long enough for a busy machine to get to the last words.
        let told = why(Hook { timeout: NonZeroU32::new(5), ..sh(&script) });
        assert!(told.ends_with("killed after its timeout of 5 s: waiting"), "{told}");
        let sleeper = std::fs::read_to_string(pid).unwrap();
        let gone = || match std::fs::read_to_string(format!("/proc/{}/stat", sleeper.trim())) {
            Err(_) => true,
            Ok(stat) => stat.contains(") Z "),
        };
        while !gone() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn one_that_is_told_to_stop_stops() {
        let (reader, writer) = pipe().unwrap();
        drop(writer);
        let stop = |grace| Some(Stop { pipe: reader.as_fd(), grace: Duration::from_millis(grace) });
        assert!(matches!(run_one(sh("exit 1"), stop(0)), Err(HookError::Stopped)), "it is not even started");
        assert!(matches!(run_one(sh("sleep 1000"), stop(10)), Err(HookError::Stopped)));
        run_one(sh("exit 0"), stop(60_000)).unwrap();
    }

    #[test]
    fn what_it_leaves_running_is_not_waited_for() {
        run_one(sh("sleep 3 & exit 0"), None).unwrap();
    }
}
