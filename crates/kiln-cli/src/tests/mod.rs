//! Tests of what needs no daemon.

mod connect;
mod context;
mod error;
mod export;
mod help;
mod inputs;
mod plan;
mod usage;

use crate::app::{Cli, Command};
use crate::build::args::BuildArgs;
use crate::build::plan::{Plan, Unsaid};
use crate::error::CliError;
use clap::Parser as _;

/// Flags of `kiln build FLAGS .`.
pub(crate) fn args(flags: &[&str]) -> BuildArgs {
    let words = ["kiln", "build"].into_iter().chain(flags.iter().copied());
    match Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{flags:?}: {e}")).command {
        Command::Build(command) => command.build,
        other => panic!("{other:?}"),
    }
}

/// An environment with a few variables.
pub(crate) fn vars(name: &str) -> Option<String> {
    match name {
        "FROM_ENV" => Some("env value".into()),
        "SSH_AUTH_SOCK" => Some("/agent.sock".into()),
        _ => None,
    }
}

/// The plan of `kiln build FLAGS`, stdin being empty.
pub(crate) fn plan(flags: &[&str]) -> Result<Plan, CliError> {
    Plan::new(&args(flags), &vars, &Unsaid::Keep, || Ok(Vec::new()))
}

pub(crate) fn plan_error(flags: &[&str]) -> String {
    plan(flags).expect_err(&format!("{flags:?}")).to_string()
}
