//! The command line: one file per command.
//!
//! [`run`] reads the arguments and does what they say. stdout is data, stderr is for people; every error ends in one
//! place that adds advice and gives the exit status.

#![forbid(unsafe_code)]

pub mod advice;
mod app;
pub mod build;
mod commands;
pub mod connect;
pub mod error;
mod face;
mod hooks;
pub mod human;
pub mod pairs;
pub mod printer;
pub mod progress;
pub mod stdin;
pub mod tabs;
pub mod template;
pub mod usage;

pub use commands::buildkitd::{BuildkitdArgs, ContainerdArgs};
pub use commands::daemon::DaemonArgs;
pub use face::Face;
pub use hooks::{Hooks, InProcess};

use app::{Cli, Command};
use clap::Parser as _;
use clap::error::ErrorKind;
use error::CliError;
use std::ffi::OsString;
use std::process::ExitCode;

#[cfg(test)]
mod tests;

/// Exit status of `kiln daemon` when another daemon has its state directory (EX_TEMPFAIL of sysexits.h). A client that
/// starts daemons tries again then.
pub const STATE_IN_USE: u8 = 75;

/// Runs a command line, its first word being the program's name.
///
/// Exit status: 0, 1 for every error, 130 when it was interrupted; of a daemon also [`STATE_IN_USE`].
pub fn run(args: impl IntoIterator<Item = OsString>, hooks: Hooks) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => return usage_error(&e),
    };
    let debug = cli.global.debug;
    let result = match cli.command {
        // The daemon sets up its own log and runtime.
        Command::Daemon(args) => return (hooks.run_daemon)(*args),
        Command::Version => commands::version::run(),
        Command::Completions(args) => commands::completions::run(&args),
        Command::Build(args) => {
            log_to_stderr(debug);
            block_on(Box::pin(commands::build::run(*args, hooks, debug)))
        }
        Command::Du(args) => {
            log_to_stderr(debug);
            block_on(Box::pin(commands::du::run(args, hooks)))
        }
        Command::Prune(args) => {
            log_to_stderr(debug);
            block_on(Box::pin(commands::prune::run(args, hooks)))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => error::report(&e),
    }
}

/// Runs the command line of `buildkitd`.
pub fn run_buildkitd(args: impl IntoIterator<Item = OsString>, hooks: Hooks) -> ExitCode {
    match commands::buildkitd::parse(args) {
        Ok(args) => (hooks.run_daemon)(args),
        Err(e) => usage_error(&e),
    }
}

/// Help and version are data; everything else is an error.
fn usage_error(e: &clap::Error) -> ExitCode {
    let colored =
        |terminal: bool| if terminal { e.render().ansi().to_string() } else { e.render().to_string() };
    if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = printer::data(colored(printer::stdout_is_terminal()).as_bytes());
        return ExitCode::SUCCESS;
    }
    printer::people(&colored(printer::stderr_is_terminal()));
    ExitCode::FAILURE
}

fn log_to_stderr(debug: bool) {
    // Only what kiln itself says: libraries tell every frame that they send.
    let filter = if debug { "warn,kiln=debug" } else { "warn" };
    // A second subscriber in the process is no harm: the first stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(printer::stderr_is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()))
        .without_time()
        .with_target(debug)
        .try_init();
}

/// Runs a command to its end on a runtime of its own.
///
/// # Errors
/// Those of the command, and of starting the runtime.
pub fn block_on<E: From<CliError>>(work: impl Future<Output = Result<(), E>>) -> Result<(), E> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::stream("starting the runtime"))?;
    let result = runtime.block_on(work);
    // A thread that still reads stdin would hold the process.
    runtime.shutdown_background();
    result
}
