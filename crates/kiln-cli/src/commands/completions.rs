//! `kiln completions SHELL`.

use crate::error::CliError;
use crate::printer;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

/// Arguments.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompletionsArgs {
    /// bash, elvish, fish, powershell or zsh
    #[arg(value_name = "SHELL", hide_possible_values = true)]
    shell: Shell,
}

/// Prints the script for a shell.
pub(crate) fn run(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::app::Cli::command(), "kiln", &mut script);
    printer::data(&script).map_err(CliError::stream("writing to stdout"))
}
