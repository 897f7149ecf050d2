//! The progress of a build on stderr, in a thread of its own: a terminal may be slow, the build is not to wait for it.

use crate::error::CliError;
use crate::printer;
use jiff::Timestamp;
use kiln_progress::{Colors, Display, DisplayOptions, Mode, Next, Update, Warning};
use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// What was asked for: `--quiet`, else `--progress`, else $BUILDKIT_PROGRESS.
pub fn mode(flag: &str, quiet: bool, vars: &dyn Fn(&str) -> Option<String>) -> Result<Mode, CliError> {
    let wrong = |flag: &'static str, value: &str| {
        let value = value.to_owned();
        move |e: kiln_progress::ModeError| CliError::Value { flag, value, why: e.to_string() }
    };
    let mode: Mode = flag.parse().map_err(wrong("--progress", flag))?;
    if quiet {
        return match mode {
            Mode::Auto | Mode::Quiet => Ok(Mode::Quiet),
            _ => Err(CliError::Usage(format!("--quiet and --progress {mode} exclude each other"))),
        };
    }
    match vars("BUILDKIT_PROGRESS").filter(|v| mode == Mode::Auto && !v.is_empty()) {
        Some(value) => value.parse().map_err(wrong("$BUILDKIT_PROGRESS", &value)),
        None => Ok(mode),
    }
}

/// Looks as the environment says; also gives complaints about it.
pub fn options(vars: &dyn Fn(&str) -> Option<String>) -> (DisplayOptions, Vec<String>) {
    let mut options = DisplayOptions { size: Box::new(printer::terminal_size), ..DisplayOptions::default() };
    let mut problems = Vec::new();
    let number = |name: &str| vars(name).and_then(|v| v.parse::<u64>().ok()).filter(|n| *n > 0);
    if let Some(text) = vars("BUILDKIT_COLORS") {
        let (colors, wrong) = Colors::parse(&text);
        options.colors = Some(colors);
        problems = wrong;
    }
    if vars("NO_COLOR").is_some_and(|v| !v.is_empty()) {
        options.colors = None;
    }
    if let Some(lines) = number("BUILDKIT_TTY_LOG_LINES") {
        options.log_lines = usize::try_from(lines).unwrap_or(usize::MAX);
    }
    if let Some(ms) = number("TTY_DISPLAY_RATE") {
        options.rate = Duration::from_millis(ms);
    }
    options.truncate_names = vars("PROGRESS_NO_TRUNC").as_deref() == Some("0");
    (options, problems)
}

/// What the display is told.
enum News {
    Update(Update),
    Canceled,
}

/// What to do after waiting for news.
fn next(news: Result<News, mpsc::RecvTimeoutError>) -> Next {
    match news {
        Ok(News::Update(update)) => Next::Update(update),
        Ok(News::Canceled) => Next::Canceled,
        Err(mpsc::RecvTimeoutError::Timeout) => Next::Nothing,
        Err(mpsc::RecvTimeoutError::Disconnected) => Next::End,
    }
}

/// A running display.
pub struct Progress {
    updates: mpsc::Sender<News>,
    thread: JoinHandle<io::Result<Vec<Warning>>>,
}

impl Progress {
    /// Starts it, on stderr.
    ///
    /// # Errors
    /// `tty` without a terminal.
    pub fn start(mode: Mode, options: DisplayOptions) -> Result<Self, CliError> {
        Self::start_on(mode, options, io::stderr(), printer::stderr_is_terminal())
    }

    /// Starts it on some output, which is a terminal or not.
    ///
    /// # Errors
    /// `tty` without a terminal.
    pub fn start_on(
        mode: Mode,
        options: DisplayOptions,
        out: impl io::Write + Send + 'static,
        is_terminal: bool,
    ) -> Result<Self, CliError> {
        let display =
            Display::new(mode, is_terminal, out, options).map_err(|e| CliError::Usage(e.to_string()))?;
        let (updates, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("progress".into())
            .spawn(move || display.run(|wait| next(receiver.recv_timeout(wait)), Timestamp::now))
            .map_err(CliError::stream("starting the progress display"))?;
        Ok(Self { updates, thread })
    }

    /// Passes updates on until the channel ends, or nobody shows them any more.
    pub fn feed(&self, mut from: tokio::sync::mpsc::Receiver<Update>) -> tokio::task::JoinHandle<()> {
        let updates = self.updates.clone();
        tokio::spawn(async move {
            while let Some(update) = from.recv().await {
                // When stderr is gone the build goes on.
                let _ = updates.send(News::Update(update));
            }
        })
    }

    /// Shows what still runs as canceled.
    pub fn cancel(&self) {
        let _ = self.updates.send(News::Canceled);
    }

    /// Draws the end and gives back the warnings of the build.
    pub fn finish(self) -> Vec<Warning> {
        drop(self.updates);
        self.thread.join().ok().and_then(Result::ok).unwrap_or_default()
    }
}

/// Warnings of the build, as a list at its end.
pub fn warnings_text(warnings: &[Warning], verbose: bool) -> String {
    let list: Vec<&Warning> = warnings.iter().filter(|w| !w.short.is_empty()).collect();
    if list.is_empty() {
        return String::new();
    }
    let plural = if list.len() == 1 { "" } else { "s" };
    let more = if verbose { ":" } else { " (use --debug to expand):" };
    let mut out = Vec::new();
    let line = |bytes: &[u8]| kiln_progress::printable(&String::from_utf8_lossy(bytes));
    out.extend_from_slice(format!("\n {} warning{plural} found{more}\n", list.len()).as_bytes());
    for w in list {
        out.extend_from_slice(format!(" - {}\n", line(&w.short)).as_bytes());
        if !verbose {
            continue;
        }
        for detail in &w.detail {
            out.extend_from_slice(format!("{}\n", line(detail)).as_bytes());
        }
        if !w.url.is_empty() {
            out.extend_from_slice(format!("More info: {}\n", w.url).as_bytes());
        }
        if let Some(source) = &w.source {
            // Writing to memory does not fail.
            let _ = kiln_progress::print_source_excerpt(source, &w.ranges, &mut out);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
