//! The command line of buildctl: BuildKit's client, for its users and scripts. Flags, texts, exit statuses and what
//! goes to which stream are BuildKit's.

#![forbid(unsafe_code)]

mod build;
mod cli;
mod command;
mod connect;
mod error;
mod text;

use cli::{Action, Invocation, Outcome, Values};
use error::Error;
use kiln_cli::printer;
use std::ffi::OsString;
use std::process::ExitCode;

/// The version of BuildKit whose commands these are; scripts read the third word of `--version`.
const VERSION: &str = "v0.30.0-kiln";
/// What `--version` prints: exactly four words, or nerdctl does not know it. The last is kiln's own version.
const VERSION_LINE: &str =
    concat!("buildctl github.com/moby/buildkit v0.30.0-kiln ", env!("CARGO_PKG_VERSION"), "\n");
/// Exit status for a command that is not there.
const NO_TOPIC: u8 = 3;

/// Runs a command line, its first word being the program's name.
///
/// Exit status: 0, 1 for every error, 3 for a command that there is not.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Result<Vec<_>, _> = args.into_iter().skip(1).map(OsString::into_string).collect();
    let words = match words {
        Ok(words) => words,
        Err(word) => return report(&Error::Text(format!("argument {word:?} is not UTF-8"))),
    };
    match cli::parse(&words) {
        Outcome::Run(invocation) => run_command(&invocation),
        Outcome::Help(path) => data(&cli::help(&path, VERSION, &default_address())),
        Outcome::Version => data(VERSION_LINE),
        Outcome::NoTopic(name) => {
            printer::people(&format!("No help topic for '{name}'\n"));
            ExitCode::from(NO_TOPIC)
        }
        Outcome::Wrong { why, show_help } => {
            printer::people(&format!("Incorrect Usage: {why}\n\n"));
            if show_help {
                data(&cli::help(&[&cli::ROOT], VERSION, &default_address()));
            }
            report(&Error::Text(why))
        }
    }
}

fn default_address() -> String {
    connect::address_text(&Values::default(), &command::env)
}

fn data(text: &str) -> ExitCode {
    match printer::data(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => report(&Error::Output(e)),
    }
}

fn report(error: &Error) -> ExitCode {
    if !error.is_silent() {
        printer::people(&error.report());
    }
    ExitCode::FAILURE
}

fn run_command(invocation: &Invocation) -> ExitCode {
    let result = match invocation.values.text_or("log-format", "text") {
        "json" | "text" | "" => kiln_cli::block_on(interruptible(invocation)),
        other => Err(format!("unsupported log type {other:?}").into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

/// Does what an invocation says until it is done, or a signal says that it is enough.
async fn interruptible(invocation: &Invocation) -> Result<(), Error> {
    // These end by themselves: one cancels its build first, the other only passes bytes on.
    if matches!(invocation.command.action, Action::Build | Action::DialStdio) {
        return command::run(invocation).await;
    }
    tokio::select! {
        result = command::run(invocation) => result,
        result = kiln_cli::build::run::interrupted() => {
            result.map_err(Error::from).and(Err(Error::Canceled))
        }
    }
}
