//! The command line of docker-buildx, the plugin of the Docker CLI.

use kiln_cli::Hooks;
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs a command line, its first word being the program's name.
#[allow(clippy::print_stderr)]
pub fn run(_args: impl IntoIterator<Item = OsString>, _hooks: Hooks) -> ExitCode {
    eprintln!("error: buildx is not built yet");
    ExitCode::FAILURE
}
