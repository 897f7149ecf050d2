//! The command line of buildctl.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs a command line, its first word being the program's name.
#[allow(clippy::print_stderr)]
pub fn run(_args: impl IntoIterator<Item = OsString>) -> ExitCode {
    eprintln!("error: buildctl is not built yet");
    ExitCode::FAILURE
}
