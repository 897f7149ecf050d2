//! The only place that writes to the standard streams: stdout is data, stderr is for people.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints")]

use std::io::{self, IsTerminal as _, Write as _};

/// Writes data to stdout, as it is.
///
/// # Errors
/// Nobody reads, or the disk behind it is full.
pub fn data(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes a line of data to stdout.
///
/// # Errors
/// As [`data`].
pub fn line(text: &str) -> io::Result<()> {
    data(format!("{text}\n").as_bytes())
}

/// Writes text for people to stderr. There is nobody to tell when that fails.
pub fn people(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_bytes());
    let _ = err.flush();
}

/// `warning: text` on stderr.
pub fn warning(text: &str) {
    people(&format!("warning: {text}\n"));
}

/// Asks a question on stderr; only `y` and `yes` mean yes.
///
/// # Errors
/// stdin cannot be read.
pub fn confirm(question: &str) -> io::Result<bool> {
    people(&format!("{question} [y/N] "));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if !answer.ends_with('\n') {
        people("\n");
    }
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Whether stdout is a terminal.
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether stderr is a terminal.
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Columns and rows of the terminal on stderr.
pub fn terminal_size() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok()?;
    Some((size.ws_col, size.ws_row))
}
