//! A daemon in the background, started by the first client that needs one.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::{Address, Client, ConnectError};

/// How long a started daemon may take until it listens.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long to wait for somebody else's daemon when ours ended: two clients may have started one at the same time.
const GRACE: Duration = Duration::from_secs(2);
/// The same when ours ended because another has the state directory; then ours is tried again,
const BUSY_GRACE: Duration = Duration::from_millis(300);
/// for so long: a daemon that ends closes its socket first and lets its state go seconds later.
const HANDOVER: Duration = Duration::from_secs(8);
/// First and longest pause between attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));
/// Bytes of the log that an error shows.
const TAIL: u64 = 4 << 10;
/// A log longer than this is begun anew, in bytes.
const LOG_LIMIT: u64 = 8 << 20;

/// How to start a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Autostart {
    /// What to run, usually our own executable.
    pub program: PathBuf,
    /// What it is called: the binary knows by it what it is to be.
    pub name: OsString,
    /// Its arguments, which must make it listen at the address that is tried.
    pub arguments: Vec<OsString>,
    /// Where its output goes; appended to. The directory is made if it is missing.
    pub log: PathBuf,
    /// Its exit status when another daemon has the state directory.
    pub busy: i32,
}

/// Connects to the daemon at `address`; if none answers, starts one and waits for it.
pub async fn find_or_start(address: &Address, autostart: &Autostart) -> Result<Client, ConnectError> {
    if let Ok(client) = Client::connect(address).await {
        return Ok(client);
    }
    let path = autostart.log.clone();
    let (mut log, begin) =
        open_log(&path).map_err(|source| ConnectError::Log { log: path.clone(), source })?;
    let handed_over = Instant::now() + HANDOVER;
    loop {
        let ended = spawn(autostart, &log)
            .map_err(|source| ConnectError::Spawn { program: autostart.program.clone(), source })?;
        match answer(address, autostart, ended).await {
            Answer::Client(client) => return Ok(*client),
            Answer::Ended(Some(status))
                if status.code() == Some(autostart.busy) && Instant::now() < handed_over => {}
            Answer::Ended(status) => {
                let status = status.map_or("unknown exit".to_string(), |s| s.to_string());
                return Err(ConnectError::Ended { status, log: path, tail: tail(&mut log, begin) });
            }
            Answer::Silence => {
                let address = address.clone();
                return Err(ConnectError::Silent { address, log: path, tail: tail(&mut log, begin) });
            }
        }
    }
}

/// What became of a daemon that was started.
enum Answer {
    Client(Box<Client>),
    Ended(Option<ExitStatus>),
    Silence,
}

/// Tries until a daemon answers, ours or another, or there is no hope of that.
async fn answer(
    address: &Address,
    autostart: &Autostart,
    mut ended: oneshot::Receiver<Option<ExitStatus>>,
) -> Answer {
    let mut deadline = Instant::now() + PATIENCE;
    let (mut pause, longest) = PAUSES;
    let mut end = None;
    loop {
        if let Ok(client) = Client::connect(address).await {
            return Answer::Client(Box::new(client));
        }
        if Instant::now() >= deadline {
            return end.map_or(Answer::Silence, Answer::Ended);
        }
        tokio::select! {
            status = &mut ended, if end.is_none() => {
                let status = status.ok().flatten();
                let is_busy = status.and_then(|s| s.code()) == Some(autostart.busy);
                deadline = deadline.min(Instant::now() + if is_busy { BUSY_GRACE } else { GRACE });
                end = Some(status);
            }
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(longest),
        }
    }
}

/// Opens the log and says where what follows begins.
fn open_log(path: &Path) -> io::Result<(File, u64)> {
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let mut options = OpenOptions::new();
    let log = options.read(true).append(true).create(true).mode(0o600).open(path)?;
    if log.metadata()?.len() > LOG_LIMIT {
        log.set_len(0)?;
    }
    let begin = log.metadata()?.len();
    Ok((log, begin))
}

/// Starts the daemon in a process group of its own, so that Ctrl-C at our terminal does not reach it.
fn spawn(autostart: &Autostart, log: &File) -> io::Result<oneshot::Receiver<Option<ExitStatus>>> {
    let mut child = Command::new(&autostart.program)
        .arg0(&autostart.name)
        .args(&autostart.arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .current_dir("/")
        .process_group(0)
        .spawn()?;
    let (end, ended) = oneshot::channel();
    // Reaps it if it ends before us.
    std::thread::Builder::new().name("kiln-daemon".into()).spawn(move || {
        let _ = end.send(child.wait().ok());
    })?;
    Ok(ended)
}

fn tail(log: &mut File, begin: u64) -> String {
    let mut read = || {
        let end = log.metadata()?.len();
        log.seek(SeekFrom::Start(begin.max(end.saturating_sub(TAIL))))?;
        let mut text = Vec::new();
        log.take(TAIL).read_to_end(&mut text)?;
        io::Result::Ok(text)
    };
    match read() {
        Ok(text) if text.is_empty() => "(nothing)".to_string(),
        Ok(text) => String::from_utf8_lossy(&text).trim_end().to_string(),
        Err(e) => format!("(cannot be read: {e})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(dir: &Path, script: &str) -> (Address, Autostart) {
        let autostart = Autostart {
            program: "/bin/sh".into(),
            name: "sh".into(),
            arguments: ["-c", script].map(OsString::from).into(),
            log: dir.join("new/log"),
            busy: 75,
        };
        (Address::Unix(dir.join("sock")), autostart)
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_ends_is_reported_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let (address, autostart) = shell(dir.path(), "echo config is broken >&2; exit 3");
        std::fs::create_dir_all(dir.path().join("new")).unwrap();
        std::fs::write(&autostart.log, "older words\n").unwrap();
        let error = find_or_start(&address, &autostart).await.unwrap_err();
        // With paused time the end of the process may come after the patience is over.
        let (log, tail) = match &error {
            ConnectError::Ended { log, tail, status } => {
                assert_eq!(status, "exit status: 3");
                (log, tail)
            }
            ConnectError::Silent { log, tail, .. } => (log, tail),
            other => panic!("{other}"),
        };
        assert_eq!(log, &autostart.log);
        assert!(!tail.contains("older words"));
    }

    #[tokio::test]
    async fn a_daemon_whose_state_is_still_in_use_is_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let count = dir.path().join("count");
        // Busy twice, then broken.
        let script = format!("echo x >> {0}; [ $(wc -l < {0}) -lt 3 ] && exit 75; exit 4", count.display());
        let (address, autostart) = shell(dir.path(), &script);
        let error = find_or_start(&address, &autostart).await.unwrap_err().to_string();
        assert!(error.starts_with("the daemon did not start (exit status: 4)"), "{error}");
        assert_eq!(std::fs::read_to_string(&count).unwrap().lines().count(), 3);
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (address, mut autostart) = shell(dir.path(), "");
        autostart.log = "/dev/null/log".into();
        let error = find_or_start(&address, &autostart).await.unwrap_err().to_string();
        assert!(error.starts_with("log of the daemon /dev/null/log: "), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (address, mut autostart) = shell(dir.path(), "");
        autostart.program = "/nonexistent/kiln".into();
        let error = find_or_start(&address, &autostart).await.unwrap_err().to_string();
        assert!(error.starts_with("start daemon /nonexistent/kiln: "), "{error}");
    }

    #[test]
    fn the_tail_is_what_was_written_since() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "before").unwrap();
        let (mut log, begin) = open_log(&path).unwrap();
        assert_eq!(tail(&mut log, begin), "(nothing)");
        io::Write::write_all(&mut log, b"after\n").unwrap();
        assert_eq!(tail(&mut log, begin), "after");
    }
}
